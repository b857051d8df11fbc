#!/bin/sh
# Builds {{name}}.wasm, a WASI preview 1 module, with clang and wasi-libc or with zig. Exits 3 where both are missing.
set -eu
cd "$(dirname "$0")"
set -- -std=c11 -O2 -Wall -Wextra -Wl,--strip-all -o "{{name}}.wasm" ./*.c
if command -v clang > /dev/null && [ -d /usr/include/wasm32-wasi ]; then
    clang --target=wasm32-wasi -nostdlibinc -isystem /usr/include/wasm32-wasi "$@"
elif command -v zig > /dev/null; then
    zig cc --target=wasm32-wasi "$@"
elif python3 -c 'import ziglang' 2> /dev/null; then
    python3 -m ziglang cc --target=wasm32-wasi "$@"
else
    echo "missing: a C compiler for WASI: apt-get install clang lld wasi-libc libclang-rt-dev-wasm32," >&2
    echo "or elsewhere python3 -m pip install ziglang" >&2
    exit 3
fi
