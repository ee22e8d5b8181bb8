#!/bin/sh
# models.sh - a model of models/ trained on simulated GPUs: its losses are the host's, its
# weights do not depend on the split, the schedule or the way of the messages, and the
# simulator, which looks for races, has nothing to say.
#
# usage: models.sh MDLC MODEL WORK [few|full [bf16|f16]]
#
# Ten steps and an evaluation. Each way is a number of GPUs (or "own", the model's own cut), a
# schedule, a transfer and a seed of the simulator's scheduler; "full" tries 1, 2, 4 and own,
# all schedules, both transfers, and three seeds. In f32 losses agree to 1e-5 relative; in 16
# bits, where the order of a sum decides which way a number is rounded, to half a unit in the last
# place of a bf16 number, 2^-9, or of an f16 number, 2^-12.
set -u
mdlc=$1 model=$2 work=$3 full=${4:-few} precision=${5:-f32}
here=$(cd "$(dirname "$0")" && pwd) || exit 1
name=$(basename "$model" .mdl)

fail()
{
    echo "$name: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

ways()
{
    if [ "$full" = full ]; then
        for gpus in 1 2 4 own; do
            for schedule in 1f1b gpipe zero_bubble interleaved zb_h2 zb_v searched; do
                for transfer in peer nccl; do
                    echo "$gpus $schedule $transfer 1 2 3"
                done
            done
        done
    else
        echo "1 1f1b peer 1"
        echo "2 gpipe nccl 2"
        echo "4 zb_h2 nccl 3"
        echo "2 zb_v peer 1"
    fi
}

# losses LOG: one number a step
losses()
{
    sed -n 's/^.*"loss": \([^,]*\), "lr".*$/\1/p' "$1"
}

MDL_CFLAGS="-Wpedantic -Wshadow -Werror ${MDL_CFLAGS:-}"
export MDL_CFLAGS
rm -rf "$work"
mkdir -p "$work" || exit 1
options="$(sh "$here/small.sh" "$model" | tr '\n' ' ') --set train.precision=$precision"
case $precision in
f32) error=1e-5 ;;
bf16) error=0.00195 ;;
f16) error=0.000244 ;;
esac
sh "$here/cut.sh" "$model" 1 > "$work/host.mdl"
"$mdlc" build -q --target host $options "$work/host.mdl" -o "$work/host" 2> "$work/log" ||
    fail "does not build for the host:" "$work/log"
"$work/host" -q --threads 1 --steps 10 --log "$work/host.jsonl" > "$work/log" 2>&1 ||
    fail "does not train on the host:" "$work/log"
losses "$work/host.jsonl" > "$work/host.losses"
[ "$(wc -l < "$work/host.losses")" -eq 10 ] || fail "no ten steps on the host:" "$work/host.jsonl"

runs=0
ways > "$work/ways"
while read -r gpus schedule transfer seeds; do
    way="$gpus GPUs, $schedule, $transfer"
    sh "$here/cut.sh" "$model" "$gpus" > "$work/gpu.mdl"
    "$mdlc" build -q --target sim $options --set parallel.schedule="$schedule" \
        --set parallel.transfer="$transfer" "$work/gpu.mdl" -o "$work/gpu" 2> "$work/log" ||
        fail "[$way] does not build:" "$work/log"
    for seed in $seeds; do
        # one communication kernel at a time on a device, where the seed is odd
        [ $((seed % 2)) -eq 1 ] && export MDL_SIM_NCCL=pessimistic || unset MDL_SIM_NCCL
        MDL_SIM_SEED=$seed MDL_SIM_CHECK=race timeout 600 "$work/gpu" -q --steps 10 \
            --log "$work/gpu.jsonl" --export "$work/gpu.weights" > "$work/out" 2> "$work/log" ||
            fail "[$way, seed $seed] does not train:" "$work/log"
        [ -s "$work/log" ] && fail "[$way, seed $seed] is not silent:" "$work/log"
        losses "$work/gpu.jsonl" > "$work/gpu.losses"
        paste "$work/host.losses" "$work/gpu.losses" | awk -v way="$way, seed $seed" -v e=$error '
            NF != 2 { print "[" way "] step " NR ": " $0; bad = 1 }
            { d = $1 - $2; m = e * ($1 < 0 ? -$1 : $1) }
            d > m || -d > m { print "[" way "] step " NR ": loss " $2 ", on the host " $1; bad = 1 }
            END { exit bad }' >&2 || fail "other losses than on the host"
        [ -f "$work/first.weights" ] || mv "$work/gpu.weights" "$work/first.weights"
        [ ! -f "$work/gpu.weights" ] || cmp -s "$work/first.weights" "$work/gpu.weights" ||
            fail "[$way, seed $seed] other weights than with the first way"
        runs=$((runs + 1))
    done
done < "$work/ways"
echo "$name: $runs trainings, losses within $error of the host's, equal weights"
