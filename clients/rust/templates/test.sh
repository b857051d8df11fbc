#!/bin/sh
# Runs {{name}}.wasm at a gateway, case by case, and compares what comes back with what is expected.
# Where the gateway is, offload-client knows: by OFFLOAD_BROKER, its configuration file, or 127.0.0.1.
set -u
cd "$(dirname "$0")" || exit
[ -f "{{name}}.wasm" ] || sh build.sh || exit
failed=0

# expect STDOUT EXIT_CODE STDIN [ARG ...]
expect() {
    stdout=$1 exit_code=$2 stdin=$3
    shift 3
    printed=$(printf '%s' "$stdin" | offload-client send "{{name}}.wasm" --stdin - --args "$@" 2> stderr.log)
    code=$?
    what="'$stdin' | {{name}}${*:+ $*}"
    if [ "$printed" = "$stdout" ] && [ $code -eq "$exit_code" ]; then
        echo "ok: $what"
    else
        echo "FAILED: $what: printed '$printed' and exited $code, not '$stdout' and $exit_code"
        cat stderr.log >&2
        failed=1
    fi
    rm -f stderr.log
}

expect 12 0 '' 5 7
expect 6 0 '1 2 3'
expect -1 0 '-4' 1 2
expect '' 1 '' five

exit $failed
