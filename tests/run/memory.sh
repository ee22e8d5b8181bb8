#!/bin/sh
# memory.sh - a GPT on four devices: what each of them holds is what the plan said, to the byte;
# under 1F1B stage s keeps 4 - s micro-batches; recompute = full keeps less.
#
# usage: memory.sh MDLC MODEL WORK
#     MODEL has the constant gpus. WORK is a directory to build in.
set -u
mdlc=$1 model=$2 work=$3

fail()
{
    echo "memory: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

# stages FILE KEY: the key's number of each stage in the plan
stages()
{
    sed -n 's/^ \{6,8\}"'"$2"'": \([0-9]*\),*$/\1/p' "$1"
}

rm -rf "$work"
mkdir -p "$work" || exit 1
for recompute in none full; do
    set -- -D gpus=4 --set parallel.recompute=$recompute --set parallel.schedule=1f1b
    "$mdlc" plan -q --target host "$@" "$model" --json "$work/$recompute.json" ||
        fail "$recompute: no plan"
    "$mdlc" build -q --target host "$@" "$model" -o "$work/trainer" || fail "$recompute: no trainer"
    "$work/trainer" --steps 1 --threads 1 > "$work/log" 2>&1 ||
        fail "$recompute: does not train:" "$work/log"
    sed -n 's/^gpu\[.* \([0-9,]*\) bytes, as planned$/\1/p' "$work/log" | tr -d , > "$work/held"
    stages "$work/$recompute.json" total > "$work/$recompute.planned"
    [ "$(wc -l < "$work/$recompute.planned")" -eq 4 ] || fail "$recompute: no four stages"
    cmp -s "$work/held" "$work/$recompute.planned" ||
        fail "$recompute: other memory than planned:" "$work/log"
    [ "$(stages "$work/$recompute.json" in_flight | tr '\n' ' ')" = "4 3 2 1 " ] ||
        fail "$recompute: stage s does not keep 4 - s micro-batches"
done
paste "$work/none.planned" "$work/full.planned" | awk '
    $2 >= $1 { print "stage " NR - 1 " holds " $2 " bytes with recompute, " $1 " without"; bad = 1 }
    { print "stage " NR - 1 ": " $1 " bytes, " $2 " with recompute = full" }
    END { exit bad }' > "$work/log" || fail "recompute = full does not need less:" "$work/log"
cat "$work/log"
