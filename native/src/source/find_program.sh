# Leaves the program of one source file. $1 is its name. A program of another name is taken if it is the only one.
# shellcheck shell=sh
name=$1
if ! [ -f "$1" ] || ! [ -x "$1" ]; then
    shift $#
    for file in *; do [ -f "$file" ] && [ -x "$file" ] && set -- "$@" "$file"; done
    [ $# = 1 ] || { echo "error: the build left no program $name" >&2; exit 1; }
fi
take "$1" ! -path ./Makefile ! -path "./$name.c" ! -path "./$name.cpp"
