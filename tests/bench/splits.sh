#!/bin/sh
# splits.sh - the splits that the models of models/ name for four devices against the compiler's own.
#
#     tests/bench/splits.sh [BUILD]      the table; BUILD: the build directory (default: build)
#
# Step times are the plans' (1F1B, equal micro-batches): estimates, so the table is the same
# everywhere. Exit code 1 where the compiler's own split is slower.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${1:-$root/build}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

step() {
    "$build/bin/mdlc" plan -q -I "$root/models" "$1" -D gpus=4 --json - |
        sed -n 's/.*"step_seconds": \([0-9.e+-]*\).*/\1/p'
}

echo "| model | devices | as annotated | own split | ratio |"
echo "|---|---|---:|---:|---:|"
for model in gpt2 llama nanogpt vit deep_mlp; do
    for device in a100_80g rtx4090_24g; do
        for cut in own 4; do
            sh "$root/tests/cuda/cut.sh" "$root/models/$model.mdl" $cut |
                grep -v '^devices' >"$work/$cut.mdl"
            echo "devices gpu[4] = $device;" >>"$work/$cut.mdl"
        done
        echo "$model $device $(step "$work/own.mdl") $(step "$work/4.mdl")"
    done
done | awk '
    { printf "| %s | 4 x %s | %.4g ms | %.4g ms | %.2f |\n", $1, $2, 1e3 * $3, 1e3 * $4, $4 / $3
      worse = worse || $4 > $3 * 1.000000001 }
    END { exit worse }'
