#!/bin/sh
# Each line of the input: a name, and rows with / between them.
echo '#include "patterns.h"'
echo 'const struct pattern patterns[] = {'
while read -r name rows; do
    case $name in '' | '#'*) continue ;; esac
    printf '    { "%s", "%s" },\n' "$name" "$rows"
done
echo '    { 0, 0 }'
echo '};'
