#!/bin/sh
# exports.sh SIMULATED REAL - the simulated libraries export every function of the real ones,
# under the same symbol versions. Skipped, with a word, for a library that is not installed.
set -u
simulated=$1
real=$2
names=$(mktemp -d) || exit 2
trap 'rm -rf "$names"' EXIT
failed=0

functions()
{
    nm -D --defined-only "$1" | awk '$2 != "A" && $3 !~ /^_Z/ { print $3 }' | LC_ALL=C sort
}

for library in libcublas.so.13 libcublasLt.so.13 libnccl.so.2; do
    if [ ! -e "$real/$library" ]; then
        printf '%s: not installed, not compared\n' "$library"
        continue
    fi
    functions "$simulated/$library" >"$names/simulated"
    functions "$real/$library" >"$names/real"
    missing=$(LC_ALL=C comm -13 "$names/simulated" "$names/real")
    count=$(wc -l <"$names/real")
    if [ -n "$missing" ] || [ "$count" -eq 0 ]; then
        printf '%s lacks:\n%s\n' "$library" "$missing"
        failed=1
    else
        printf '%s: all %s functions\n' "$library" "$count"
    fi
done
exit "$failed"
