#!/bin/sh
# strange.sh - one model cut in several ways: what it has learnt is the same to the bit.
#
# usage: strange.sh MDLC MODEL WORK [grid [option of mdlc …]]
#     WORK is a directory to build in.
#
# Every way is a build with options of its own, trained with one thread for each device or
# with three: the exported weights, the losses and the metrics must be those of the first.
# The emitted source has to compile without a warning. The ways are
#
#     grid           (parts, gpus) in (1,1) (2,2) (4,4) (4,2), each schedule, 1 and 3 threads
#     # build: …     each such line of the model is the options of one way
#     else           (parts, gpus) in (1,1) (2,2) (3,3) (4,2), schedules and threads in turn
#
# A model with the line "# gradients" has them compared with differences, in f64, on the
# first way and on the last.
set -u
mdlc=$1 model=$2 work=$3 grid=${4:-}
shift $(($# < 4 ? $# : 4))
options=$* # of every way
name=$(basename "$model" .mdl)
MDL_CFLAGS="-O1 -Wall -Wextra -Wpedantic -Werror ${MDL_CFLAGS:-}"
export MDL_CFLAGS

fail()
{
    echo "$name: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

ways()
{
    if [ -n "$grid" ]; then
        for cut in 1,1 2,2 4,4 4,2; do
            for schedule in gpipe 1f1b zero_bubble; do
                echo "-D parts=${cut%,*} -D gpus=${cut#*,} --set parallel.schedule=$schedule"
            done
        done
        # what is recomputed is the same to the bit
        if grep -q 'again = 0' "$model"; then
            echo "-D again=1"
            echo "-D again=1 -D parts=4 -D gpus=2"
        fi
        if grep -q '^block' "$model"; then
            echo "--set parallel.recompute=full"
            echo "--set parallel.recompute=full -D parts=4 -D gpus=2"
        fi
    elif grep -q '^# build:' "$model"; then
        sed -n 's/^# build: *//p' "$model"
    else
        echo "-D parts=1 -D gpus=1"
        echo "-D parts=2 -D gpus=2 --set parallel.schedule=gpipe"
        echo "-D parts=3 -D gpus=3 --set parallel.schedule=zero_bubble"
        echo "-D parts=4 -D gpus=2"
    fi
}

# Trains WORK/trainer and compares with what the first training left.
train()
{
    "$work/trainer" --threads "$1" --timeout 60 --export "$work/now.weights" \
        --log "$work/now.jsonl" > "$work/now.log" 2>&1 || fail "[$2] does not train:" "$work/now.log"
    sed 's/, "samples_per_s".*//' "$work/now.jsonl" > "$work/now.losses"
    grep '^evaluation' "$work/now.log" > "$work/now.metrics"
    [ -s "$work/now.losses" ] || fail "[$2] no step was logged"
    runs=$((runs + 1))
    for kind in weights losses metrics; do
        [ -f "$work/first.$kind" ] || cp "$work/now.$kind" "$work/first.$kind"
        cmp -s "$work/first.$kind" "$work/now.$kind" ||
            fail "[$2, $1 threads] other $kind than [$first, 1 thread]"
    done
}

gradients()
{
    "$mdlc" build -q --target host --set train.precision=f64 $1 "$model" -o "$work/checker" \
        > "$work/now.log" 2>&1 || fail "[$1] does not build in f64:" "$work/now.log"
    "$work/checker" --check-gradients --threads 1 > "$work/now.log" 2>&1 ||
        fail "[$1] the gradients do not agree with differences:" "$work/now.log"
    grep -q '^ok ' "$work/now.log" || fail "[$1] no weight was checked:" "$work/now.log"
}

rm -rf "$work"
mkdir -p "$work" || exit 1
ways > "$work/ways"
[ "$(wc -l < "$work/ways")" -ge 2 ] || fail "there is nothing to compare"
runs=0 threads=1 first=$(head -n 1 "$work/ways") last=$(tail -n 1 "$work/ways")
while read -r way; do
    # the words of a way are options of their own
    "$mdlc" build -q --target host $options $way "$model" -o "$work/trainer" > "$work/now.log" 2>&1 ||
        fail "[$way] does not build:" "$work/now.log"
    if [ -n "$grid" ]; then
        train 1 "$way"
        train 3 "$way"
    else
        train $threads "$way"
        threads=$((4 - threads))
    fi
done < "$work/ways"
if grep -q '^# gradients' "$model"; then
    gradients "$first"
    gradients "$last"
fi
echo "$name: $runs trainings, the same bits"
rm -rf "$work"
