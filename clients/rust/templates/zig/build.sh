#!/bin/sh
# Builds {{name}}.wasm, a WASI preview 1 module. Exits 3 where a tool is missing.
set -eu
cd "$(dirname "$0")"
if command -v zig > /dev/null; then
    zig=zig
elif python3 -c 'import ziglang' 2> /dev/null; then
    zig="python3 -m ziglang"
else
    echo "missing: zig: https://ziglang.org/download, or python3 -m pip install ziglang" >&2
    exit 3
fi
$zig build-exe main.zig -target wasm32-wasi -O ReleaseSmall "-femit-bin={{name}}.wasm"
