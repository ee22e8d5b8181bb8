#!/bin/sh
# reference.sh - the first ten steps of a model against the numbers that PyTorch gave.
#
# usage: reference.sh prepare|check MODEL.mdl WORK BIN
#     BIN holds mdlc, reference_data and reference_compare; WORK is a directory to build in.
#
# prepare: WORK/trainer, its data in WORK and its first weights, WORK/init.safetensors, which
#     is what make_reference.py starts from. The model is as it stands, but that
#     its samples come in the order of the files, dropout is off, and nothing is evaluated.
# check: prepares, trains and compares with NAME.json; then changes one loss by twice the
#     limit and sees that the comparison fails. Exit code 77: the data is not installed.
set -u
command=$1 model=$2 work=$3 bin=$4
here=$(dirname "$0")
name=$(basename "$model" .mdl)
fashion=/usr/share/datasets/fashion-mnist

fail()
{
    echo "$name: $*" >&2
    exit 1
}

# Ten batches of every input: name, type, limit, dimensions.
inputs()
{
    case $name in
    two_gpu) echo "x f4 1 640 1000" && echo "y i4 100 640" ;;
    deep_mlp) echo "x f4 1 2560 784" && echo "y i4 10 2560" ;;
    autoencoder) echo "x f4 2 640 784" ;;
    skip_cnn) echo "image f4 1 320 3 16 16" && echo "label i4 10 320" ;;
    operations)
        echo "image f4 1 160 4 9 7" && echo "words i4 11 160 6"
        echo "label i4 10 160" && echo "goal f4 2 160 6 8"
        ;;
    fashion) ;; # its own
    *) fail "this script does not know the data of the model" ;;
    esac
}

prepare()
{
    rm -rf "$work"
    mkdir -p "$work" || exit 1
    sed -e '/^data eval/,/;/d' -e 's/^\(data train = [a-z]*\)(/\1(shuffle = false, /' -e 's/false, )/false)/' \
        "$model" > "$work/$name.mdl"
    grep -q 'shuffle = false' "$work/$name.mdl" || fail "has no data item to put in file order"
    set -- --target host
    [ "$name" != fashion ] || set -- "$@" -D drop=0
    "$bin/mdlc" build -q "$@" "$work/$name.mdl" -o "$work/trainer" || fail "does not build"
    inputs > "$work/inputs"
    while read -r input rest; do
        # the words of `rest` are arguments of their own
        "$bin/reference_data" "$work/$input.npy" $rest || fail "no data for $input"
    done < "$work/inputs"
    train --steps 0 --export "$work/init.safetensors" || fail "cannot write its first weights"
}

train()
{
    while read -r input rest; do
        set -- --data "$input=$work/$input.npy" "$@"
    done < "$work/inputs"
    "$work/trainer" -q "$@"
}

check()
{
    train --steps 10 --log "$work/log.jsonl" || fail "does not train"
    "$bin/reference_compare" "$work/log.jsonl" "$here/$name.json" || fail "differs from PyTorch"

    awk -F'[:,]' '{ sub(/"loss": [^,]*/, sprintf("\"loss\": %.9g", $4 * (NR == 7 ? 1.0002 : 1))) }
        { print }' "$work/log.jsonl" > "$work/changed.jsonl"
    "$bin/reference_compare" "$work/changed.jsonl" "$here/$name.json" 2> "$work/message"
    [ $? -eq 1 ] && grep -q '^step 7: loss' "$work/message" ||
        fail "a loss that is off is not seen"
}

if [ "$name" = fashion ] && [ ! -r "$fashion/train-images-idx3-ubyte.gz" ]; then
    echo "$name: needs the package dataset-fashion-mnist"
    exit 77
fi
prepare
[ "$command" = prepare ] && exit 0
check
rm -rf "$work"
