#!/bin/sh
# Builds {{name}}.wasm, a WASI preview 1 module. Exits 3 where a tool is missing.
set -eu
cd "$(dirname "$0")"
missing() {
    echo "missing: $1" >&2
    exit 3
}
command -v cargo > /dev/null || missing "cargo: https://rustup.rs has it"
libraries=$("${RUSTC:-rustc}" --print target-libdir --target wasm32-wasip1)
# CARGO_UNSTABLE_BUILD_STD is for compilers that build their own standard library.
[ -d "$libraries" ] || [ -n "${CARGO_UNSTABLE_BUILD_STD:-}" ] ||
    missing "Rust's library for wasm32-wasip1: rustup target add wasm32-wasip1"
cargo build --quiet --release --target wasm32-wasip1 --target-dir target
cp "target/wasm32-wasip1/release/{{name}}.wasm" .
