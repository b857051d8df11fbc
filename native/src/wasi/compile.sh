#!/bin/sh
# In a build for WASI all compilers are this: clang and LLVM's tools, by the names that makefiles call. What only a program
# of this machine could be compiled or linked with is left out.
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

# One command for compiling and for linking: what only the other one needs is unused, without a word. The stack comes first,
# so that a program that uses it up traps instead of writing over its data.
run() {
    $clang --target=wasm32-wasi -nostdlibinc -isystem /usr/include/wasm32-wasi \
        -Qunused-arguments -Wno-unknown-warning-option -Wno-ignored-optimization-argument $optimize \
        -D_WASI_EMULATED_SIGNAL -D_WASI_EMULATED_PROCESS_CLOCKS -D_WASI_EMULATED_MMAN -D_WASI_EMULATED_GETPID "$@" \
        -Wl,-z,stack-size=@STACK_SIZE@ -Wl,--stack-first -Wl,--strip-debug -Wl,--wrap=__wasi_proc_exit -L@LIBRARIES@ \
        -lmissing $scan -lwasi-emulated-signal -lwasi-emulated-process-clocks -lwasi-emulated-mman -lwasi-emulated-getpid
}
scan=
run "$@" || exit

# The printf and scanf that know long double take five times as long for any number with a point: they are for who asks.
if [ "$links" ] && grep -q -a -E '%[-+ #0-9.*]*L[aefgAEFG]' -- "$output" 2>/dev/null; then
    scan=-lc-printscan-long-double
    run "$@" 2>/dev/null
fi
