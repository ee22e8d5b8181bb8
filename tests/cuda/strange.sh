#!/bin/sh
# strange.sh - any model on simulated GPUs: losses, norms and metrics are the host's within
# 1e-5, weights are the same to the bit however the model is cut, and the simulator, which
# looks for races, has nothing to say.
#
# usage: strange.sh MDLC MODEL WORK [all] [option of mdlc …]
#     WORK is a directory to build in. The options go to every build.
#
# The ways to build it are
#
#     # build: …    each such line of the model is the options of one way
#     parts, gpus   (1,1) (2,2) (3,3) (4,2) where constants of that name cut the model
#     a place       both schedules, where it is cut for good
#     else          1, 2 and 3 GPUs, split by the compiler
#
# with transfers in turn. Without "all" they are the first and the last of these. A model trains
# as many steps as it says (else 5), but at least three; where it has no data for evaluation it gets
# fewer samples than a batch.
set -u
mdlc=$1 model=$2 work=$3
shift 3
all=
[ "${1:-}" = all ] && all=yes && shift
name=$(basename "$model" .mdl)
MDL_CFLAGS="-Wpedantic -Wshadow -Werror ${MDL_CFLAGS:-}"
export MDL_CFLAGS

fail()
{
    echo "$name: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

# A line is the number of GPUs among which the compiler splits (0: it does not), and options.
every_way()
{
    if grep -q '^# build:' "$model"; then
        sed -n 's/^# build: */0 /p' "$model"
    elif grep -q '^const.*parts = ' "$model"; then
        echo "0 -D parts=1 -D gpus=1"
        echo "0 -D parts=2 -D gpus=2 --set parallel.schedule=gpipe"
        echo "0 -D parts=3 -D gpus=3"
        echo "0 -D parts=4 -D gpus=2"
        # what is recomputed is the same to the bit
        if grep -q 'again = 0' "$model"; then
            echo "0 -D again=1 -D parts=4 -D gpus=2"
        fi
    elif grep -q '@gpu\|on gpu\|^devices' "$model"; then
        echo "0 --set parallel.schedule=gpipe"
        echo "0 --set parallel.schedule=1f1b"
    else
        echo "1"
        echo "2 --set parallel.schedule=gpipe"
        echo "3"
    fi
}

ways()
{
    every_way | if [ -n "$all" ]; then cat; else sed -n '1p; $p'; fi |
        awk '{ print $0, "--set parallel.transfer=" (NR % 2 ? "peer" : "nccl") }'
}

# build TARGET GPUS OPTION …
build()
{
    target=$1 gpus=$2
    shift 2
    {
        cat "$model"
        grep -q '^data eval' "$model" || echo "data eval = synthetic(take = 3);"
        [ "$gpus" = 0 ] || echo "devices gpu[$gpus] = cpu;"
    } > "$work/$name.mdl"
    "$mdlc" build -q --target "$target" "$@" "$work/$name.mdl" -o "$work/$target" 2> "$work/log"
}

# train TRAINER OPTION …: leaves what is counted, one number a line with its name.
train()
{
    trainer=$1
    shift
    timeout 600 "$work/$trainer" -q --steps "$steps" --timeout 500 --log "$work/$trainer.jsonl" \
        "$@" > "$work/out" 2> "$work/log" || return 1
    grep -o '"[a-z_0-9]*": [^,}]*' "$work/$trainer.jsonl" |
        grep -v '"samples_per_s"\|"step"\|"lr"' > "$work/$trainer.numbers"
}

# The numbers of both sides are alike.
compare()
{
    paste -d ' ' "$work/host.numbers" "$work/sim.numbers" | awk -v way="$1" '
        function size(x) { return x < 0 ? -x : x }
        $1 != $3 || NF != 4 { print "[" way "] number " NR ": " $0; bad = 1; next }
        !(size($2 - $4) <= 1e-5 * size($2)) {
            print "[" way "] " $1 " " $4 ", on the host " $2
            bad = 1
        }
        END { exit bad || NR < 4 }' >&2
}

rm -rf "$work"
mkdir -p "$work" || exit 1
ways > "$work/ways"
[ "$(wc -l < "$work/ways")" -ge 2 ] || fail "there is nothing to compare"
steps=$(sed -n 's/.*steps = \([0-9]*\);.*/\1/p' "$model")
steps=${steps:-5}
# what is for one step is not made to learn
[ "$steps" -gt 1 ] || set -- --set 'train.optimizer=sgd(lr=0.001,momentum=0.9)' "$@"
[ "$steps" -ge 3 ] || steps=3

read -r gpus way < "$work/ways"
build host "$gpus" $way "$@" || fail "does not build for the host:" "$work/log"
train host --threads 1 || fail "does not train on the host:" "$work/log"
runs=0
while read -r gpus way; do
    # the words of a way are options of their own
    build sim "$gpus" $way "$@" || fail "[$way] does not build:" "$work/log"
    MDL_SIM_DEVICES=8 MDL_SIM_SEED=$((runs + 1)) MDL_SIM_CHECK=race train sim --export "$work/now.weights" ||
        fail "[$way] does not train:" "$work/log"
    [ ! -s "$work/log" ] || fail "[$way] is not silent:" "$work/log"
    compare "$way" || fail "other numbers than on the host"
    [ -f "$work/first.weights" ] || cp "$work/now.weights" "$work/first.weights"
    cmp -s "$work/first.weights" "$work/now.weights" ||
        fail "[$way] other weights than with the first way"
    runs=$((runs + 1))
done < "$work/ways"
echo "$name: $runs trainings on GPUs, within 1e-5 of the host, equal weights"
rm -rf "$work"
