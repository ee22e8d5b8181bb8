#!/bin/sh
# compile.sh - how long mdlc takes, proofs included, as models grow: seconds of `mdlc emit`.
#
#     tests/bench/compile.sh [BUILD]
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
mdlc=${1:-$root/build}/bin/mdlc
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
cd "$work"
cat >big.mdl <<'MDL'
const layers = 12, gpus = 4;

model big {
    input x : f32[256];
    target y : i32;
    h = x;
    for i in 0 .. layers {
        h = relu(linear(h, 256) as hidden[i])  @gpu[i * gpus / layers];
    }
    loss cross_entropy(linear(h, 10) as logits, y);
}

train {
    batch = 512;
    optimizer = adamw(lr = 1e-3);
}
MDL
printf '| layers | devices | micro-batches | seconds | lines of source |\n|--:|--:|--:|--:|--:|\n'
for row in '12 4 8' '96 4 8' '96 8 64' '1000 64 512'; do
    set -- $row
    begin=$(date +%s%N)
    "$mdlc" emit -q big.mdl -D layers="$1" -D gpus="$2" --set parallel.microbatch=$((512 / $3)) \
        -o "src_$1_$2_$3"
    end=$(date +%s%N)
    lines=$(cat "src_$1_$2_$3"/*.c | wc -l)
    awk -v l="$1" -v g="$2" -v m="$3" -v t=$((end - begin)) -v n="$lines" \
        'BEGIN { printf "| %d | %d | %d | %.3f | %d |\n", l, g, m, t / 1e9, n }'
done
