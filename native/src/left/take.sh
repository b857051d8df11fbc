# What a build leaves, written to descriptor 3: take PROGRAM [CONDITION...] writes the program's name, its size and its
# bytes, and an archive of what is in the folder besides. The conditions are those of find. Unless a file fulfils them,
# the folder holds only what was sent, and no archive is written.
# shellcheck shell=sh
take() {
    program=$1
    shift
    printf '%s\n%s\n' "${program##*/}" "$(wc -c <"$program")" >&3
    cat -- "$program" >&3
    if [ -n "$(beside "$@" ! -type d -printf x)" ]; then
        beside -print0 | tar -c -f - --format=gnu --owner=0 --group=0 --mode=a-w,a+rX --hard-dereference \
            --ignore-failed-read --no-recursion --null -T - >&3
    fi
    exit 0
}
# All that is beside the program, but caches and what only compilers and linkers read.
beside() {
    find . -mindepth 1 -path ./.cache -prune -o \( -type f -o -type d -o -type l \) ! -name '*.o' ! -name '*.a' \
        ! -name '*.gch' ! -samefile "$program" "$@"
}
