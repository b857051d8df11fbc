#!/bin/sh
# In a build for WASI all compilers are this: clang and LLVM's tools, by the names that makefiles call. What only a
# program of this machine could be compiled or linked with is left out.
PATH=/usr/local/bin:/usr/bin:/bin
case ${0##*/} in
    ar | nm | objcopy | ranlib | strip) exec "llvm-${0##*/}" "$@" ;;
    *++) clang='clang++ -fno-exceptions -isystem /usr/include/wasm32-wasi/c++/v1' ;;
    *) clang=clang ;;
esac

# Who asks for no optimization gets some: unoptimized code costs several times the fuel.
optimize=-O2 links=yes output=a.out before=
for arg; do
    shift
    [ "$before" = -o ] && output=$arg
    before=$arg
    case $arg in
        -shared)
            echo 'error: WASI has no shared libraries: -shared' >&2
            exit 1
            ;;
        -m* | -fPIC | -fpic | -fPIE | -fpie | -pie | -no-pie | -static | -static-lib* | -rdynamic) continue ;;
        -pthread | -fopenmp | -flto* | -fuse-ld=* | -fstack-* | -fcf-protection*) continue ;;
        -lgcc | -lgcc_s | -lgcc_eh | -lstdc++) continue ;;
        -Wl,--whole-archive | -Wl,--no-whole-archive | -Wl,--wrap[=,]*) ;;
        -Wl,*) continue ;;
        -O*) optimize= ;;
        -c | -S | -E | -M | -MM | -fsyntax-only) links= ;;
    esac
    set -- "$@" "$arg"
done

# A file of this build's own, without a name that its makefile could have.
own=/tmp/.compile.$$

# One command for compiling and for linking: what only the other one needs is unused, without a word. The stack comes
# first, so that a program that uses it up traps instead of writing over its data.
run() {
    $clang --target=wasm32-wasi -nostdlibinc -isystem /usr/include/wasm32-wasi \
        -Qunused-arguments -Wno-unknown-warning-option -Wno-ignored-optimization-argument $optimize \
        -D_WASI_EMULATED_SIGNAL -D_WASI_EMULATED_PROCESS_CLOCKS -D_WASI_EMULATED_MMAN -D_WASI_EMULATED_GETPID "$@" \
        -Wl,-z,stack-size=@STACK_SIZE@ -Wl,--stack-first -Wl,--strip-debug -Wl,--wrap=__wasi_proc_exit -L@LIBRARIES@ \
        $main -lcompat $scan -lwasi-emulated-signal -lwasi-emulated-process-clocks -lwasi-emulated-mman \
        -lwasi-emulated-getpid
}
scan='' main=''
if ! [ "$links" ]; then
    run "$@"
    exit
fi
run "$@" 2>"$own.said"
status=$?

# The C library calls a main without parameters, or with two. For any other form the linker puts a trap in its place,
# with a warning: `function signature mismatch: main`, and then where and with which types it is. It is called by main.c
# instead.
form=$(awk '
    /: function signature mismatch: (main|__main_void|__main_argc_argv)$/ { name = $NF; next }
    name && /^>>> defined as \(/ && !/libc\.a\(/ {
        sub(/^>>> defined as \(/, "")
        sub(/ in .*/, "")
        split($0, types, /\) -> /)
        print name ";" types[1] ";" types[2]
        exit
    }' "$own.said")
parameters=${form#*;} result=${form##*;}
parameters=${parameters%;*}
case $parameters in
    '') call='user_main()' ;;
    i32) call='user_main(argc)' ;;
    'i32, i32') call='user_main(argc, (int)argv)' ;;
    'i32, i32, i32') call='user_main(argc, (int)argv, (int)environ)' ;;
    *) form= ;;
esac
if [ "$form" ]; then
    [ "$result" = void ] && call="($call, 0)"
    result=$(echo "$result" | sed 's/i32/int/; s/i64/long long/; s/f32/float/; s/f64/double/')
    parameters=$(echo "${parameters:-void}" | sed 's/i32/int/g')
    main=$own.o
    clang --target=wasm32-wasi -nostdlibinc -isystem /usr/include/wasm32-wasi -O2 -w -c @LIBRARIES@/main.c -o "$main" \
        -DNAME="\"${form%%;*}\"" -DRESULT="$result" -DPARAMETERS="$parameters" -DCALL="$call" &&
        run "$@" 2>"$own.said"
    status=$?
fi
cat "$own.said" >&2
rm -f "$own.said"
[ "$status" = 0 ] || exit "$status"

# The printf and scanf that know long double take five times as long for any number with a point: they are for who asks.
if grep -q -a -E '%[-+ #0-9.*]*L[aefgAEFG]' -- "$output" 2>/dev/null; then
    scan=-lc-printscan-long-double
    run "$@" 2>/dev/null
fi
rm -f "$own.o"
