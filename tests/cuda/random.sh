#!/bin/sh
# random.sh - random models, with loops, ties, frozen and recomputed parts, on simulated GPUs.
#
# usage: random.sh TEST_PASSES_RANDOM MDLC WORK FIRST N
#     The models FIRST … FIRST + N - 1 of tests/passes/test_random.c, each by strange.sh.
set -u
writer=$1 mdlc=$2 work=$3 first=$4 n=$5
here=$(cd "$(dirname "$0")" && pwd) || exit 1
failed=0
rm -rf "$work"
mkdir -p "$work" || exit 1
"$writer" "$work" $((first + n)) || exit 1
while [ "$n" -gt 0 ]; do
    n=$((n - 1))
    name=random_$((first + n))
    sh "$here/strange.sh" "$mdlc" "$work/$name.mdl" "$work/$name" all || failed=$((failed + 1))
done
[ $failed -eq 0 ]
