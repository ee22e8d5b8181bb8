#!/bin/sh
# emitted.sh - what is emitted for GPUs compiles without a warning by its own CMakeLists.txt,
# warnings being errors; is the same text each time; and no line is longer than 100 columns.
#
# usage: emitted.sh MDLC MODELS WORK
set -u
mdlc=$1 models=$2 work=$3
home=$(cd "$(dirname "$mdlc")/.." && pwd) || exit 1

fail()
{
    echo "emitted: $1" >&2
    [ $# -lt 2 ] || tail -n 40 "$2" >&2
    exit 1
}

rm -rf "$work"
mkdir -p "$work" || exit 1
cuda=$(dirname "$(dirname "$(realpath "$(command -v "${NVCC:-nvcc}")")")")
for transfer in peer nccl; do
    for model in "$models"/*.mdl; do
        name=$(basename "$model" .mdl)
        dir=$work/$name-$transfer
        "$mdlc" emit -q --target cuda --set parallel.transfer=$transfer "$model" -o "$dir" || exit 1
        "$mdlc" emit -q --target sim --set parallel.transfer=$transfer "$model" -o "$dir-again" ||
            exit 1
        diff -r "$dir" "$dir-again" > "$work/log" || fail "$name: other text the second time" "$work/log"
        awk 'length($0) > 100 { print FILENAME ":" FNR; bad = 1 } END { exit bad }' "$dir"/*.[ch]* \
            > "$work/log" || fail "$name: lines over 100 columns" "$work/log"
        for file in "$dir"/*.c; do
            cc -std=c17 -Wall -Wextra -Wpedantic -Wshadow -Werror -O1 -isystem "$cuda/include" \
                -I"$home/include/mdl" -I"$dir" -c "$file" -o "$work/object.o" 2> "$work/log" ||
                fail "$name: $(basename "$file") does not compile" "$work/log"
        done
        # the fused kernels do not depend on the way of the messages
        [ -f "$dir/fused.cu" ] && [ $transfer = peer ] || continue
        "${NVCC:-nvcc}" -std=c++17 -Werror all-warnings -Xcompiler -Wall,-Wextra,-Werror -fmad=false \
            -gencode arch=compute_80,code=sm_80 -Xptxas -warn-spills,-warn-lmem-usage,-Werror \
            -I"$home/include/mdl" -I"$home/share/mdl/kernels" -c "$dir/fused.cu" \
            -o "$work/object.o" 2> "$work/log" || fail "$name: fused.cu does not compile" "$work/log"
    done
done

# The CMakeLists.txt that is emitted, for the simulated GPU, which then runs the trainer.
# Of a model that has kernels of its own.
[ -f "$work/autoencoder-nccl/fused.cu" ] || fail "autoencoder has no fused.cu any more"
cmake -S "$work/autoencoder-nccl" -B "$work/build" -DMDL_HOME="$home" -DMDL_SIM=ON \
    -DCMAKE_C_FLAGS="${MDL_CFLAGS:-}" \
    -DCMAKE_CUDA_COMPILER="$(command -v "${NVCC:-nvcc}")" > "$work/log" 2>&1 ||
    fail "the emitted CMakeLists.txt does not configure" "$work/log"
cmake --build "$work/build" -j 2 > "$work/log" 2>&1 || fail "it does not build" "$work/log"
LD_LIBRARY_PATH=$home/lib/mdl/sim "$work/build/trainer" -q --steps 1 > "$work/log" 2>&1 ||
    fail "what it builds does not train" "$work/log"
[ -s "$work/log" ] && fail "what it builds is not silent" "$work/log"
echo "emitted: all models compile without a warning, for peer and nccl; CMakeLists.txt builds"
