#!/bin/sh
# coverage.sh - every operation that the language can spell is in a model of this directory.
#
# usage: coverage.sh OPS_DEF MODEL …
#     Rows OP and SUGAR of the table, and rows MAP with a signature, have a name to call.
set -u
table=$1
shift

names=$(sed -n -e 's/^OP([A-Z0-9_]*, \([a-z0-9_]*\), .*/\1/p' -e 's/^SUGAR(\([a-z0-9_]*\), .*/\1/p' \
    -e 's/^MAP([A-Z0-9_]*, \([a-z0-9_]*\), ".*/\1/p' "$table")
count=0
missing=0
for name in $names; do
    count=$((count + 1))
    sed 's/#.*//' "$@" | grep -q "\\b$name(" && continue
    echo "no model here calls $name" >&2
    missing=1
done
echo "$count operations"
# Fewer than these mean that the table is not read as it is written.
[ $count -ge 35 ] && [ $missing -eq 0 ]
