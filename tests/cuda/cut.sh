#!/bin/sh
# cut.sh - a model of models/ as it is used in tests of the CUDA target: small, on synthetic
# samples, with an evaluation, cut for another number of devices.
#
# usage: cut.sh MODEL GPUS > small.mdl        GPUS: a number, or "own" for the model's own cut
#
# Places are taken away where the model is not to keep them; the compiler then splits it over
# `devices gpu[GPUS]`.
set -u
model=$1 gpus=$2

keep_places()
{
    cat
}

# "on gpu[…] {" goes with the brace that closes it; "@gpu[…]" goes alone.
drop_places()
{
    awk '{
        opens = gsub(/\{/, "{")
        closes = gsub(/\}/, "}")
        if ($0 ~ /^ *on gpu\[.*\] *\{ *$/) {
            placed[++depth] = 1
            next
        }
        if (opens > closes)
            placed[++depth] = 0
        else if (closes > opens && placed[depth--])
            next
        gsub(/ *@gpu\[[^]]*\]/, "")
        print
    }'
}

[ "$gpus" = own ] && filter=keep_places || filter=drop_places
# paths of data files are in two lines in some models
awk '/^data /{skip = 1} !skip{print} /;/{skip = 0}' "$model" | $filter
[ "$gpus" = own ] || echo "devices gpu[$gpus] = cpu;"
echo "data train = synthetic();"
echo "data eval = synthetic(take = 8);"
