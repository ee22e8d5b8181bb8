#!/bin/sh
# planned.sh - what a profile promises against what trainers take: two stages, every schedule.
#
#     tests/bench/planned.sh [BUILD]      BUILD: the build directory (default: build)
#
# ROUNDS=3  SECONDS_EACH=4  MODELS="gpt cnn"  SCHEDULES="1f1b …"
#
# Each model is profiled once, under 1f1b. For each schedule the compiler splits and plans it with
# that profile; the trainer of that plan then runs. A round profiles, and runs all schedules; the
# table has the medians of the rounds. On an otherwise idle machine with at least two cores.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${1:-$root/build}" && pwd)
mdlc=$build/bin/mdlc
rounds=${ROUNDS:-3}
each=${SECONDS_EACH:-4}
models=${MODELS:-gpt cnn}
schedules=${SCHEDULES:-1f1b gpipe interleaved zero_bubble zb_h2 zb_v searched}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
cd "$work"

# On two devices, split by the compiler.
{
    sed 's/"..\/..\/models\//"/' "$root/tests/bench/gpt_bench.mdl"
    printf 'parallel { microbatch = 2; }\ndevices gpu[2] = cpu;\n'
} >gpt.mdl
{
    sed '/^    on gpu/d; /^    }$/d' "$root/models/skip_cnn.mdl"
    printf 'devices gpu[2] = cpu;\n'
} >cnn.mdl

median() { sort -g "$1" | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }'; }

# milliseconds of a step, the first tenth left out
measured() {
    "./$1" -q --steps "$2" --log log.jsonl
    awk -v n="$2" -F'samples_per_s": ' 'NR > n / 10 { split($2, a, "}"); print a[1] }' log.jsonl |
        sort -g | awk -v b="$3" '{ x[NR] = $1 } END { print 1000 * b / x[int((NR + 1) / 2)] }'
}

for round in $(seq "$rounds"); do
    for model in $models; do
        batch=$(sed -n 's/^    batch = \([0-9]*\);/\1/p' $model.mdl)
        printf '\rround %s of %s: %-12s' "$round" "$rounds" "$model" >&2
        "$mdlc" profile -q $model.mdl -I "$root/models" -o $model.json
        for schedule in $schedules; do
            set -- $model.mdl -I "$root/models" --profile $model.json \
                --set parallel.schedule=$schedule
            "$mdlc" plan "$@" --json - |
                sed -n 's/^  "step_seconds": \([0-9.e+-]*\),$/\1/p' |
                awk '{ print 1000 * $1 }' >p
            cat p >>"p_${model}_$schedule"
            "$mdlc" build -q "$@" -o trainer
            steps=$(awk -v s="$each" '{ n = int(1000 * s / $1); print n < 10 ? 10 : n }' p)
            measured trainer "$steps" "$batch" >>"m_${model}_$schedule"
        done
    done
done
printf '\r%40s\r' '' >&2

printf '| %-5s | %-11s | %10s | %11s | %6s |\n' model schedule 'planned ms' 'measured ms' off
printf '|-------|-------------|-----------:|------------:|-------:|\n'
for model in $models; do
    for schedule in $schedules; do
        awk -v model="$model" -v schedule="$schedule" -v p="$(median "p_${model}_$schedule")" \
            -v m="$(median "m_${model}_$schedule")" 'BEGIN {
                printf "| %-5s | %-11s | %10.3f | %11.3f | %+4.1f %% |\n", model, schedule, p, m,
                       100 * (p / m - 1) }'
    done
done
