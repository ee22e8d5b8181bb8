#!/bin/sh
# small.sh - the options that make a model of models/ small, for tests that train it in many ways.
#
# usage: small.sh MODEL
#
# Where a ReLU's input is within rounding of 0, host and
# GPU may be on two sides of it, and both gradients are right but not equal; of skip_cnn, whose
# AdamW then takes steps as long as any, these few samples have no such input in ten steps.
set -u
model=$1
name=$(basename "$model" .mdl)
case $name in
skip_cnn) echo "--set train.batch=4 --set parallel.microbatch=1" ;;
deep_mlp) echo "-D width=64 --set train.batch=8 --set parallel.microbatch=2" ;;
gpt2 | llama)
    echo "-D vocab=50 -D context=12 -D width=32 -D layers=4 -D heads=2 -D drop=0.1"
    [ "$name" = gpt2 ] || echo "-D inner=40 -D kv_heads=1"
    ;;
nanogpt) echo "-D context=12 -D width=32 -D layers=4 -D heads=2 -D drop=0.1" ;;
vit) echo "-D side=12 -D width=32 -D layers=4 -D heads=2" ;;
esac
case $name in
skip_cnn | deep_mlp) ;;
*) echo "--set train.batch=8 --set parallel.microbatch=2" ;;
esac
echo "-I $(dirname "$model")"
