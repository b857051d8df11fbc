#!/bin/sh
# Builds {{name}}.wasm, a WASI 0.2 component with a JavaScript engine inside. Exits 3 where a tool is missing.
set -eu
cd "$(dirname "$0")"
command -v node > /dev/null || {
    echo "missing: Node.js with npm: https://nodejs.org" >&2
    exit 3
}
[ -d node_modules/@bytecodealliance/componentize-js ] || {
    echo "missing: componentize-js: npm install, in this folder" >&2
    exit 3
}
node build.mjs
