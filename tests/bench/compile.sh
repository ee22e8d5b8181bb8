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

# Plans that no machine here could run: GPT-3, and one of 4,096 layers; proofs included.
gpt() {
    cat <<MDL
import "blocks/gpt2_block.mdl";
const vocab = 50257, context = $6, width = $4, layers = $1, heads = $5;
model gpt {
    input ids : i32[context];
    target next : i32[context];
    wte = embedding(ids, vocab, width);
    weight wpe : f32[context, width] = normal(0.02);
    x = wte + wpe;
    for i in 0 .. layers {
        x = gpt2_block(x, width, heads, layers, 0) as h[i];
    }
    logits = linear(layernorm(x) as ln_f, vocab, bias = false, weight = wte.weight);
    loss cross_entropy(logits, next);
}
train { batch = $3; precision = bf16; optimizer = adamw(lr = 1e-4); }
parallel { microbatch = 1; recompute = full; }
devices gpu[$2] = h100_80g;
MDL
}
printf '\n| GPT: layers, width | devices | micro-batches | command | seconds | MiB |\n|---|--:|--:|---|--:|--:|\n'
for row in '96 96 1536 12288 96 2048 plan' '96 96 1536 12288 96 2048 plan --search' \
    '96 96 1536 12288 96 2048 plan --target cuda' '4096 1024 4096 2048 16 1024 plan' \
    '4096 1024 4096 2048 16 1024 plan --target cuda'; do
    set -- $row
    gpt "$1" "$2" "$3" "$4" "$5" "$6" >gpt.mdl
    what="$1, $4 | $2 | $3"
    shift 6
    env time -o used -f '%e %M' "$mdlc" "$@" -q -I "$root/models" gpt.mdl
    tail -1 used | awk -v what="$what" -v command="$*" \
        '{ printf "| %s | %s | %.2f | %d |\n", what, command, $1, $2 / 1024 }'
done
