#!/bin/sh
# offload.sh - offload = activations: the device needs less, the host what the plan says, and the
# weights are those of keeping everything on the device, to the bit.
#
# usage: offload.sh MDLC TARGET WORK MODEL…
#     TARGET: host or sim, where the simulator looks for races. Sixteen micro-batches.
set -u
mdlc=$1 target=$2 work=$3
shift 3
here=$(cd "$(dirname "$0")/../cuda" && pwd) || exit 1
. "$here/../run/small_steps.sh"

# The sum of a number over the stages of the plan.
sum_of()
{
    sed -n 's/^ \{6,8\}"'"$1"'": \([0-9]*\),*$/\1/p' "$work/plan.json" |
        awk '{ sum += $1 } END { printf "%.0f", sum }'
}

for model in "$@"; do
    name=$(basename "$model" .mdl)
    options="$(sh "$here/small.sh" "$model" | tr '\n' ' ') --set train.batch=16"
    options="$options --set parallel.microbatch=1"
    rm -rf "$work"
    mkdir -p "$work" || exit 1
    [ "$target" = host ] && transfers=peer || transfers="peer nccl"
    for way in 2.gpipe 4.zb_h2 4.interleaved; do
        sh "$here/cut.sh" "$model" "${way%.*}" > "$work/model.mdl"
        if [ ! -f "$work/first" ]; then
            train
            mv "$work/weights" "$work/first"
        fi
        for transfer in $transfers; do
            set -- --set parallel.schedule="${way#*.}" --set parallel.transfer=$transfer
            plan "$@"
            before=$(sum_of total)
            set -- "$@" --set parallel.offload=activations --set "devices.host_link=10 GB/s"
            plan "$@"
            away=$(sum_of host)
            [ "$away" -gt 0 ] || fail "nothing is offloaded with $*"
            [ "$(sum_of total)" -lt "$before" ] || fail "needs no less with $*"
            train "$@"
            cmp -s "$work/first" "$work/weights" || fail "other weights with $*"
            echo "$name, $way, $transfer: $(sum_of total) bytes of $before, $away on the host"
        done
    done
    # four stages hold four micro-batches at most
    "$mdlc" plan --target "$target" $options --set parallel.schedule=1f1b \
        --set parallel.offload=activations --set "devices.host_link=10 GB/s" "$work/model.mdl" \
        > "$work/log" 2>&1 || fail "no plan under 1f1b:" "$work/log"
    grep -q "^offloaded: nothing" "$work/log" || fail "does not say that nothing is:" "$work/log"
done
