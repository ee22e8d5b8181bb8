#!/bin/sh
# schedules.sh PROGRAM - runs a test in every schedule, in random ones by ten seeds, and without
# race checking: each must succeed, and the simulated GPU must find nothing.
set -u
program=$1
report=$(mktemp) || exit 2
trap 'rm -f "$report"' EXIT
failed=0

run()
{
    env "$@" "$program" >/dev/null 2>"$report" && ! grep -q '^mdl-sim:' "$report" && return
    printf '%s: failed:\n' "$*"
    head -n 20 "$report"
    failed=1
}

for seed in 1 2 3 4 5 6 7 8 9 10; do
    run MDL_SIM_SEED="$seed"
done
for schedule in eager fifo lifo; do
    run MDL_SIM_SCHEDULE="$schedule"
done
run MDL_SIM_CHECK=fast
exit "$failed"
