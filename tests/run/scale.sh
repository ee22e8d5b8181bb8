#!/bin/sh
# scale.sh - the dynamic loss scale of f16: steps that overflow are skipped on every device, the
# scale is halved, and a run that is stopped between two such steps goes on to the same bits.
#
# usage: scale.sh MDLC MODEL WORK
#     MODEL overflows at the first loss scales and not at the last of its 12 steps. WORK is a
#     directory to build in.
set -u
mdlc=$1 model=$2 work=$3

fail()
{
    echo "scale: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

# train NAME OPTION...: NAME.losses is what it logs, NAME.weights what it learns
train()
{
    name=$1
    shift
    "$work/trainer" -q --timeout 60 --log "$work/now.jsonl" --export "$work/$name.weights" "$@" \
        > "$work/log" 2>&1 || fail "$name does not train:" "$work/log"
    sed 's/"samples_per_s": [^,]*, //' "$work/now.jsonl" > "$work/$name.losses"
}

same()
{
    for kind in weights losses; do
        cmp -s "$work/first.$kind" "$work/$1.$kind" || fail "$1: other $kind than one device's"
    done
}

rm -rf "$work"
mkdir -p "$work" || exit 1
for gpus in 1 2; do
    "$mdlc" build -q --target host -D gpus=$gpus "$model" -o "$work/trainer" ||
        fail "does not build for $gpus devices"
    if [ $gpus -eq 1 ]; then
        train first
    else
        train two
        same two
    fi
done

awk -F'"loss_scale": |}' '
    NR == 1 && $2 != 65536 { print "the first scale is " $2; bad = 1 }
    NR > 1 && $2 != (skipped ? before / 2 : before) { print "step " NR ": " before " to " $2; bad = 1 }
    { before = $2; skipped = /"grad_norm": null/; skips += skipped }
    END {
        if (skips < 3 || skipped) { print skips " steps are skipped, or the last one is"; bad = 1 }
        exit bad || NR != 12
    }' "$work/first.losses" > "$work/log" || fail "the scale:" "$work/log"

# Stopped in the middle of the skipped steps, and after them; the log is gone on with.
for stop in 3 10; do
    rm -rf "$work/saved"
    train before --steps $stop --save "$work/saved"
    train after --resume "$work/saved" --steps 12
    same after
done
echo "scale: skipped steps, the same bits on two devices and after a stop"
rm -rf "$work"
