#!/bin/sh
# compare.sh - the table of the README: pipelining against one device, and mdlc against PyTorch.
#
#     tests/bench/compare.sh [BUILD]      BUILD: the build directory (default: build)
#
# Medians of five interleaved rounds on an otherwise idle machine with at least two cores.
# PyTorch is Debian's python3-torch with two threads, its data in memory, and without the
# environment variables that would hold its BLAS back; without it only the first part is run.
# Where the two are compared, mdlc reads as many samples of the same sizes from .npy files.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$root/build}
mdlc=$build/bin/mdlc
rounds=${ROUNDS:-5}
python=${PYTHON:-/usr/bin/python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
cd "$work"
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE

"$mdlc" build -q "$root/models/deep_mlp.mdl" -D gpus=1 -o mlp_1
"$mdlc" build -q "$root/models/deep_mlp.mdl" -D gpus=2 -o mlp_2
"$mdlc" build -q "$root/models/two_gpu.mdl" -o seed_2
sed 's/@gpu\[1\]/@gpu[0]/' "$root/models/two_gpu.mdl" >seed_1.mdl
"$mdlc" build -q seed_1.mdl --set parallel.microbatch=64 -o seed_1
"$mdlc" build -q "$root/models/fashion.mdl" -o cnn_2
sed 's/gpu\[1\]/gpu[0]/' "$root/models/fashion.mdl" >cnn_1.mdl
"$mdlc" build -q cnn_1.mdl --set parallel.microbatch=64 -o cnn_1

# seconds of a step: the batch over the median of the log's rates, the first tenth left out
ours() {
    name=$1 batch=$2 steps=$3
    shift 3
    "./$name" -q --steps "$steps" --log "$name.jsonl" "$@" >/dev/null
    awk -v n="$steps" -F'samples_per_s": ' 'NR > n / 10 { split($2, a, "}"); print a[1] }' \
        "$name.jsonl" | sort -g |
        awk -v b="$batch" '{ x[NR] = $1 } END { print b / x[int((NR + 1) / 2)] }'
}

median() { sort -g "$1" | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }'; }

torch=yes
"$python" -c 'import torch' 2>/dev/null || torch=no
seed="--data x=x.npy --data y=y.npy" cnn="--data image=image.npy --data label=label.npy"
if [ $torch = yes ]; then
    "$python" - <<'PY'
import numpy
r = numpy.random.default_rng(1)
numpy.save("x.npy", r.standard_normal((1024, 1000), "f4"))
numpy.save("y.npy", r.integers(100, size=1024))
numpy.save("image.npy", r.integers(256, size=(2048, 1, 28, 28)).astype("u1"))
numpy.save("label.npy", r.integers(10, size=2048))
PY
fi
for round in $(seq "$rounds"); do
    printf '\rround %s of %s ' "$round" "$rounds" >&2
    ours mlp_1 256 16 --data synthetic --threads 1 >>t_mlp_1
    ours mlp_2 256 16 --data synthetic --threads 1 >>t_mlp_2
    [ $torch = yes ] || continue
    # shellcheck disable=SC2086
    {
        ours seed_1 64 600 --threads 2 $seed >>t_seed_1
        ours seed_2 64 600 --threads 1 $seed >>t_seed_2
        "$python" "$root/tests/bench/torch_bench.py" seed 600 >>t_seed_t
        ours cnn_1 128 30 --threads 2 $cnn >>t_cnn_1
        ours cnn_2 128 30 --threads 1 $cnn >>t_cnn_2
        "$python" "$root/tests/bench/torch_bench.py" cnn 30 >>t_cnn_t
    }
done
printf '\r' >&2

row() { # what, file, batch, against
    awk -v what="$1" -v t="$(median "$2")" -v b="$3" -v base="$(median "$4")" 'BEGIN {
        printf "| %-62s | %8.3f | %9.0f | %5.2f |\n", what, 1000 * t, b / t, base / t }'
}
printf '| %-62s | %8s | %9s | %5s |\n' 'model and machine use' 'ms/step' 'samples/s' ratio
printf '|%s|%s:|%s:|%s:|\n' "$(printf '%064d' 0 | tr 0 -)" --------- ---------- ------
row 'deep_mlp, batch 256: one device, one thread' t_mlp_1 256 t_mlp_1
row 'deep_mlp: two stages, eight micro-batches, one thread each' t_mlp_2 256 t_mlp_1
if [ $torch = yes ]; then
    row 'two_gpu, batch 64: PyTorch, two threads' t_seed_t 64 t_seed_t
    row 'two_gpu: one device, two threads' t_seed_1 64 t_seed_t
    row 'two_gpu: two stages, eight micro-batches, one thread each' t_seed_2 64 t_seed_t
    row 'fashion, batch 128: PyTorch, two threads' t_cnn_t 128 t_cnn_t
    row 'fashion: one device, two threads' t_cnn_1 128 t_cnn_t
    row 'fashion: two stages, eight micro-batches, one thread each' t_cnn_2 128 t_cnn_t
else
    echo "PyTorch is not installed (apt-get install python3-torch): the comparison is left out"
fi
