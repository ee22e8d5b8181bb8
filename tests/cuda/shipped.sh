#!/bin/sh
# shipped.sh - a trainer for real GPUs, as a user would ship it: it holds machine code for the
# architectures asked for, and started where there is no GPU it says so in one line.
#
# usage: shipped.sh MDLC FATBIN_LIST MODELS WORK
set -u
mdlc=$1 list=$2 models=$3 work=$4

fail()
{
    echo "shipped: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

rm -rf "$work"
mkdir -p "$work" || exit 1
for transfer in peer nccl; do
    "$mdlc" build -q --target cuda --gpu-arch sm_80,sm_90 --set parallel.transfer=$transfer \
        "$models/two_gpu.mdl" -o "$work/trainer" > "$work/log" 2>&1 ||
        fail "two_gpu does not build for GPUs:" "$work/log"
    "$list" "$work/trainer" > "$work/images" || fail "cannot read the trainer's images"
    for arch in "sass sm_80" "sass sm_90" "ptx compute_90"; do
        grep -q "^$arch " "$work/images" || fail "no $arch in the trainer:" "$work/images"
    done
    grep -q "sm_100" "$work/images" && fail "more than was asked for:" "$work/images"
    # every kernel's file is there for both
    [ "$(grep -c '^sass sm_80 ' "$work/images")" -eq "$(grep -c '^sass sm_90 ' "$work/images")" ] ||
        fail "not the same images for both architectures:" "$work/images"

    if [ -e /proc/driver/nvidia/version ]; then
        echo "shipped: there is a GPU here; what is said without one is not tried"
        continue
    fi
    "$work/trainer" --steps 1 > "$work/out" 2> "$work/log"
    code=$?
    [ $code -eq 1 ] || fail "exit code $code without a GPU:" "$work/log"
    [ "$(wc -l < "$work/log")" -eq 1 ] || fail "not one line without a GPU:" "$work/log"
    for words in "^error: no NVIDIA GPU" "target host" "target sim"; do
        grep -q -e "$words" "$work/log" || fail "the line does not say '$words':" "$work/log"
    done
    [ -s "$work/out" ] && fail "something was done before:" "$work/out"
done
echo "shipped: sm_80 and sm_90 are in; one line where there is no GPU"
