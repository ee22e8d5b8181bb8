#!/bin/sh
# reference.sh - the first ten steps of a model against the numbers that PyTorch gave.
#
# usage: reference.sh prepare|check|check_bf16|names|published MODEL.mdl WORK BIN
#     BIN holds mdlc and reference_*; WORK is a directory to build in.
#
# prepare: WORK/trainer, its data in WORK and its first weights, WORK/init.safetensors, which
#     is what make_reference.py starts from. The model is as it stands, but that
#     its samples come in the order of the files, dropout is off, and nothing is evaluated;
#     transformers are small, and go through their schedule in ten steps.
# check: prepares, trains and compares with NAME.json; then changes one loss by twice the
#     limit and sees that the comparison fails. Exit code 77: the data is not installed.
# check_bf16: likewise in bf16, from the same first weights; the limit is twice what bf16
#     changes in PyTorch.
# names: the names and shapes of the exported weights are those of NAME.names.
# published: Hugging Face's model takes the exported weights. Exit code 77: it is not installed.
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
    gpt2 | llama) echo "ids i4 211 320 32" && echo "next i4 211+1 320 32" ;;
    nanogpt) echo "text i4 256 320 64" && echo "next i4 256+1 320 64" ;;
    vit) echo "image i4 256 1280 1 28 28" && echo "label i4 10 1280" ;;
    *) fail "this script does not know the data of the model" ;;
    esac
}

# The options of mdlc that make the model the one of make_reference.py. First weights are larger
# than one trains from, so that what is attended to matters: by the published values the
# losses are the same to 1e-5 without any rotation of queries and keys.
sizes()
{
    case $name in
    fashion) echo "-D drop=0" ;;
    gpt2) echo "-D vocab=211 -D context=32 -D width=64 -D layers=3 -D heads=4 -D gpt2_std=0.2" ;;
    llama)
        echo "-D vocab=211 -D context=32 -D width=64 -D inner=160 -D layers=3 -D heads=4"
        echo "-D kv_heads=2 -D llama_std=0.2"
        ;;
    nanogpt) echo "-D context=64 -D width=64 -D gpt2_std=0.2" ;;
    vit) echo "-D width=32 -D layers=3 -D drop=0" ;;
    esac
}

# build TRAINER [option of mdlc …]
build()
{
    trainer=$1
    shift
    case $name in
    gpt2 | llama | nanogpt | vit)
        set -- --set 'train.schedule=cosine(warmup = 4, min = 1e-4)' "$@"
        ;;
    esac
    # the words of sizes() are arguments of their own
    "$bin/mdlc" build -q --target host -I "$(dirname "$model")" $(sizes) "$@" \
        "$work/$name.mdl" -o "$trainer" || fail "does not build"
}

prepare()
{
    rm -rf "$work"
    mkdir -p "$work" || exit 1
    # every item of data train ends with ");", on its line or a later one
    sed -e '/^data eval/,/;/d' -e '/^data train/,/;/s/);/, shuffle = false);/' -e 's/(, /(/' \
        "$model" > "$work/$name.mdl"
    grep -q 'shuffle = false' "$work/$name.mdl" || fail "has no data item to put in file order"
    build "$work/trainer"
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

# check [option of the trainer …]
check()
{
    train --steps 10 --log "$work/log.jsonl" "$@" || fail "does not train"
    "$bin/reference_compare" "$work/log.jsonl" "$here/$name.json" $precision ||
        fail "differs from PyTorch"

    awk -F'[:,]' -v by="$off" '
        { sub(/"loss": [^,]*/, sprintf("\"loss\": %.9g", $4 * (NR == 7 ? by : 1))) }
        { print }' "$work/log.jsonl" > "$work/changed.jsonl"
    "$bin/reference_compare" "$work/changed.jsonl" "$here/$name.json" $precision \
        2> "$work/message"
    [ $? -eq 1 ] && grep -q '^step 7: loss' "$work/message" ||
        fail "a loss that is off is not seen"
}

names()
{
    sizes | sed 's/-D //g' | tr ' ' '\n' > "$work/sizes"
    awk -F'[= ]' '
        function size(text, part, n, product, i) {
            n = split(text, part, "*")
            for (product = i = 1; i <= n; i++)
                product *= part[i] in sizes ? sizes[part[i]] : part[i]
            return product
        }
        FNR == NR { sizes[$1] = $2; next }
        /^#/ { next }
        {
            turns = $1 ~ /\.N\./ ? sizes["layers"] : 1
            for (k = 0; k < turns; k++) {
                line = $1
                sub(/\.N\./, "." k ".", line)
                for (i = 2; i <= NF; i++)
                    line = line " " size($i)
                print line
            }
        }' "$work/sizes" "$here/$name.names" | sort > "$work/wanted"
    "$bin/reference_tensors" "$work/init.safetensors" | sort > "$work/exported"
    [ -s "$work/exported" ] && diff "$work/wanted" "$work/exported" ||
        fail "exports other tensors than the published model has"
}

if [ "$name" = fashion ] && [ ! -r "$fashion/train-images-idx3-ubyte.gz" ]; then
    echo "$name: needs the package dataset-fashion-mnist"
    exit 77
fi
precision= off=1.0002
prepare
case $command in
prepare) exit 0 ;;
check) check ;;
check_bf16)
    precision=bf16 off=1.05
    build "$work/trainer" --set train.precision=bf16
    check --load "$work/init.safetensors"
    ;;
names) names ;;
published)
    ${PYTHON:-/usr/bin/python3} "$here/published.py" "$name" "$work" "$here/$name.json" \
        $(sizes | sed 's/-D //g; s/[a-z0-9]*_std=[0-9.]*//') || exit $?
    ;;
*) fail "there is no $command" ;;
esac
rm -rf "$work"
