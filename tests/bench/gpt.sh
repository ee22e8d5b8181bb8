#!/bin/sh
# gpt.sh - training GPT-2 in three sizes: mdlc against PyTorch, in f32 and bf16.
#
#     tests/bench/gpt.sh [BUILD]         the table; BUILD: the build directory (default: build)
#     tests/bench/gpt.sh tune [BUILD]    PyTorch alone, once with each setting there is to try
#
# ROUNDS=3  SIZES="a b c"  PRECISIONS="f32 bf16"  STEPS=…  PYTHON=/usr/bin/python3
#
# Size b is trained in two stages, too, on one thread each, with the zero-bubble schedule.
#
# Medians of interleaved rounds on an otherwise idle machine with two cores. A step is a forward
# pass, the loss, a backward pass and AdamW, on made-up tokens, two threads, one device; its
# rate is the median of a run's. Memory is the largest resident set of the process.
#
# PyTorch is Debian's python3-torch (1.13). It runs as fast as it was found to, and once more
# as lean. Fast: threads of OpenMP for its BLAS, too (libopenblas0-openmp), which share cores with
# PyTorch's own; kernels for AVX-512, which PyTorch does not choose by itself; huge pages, and
# no page given back (libjemalloc2); the threads bound to cores. Lean: one sample at a time,
# gradients added up, AdamW tensor by tensor, free pages given back at once; for two steps only, as
# it is there for its memory.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
command=table
[ "${1:-}" != tune ] || { command=tune && shift; }
build=$(cd "${1:-$root/build}" && pwd)
mdlc=$build/bin/mdlc
rounds=${ROUNDS:-3}
sizes=${SIZES:-a b c}
precisions=${PRECISIONS:-f32 bf16}
python=${PYTHON:-/usr/bin/python3}
libraries=/usr/lib/$(uname -m)-linux-gnu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
cd "$work"
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA

# vocab context width layers heads batch, mdlc's micro-batch, steps, floors in tokens a second, f32
# and bf16: what the matrix products alone take where a library's two threads reach 210
# and 365 GFLOP/s. The table's floor goes with the rate of the day.
size() {
    case $1 in
    a) echo 256 256 128 4 4 16 16 30 35900 68000 ;;
    b) echo 256 256 384 6 6 8 8 12 3020 5750 ;;
    c) echo 50257 256 768 12 12 4 4 5 272 517 ;;
    *) echo "gpt.sh: there is no size $1" >&2 && exit 2 ;;
    esac
}

steps() {
    echo "${STEPS:-$(size "$1" | cut -d' ' -f8)}"
}

# ---- PyTorch: environment of a setting, options of the fast one

openmp=LD_LIBRARY_PATH=$libraries/openblas-openmp
jemalloc=LD_PRELOAD=$libraries/libjemalloc.so.2
keep=MALLOC_CONF=thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1
give=MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0
wide=ATEN_CPU_CAPABILITY=avx512
bound="OMP_PROC_BIND=true OMP_PLACES=cores OMP_WAIT_POLICY=active"

setting() {
    case $1 in
    fast) echo "$openmp $jemalloc $keep $wide $bound" ;;
    lean) echo "$openmp $jemalloc $give $wide $bound" ;;
    plain) echo "OMP_NUM_THREADS=2" ;;
    openmp) echo "$openmp" ;;
    jemalloc) echo "$openmp $jemalloc $keep" ;;
    wide) echo "$openmp $jemalloc $keep $wide" ;;
    passive) echo "$openmp $jemalloc $keep $wide OMP_WAIT_POLICY=passive" ;;
    esac
}

# What `tune` found fastest: of f32 and bf16 each.
fast_options() {
    case $1_$2 in
    a_f32) echo micro=4 ;;
    a_bf16) echo compiled=yes micro=8 warmup=5 ;;
    b_bf16) echo compiled=yes warmup=5 ;;
    esac
}

# torch SETTING SIZE PRECISION [option …]: tokens a second and MiB
torch() {
    setting=$(setting "$1")
    # shellcheck disable=SC2046
    set -- $(size "$2" | cut -d' ' -f1-6) precision="$3" steps="$(steps "$2")" \
        $(shift 3 && echo "$@")
    # shellcheck disable=SC2086
    env $setting "$python" "$root/tests/bench/torch_gpt.py" "$@" </dev/null
}

tune() {
    for size in $sizes; do
        for precision in $precisions; do
            echo "size $size, $precision: tokens/s and MiB; load $(cut -d' ' -f1 /proc/loadavg)"
            while read -r setting options; do
                # shellcheck disable=SC2086
                printf '  %-10s %-40s %s\n' "$setting" "$options" \
                    "$(torch "$setting" "$size" "$precision" $options)"
            done <<'LIST'
plain attention=masked
plain
openmp
jemalloc
wide
passive
fast
fast optimizer=single
fast attention=private
fast micro=1
fast micro=2
fast micro=4
fast compiled=yes warmup=5
fast compiled=yes warmup=5 micro=4
fast compiled=yes warmup=5 micro=8
fast compiled=yes warmup=5 micro=8 attention=private
lean optimizer=single micro=1
LIST
        done
    done
}

# ---- mdlc

# Runs a command, and prints the largest resident set it had, in MiB.
peak() {
    "$python" -c 'import os, sys
status, usage = os.wait4(os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)[1:]
print(round(usage.ru_maxrss / 1024))
sys.exit(status != 0)' "$@"
}

# build_one SIZE PRECISION MICRO [DEVICES]: the trainer SIZE_PRECISION_MICRO[_DEVICES]
build_one() {
    devices=${4:-1} schedule=${4:+zero_bubble} name=$1_$2_$3${4:+_$4}
    # shellcheck disable=SC2046
    set -- "$name" "$2" "$3" $(size "$1")
    { cat "$root/tests/bench/gpt_bench.mdl" && echo "devices gpu[$devices] = cpu;"; } >model.mdl
    "$mdlc" build -q --target host model.mdl -I "$root/tests/bench" -D vocab="$4" -D context="$5" \
        -D width="$6" -D layers="$7" -D heads="$8" --set train.batch="$9" \
        --set parallel.microbatch="$3" --set train.precision="$2" \
        --set parallel.schedule="${schedule:-1f1b}" -o "$1"
}

# ours TRAINER CONTEXT STEPS [THREADS]: tokens a second and MiB; the first tenth of the steps does
# not count
ours() {
    memory=$(peak "./$1" -q --steps "$3" --threads "${4:-2}" --log "$1.jsonl")
    rate=$(awk -v n="$3" -F'samples_per_s": ' 'NR > n / 10 + 1 { split($2, a, "}"); print a[1] }' \
        "$1.jsonl" | sort -g | awk -v c="$2" '{ x[NR] = $1 } END { print c * x[int((NR + 1) / 2)] }')
    rm -f "$1.jsonl"
    echo "$rate $memory"
}

# median FILE COLUMN
median() {
    cut -d' ' -f"$2" "$1" | sort -g | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }'
}

round() {
    for precision in $precisions; do
        # shellcheck disable=SC2046
        env $(setting fast) "$python" "$root/tests/bench/torch_gpt.py" rate "$precision" \
            >>"rate_$precision"
    done
    for size in $sizes; do
        # shellcheck disable=SC2046
        set -- $(size "$size")
        for precision in $precisions; do
            at=${size}_$precision
            ours "${at}_$7" "$2" "$(steps "$size")" >>"$at.mdlc_fast"
            # shellcheck disable=SC2046
            torch fast "$size" "$precision" $(fast_options "$size" "$precision") \
                >>"$at.torch_fast"
            ours "${at}_1" "$2" "$(steps "$size")" >>"$at.mdlc_lean"
            [ "$size" != b ] || ours "${at}_1_2" "$2" "$(steps "$size")" 1 >>"$at.mdlc_two"
            torch lean "$size" "$precision" optimizer=single micro=1 steps=2 warmup=1 >>"$at.torch_lean"
        done
    done
}

row() { # what, file, file of the fast PyTorch, of the lean one, floor
    awk -v what="$1" -v rate="$(median "$2" 1)" -v memory="$(median "$2" 2)" \
        -v fast="$(median "$3" 1)" -v lean="$(median "$4" 2)" -v floor="$5" 'BEGIN {
        printf "| %-34s | %8.0f | %5.2f | %8.0f | %5.2f | %5.0f %% |\n", what, rate, rate / fast,
               memory, memory / lean, 100 * rate / floor }'
}

settings_print() {
    printf 'PyTorch, fast: %s optimizer=foreach attention=added\n' "$(setting fast)"
    for size in $sizes; do
        for precision in $precisions; do
            options=$(fast_options "$size" "$precision")
            [ -z "$options" ] || echo "    $size, $precision: $options"
        done
    done
    printf 'PyTorch, lean: %s optimizer=single micro=1\n\n' "$(setting lean)"
}

table() {
    for precision in $precisions; do
        : >"rate_$precision"
    done
    for size in $sizes; do
        for precision in $precisions; do
            build_one "$size" "$precision" "$(size "$size" | cut -d' ' -f7)"
            build_one "$size" "$precision" 1
            [ "$size" != b ] || build_one "$size" "$precision" 1 2
        done
    done
    echo "load before: $(cut -d' ' -f1-3 /proc/loadavg)"
    for round in $(seq "$rounds"); do
        printf '\rround %s of %s ' "$round" "$rounds" >&2
        round
    done
    printf '\r' >&2
    settings_print
    printf '| %-34s | %8s | %5s | %8s | %5s | %7s |\n' 'model and program' tokens/s ratio MiB ratio \
        'floor'
    printf '|%s|%s:|%s:|%s:|%s:|%s:|\n' "$(printf '%036d' 0 | tr 0 -)" --------- ------ --------- \
        ------ --------
    for size in $sizes; do
        # shellcheck disable=SC2046
        set -- $(size "$size")
        for precision in $precisions; do
            at=${size}_$precision
            floor=$9 rate=210
            [ "$precision" = f32 ] || { floor=${10} && rate=365; }
            floor=$(echo "$floor $rate $(median "rate_$precision" 1)" | awk '{ print $1 / $2 * $3 }')
            for program in torch_fast torch_lean mdlc_fast mdlc_lean mdlc_two; do
                [ -f "$at.$program" ] || continue
                row "$size, $precision: $(echo "$program" | sed 's/torch_/PyTorch, /
                    s/mdlc_fast/mdlc, micro-batch '"$7"'/; s/mdlc_lean/mdlc, micro-batch 1/
                    s/mdlc_two/mdlc, two stages/')" \
                    "$at.$program" "$at.torch_fast" "$at.torch_lean" "$floor"
            done
        done
    done
    for precision in $precisions; do
        printf '\nmatrix products, %s: %s GFLOP/s' "$precision" "$(median "rate_$precision" 1)"
    done
    printf '\nratios: of tokens/s to the fast PyTorch, of memory to the lean one; '
    printf 'floor: tokens/s in it\n'
}

"$python" -c 'import torch' || { echo "gpt.sh: apt-get install python3-torch" >&2 && exit 1; }
for file in openblas-openmp/libblas.so.3 libjemalloc.so.2; do
    [ -e "$libraries/$file" ] && continue
    echo "gpt.sh: apt-get install libopenblas0-openmp libjemalloc2" >&2
    exit 1
done
"$command"
