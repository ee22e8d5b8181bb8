#!/bin/sh
# orders.sh - a model of models/ trained under every schedule: the weights are those of one device.
#
# usage: orders.sh MDLC MODEL WORK
set -u
mdlc=$1 model=$2 work=$3
cuda=$(cd "$(dirname "$0")/../cuda" && pwd) || exit 1
name=$(basename "$model" .mdl)
rm -rf "$work"
mkdir -p "$work" || exit 1
options=$(sh "$cuda/small.sh" "$model" | tr '\n' ' ')

# train GPUS SCHEDULE: its weights in $work/weights
train()
{
    sh "$cuda/cut.sh" "$model" "$1" > "$work/cut.mdl"
    "$mdlc" build -q --target host $options --set parallel.schedule="$2" "$work/cut.mdl" \
        -o "$work/trainer" 2> "$work/log" &&
        "$work/trainer" -q --threads 1 --steps 4 --export "$work/weights" > "$work/log" 2>&1 &&
        return
    echo "$name on $1 devices, $2:" >&2
    cat "$work/log" >&2
    exit 1
}

train 1 1f1b
mv "$work/weights" "$work/first"
for gpus in 2 3; do
    for schedule in 1f1b gpipe interleaved zero_bubble zb_h2 zb_v searched; do
        train $gpus $schedule
        cmp "$work/first" "$work/weights" || exit 1
    done
done
echo "$name: 15 trainings, equal weights"
