#!/bin/sh
# Builds {{name}}.wasm, a WASI 0.2 component with Python inside. Exits 3 where a tool is missing.
set -eu
cd "$(dirname "$0")"
command -v componentize-py > /dev/null || {
    echo "missing: componentize-py: python3 -m pip install componentize-py" >&2
    exit 3
}
componentize-py --wit-path wit --world program componentize app --output "{{name}}.wasm"
