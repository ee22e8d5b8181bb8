#!/bin/sh
# rounded.sh - inputs of bf16 and f16 are the f32 inputs that hold the rounded numbers, to the bit.
#
# usage: rounded.sh MDLC MODEL WORK
#     All inputs of MODEL are bf16, 21 numbers a sample, and const gpus cuts it; a message between
#     two devices carries 12 of them. WORK is a directory to build in.
#
# Numbers are written as decimals, and rounded to nearest even here, by awk, for the f32 model:
# its weights on one device have to be those of the 16-bit inputs on one and on two, in every
# precision. The same decimals in f32 must give others.
set -u
mdlc=$1 model=$2 work=$3
MDL_CFLAGS="-O1 -Wall -Wextra -Wpedantic -Werror ${MDL_CFLAGS:-}"
export MDL_CFLAGS

fail()
{
    echo "rounded: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

# train NAME CSV MDL OPTION...: NAME.weights is what it learns
train()
{
    name=$1 data=$2 mdl=$3
    shift 3
    "$mdlc" build -q --target host "$@" "$mdl" -o trainer > now.log 2>&1 ||
        fail "$name does not build:" now.log
    ./trainer --threads 1 --timeout 60 --data "$data" --export "$name.weights" > now.log 2>&1 ||
        fail "$name does not train:" now.log
    [ "$(grep -c 'bytes, as planned$' now.log)" -ge 1 ] || fail "$name: not as planned:" now.log
}

# The numbers of a file rounded to a fraction of BITS bits, multiples of 2^LEAST at least.
rounded()
{
    awk -F, -v bits="$1" -v least="$2" '
        function nearest(x,    size, unit, whole, rest) {
            size = x < 0 ? -x : x
            for (unit = 2 ^ least; size >= unit * 2 ^ (bits + 1);)
                unit *= 2
            whole = int(size / unit)
            rest = size / unit - whole
            whole += rest > 0.5 || (rest == 0.5 && whole % 2)
            return (x < 0 ? -1 : 1) * whole * unit
        }
        {
            for (i = 1; i <= NF; i++)
                printf "%s%.17g", (i > 1 ? "," : ""), nearest($i)
            print ""
        }'
}

case $model in
/*) ;;
*) model=$PWD/$model ;;
esac
rm -rf "$work"
mkdir -p "$work" || exit 1
cd "$work" || exit 1
# ordinary ones, ties of both types, and some that are subnormal in f16
awk 'BEGIN {
    seed = 1
    for (row = 0; row < 40; row++)
        for (i = 1; i <= 21; i++) {
            seed = (seed * 16807) % 2147483647
            x = seed / 1073741824 - 1
            if (i % 7 == 1) x = (256 + 2 * (seed % 128) + 1) / 256
            if (i % 7 == 2) x = -(2048 + 2 * (seed % 1024) + 1) / 4096
            if (i % 7 == 3) x *= 2 ^ -18
            printf "%.17g%s", x, (i < 21 ? "," : "\n")
        }
}' > raw.csv
for type in bf16 f16; do
    case $type in
    bf16) rounded 7 -133 < raw.csv > rounded.csv ;;
    f16) rounded 10 -24 < raw.csv > rounded.csv ;;
    esac
    sed "s/ : bf16/ : $type/" "$model" > half.mdl
    sed "s/ : bf16/ : f32/" "$model" > wide.mdl
    for precision in f32 bf16 f16 f64; do
        set -- --set train.precision=$precision
        train wide rounded.csv wide.mdl "$@"
        for way in "raw.csv -D gpus=1" "rounded.csv -D gpus=1" "raw.csv -D gpus=2"; do
            train half "${way%% *}" half.mdl ${way#* } "$@"
            cmp -s wide.weights half.weights ||
                fail "$type in $precision [$way]: other weights than of rounded f32"
        done
        case $precision in
        f32 | f64)
            train other raw.csv wide.mdl "$@"
            cmp -s wide.weights other.weights && fail "$type: rounding changes nothing"
            ;;
        esac
    done
    # products of these 16 bits read the input as it is; others an f32 copy
    for precision in f32 $type; do
        "$mdlc" check half.mdl --set train.precision=$precision --dump=differentiate > now.graph
        copies=$(grep -c '12\] = cast v' now.graph)
        [ "$precision$copies" = "f322" ] || [ "$precision$copies" = "${type}0" ] ||
            fail "$type in $precision: $copies copies of the input:" now.graph
    done
    "$mdlc" check half.mdl -D gpus=2 --dump=program | grep -q '^link [0-9]*: t 0 -> 1, 48 bytes$' ||
        fail "$type: a message of 2 samples of 12 numbers is not 48 bytes"
done

# what f16 has no number for
sed '3s/^[^,]*,/65520,/' raw.csv > large.csv
train half raw.csv half.mdl
./trainer -q --data large.csv > now.log 2>&1 && fail "65520 is taken for a number of f16"
grep -qF "large.csv:3: column 1: '65520' is out of the range of f16" now.log ||
    fail "65520 in f16:" now.log
echo "rounded: bf16 and f16 in every precision, the bits of rounded f32"
rm -rf "$work"
