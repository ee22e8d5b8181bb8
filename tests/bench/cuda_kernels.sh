#!/bin/sh
# cuda_kernels.sh - what the kernels for GPUs take of a multiprocessor: registers, spills (bytes;
# there must be none), static shared memory (bytes), threads of a block, blocks that fit at a time
# and the share of all threads that they are. For sm_80, sm_90 and sm_100.
#
#     tests/bench/cuda_kernels.sh [--build BUILD] [--arch 80,90] [--check] [MODEL.mdl [option...]]
#
# The kernels are those of kernels/cuda and the fused ones of MODEL (models/skip_cnn.mdl; options
# are mdlc's). With --check nothing but a verdict is printed, and ptxas warns of whatever leaves
# the registers. Exit code 1: something spills; 77: no nvcc (NVCC, or on the PATH).
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 2
build=$root/build archs="80 90 100" check=
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$2 && shift 2 ;;
    --arch) archs=$(echo "$2" | tr , ' ') && shift 2 ;;
    --check) check=1 && shift ;;
    -*) echo "cuda_kernels.sh: no option $1" >&2 && exit 2 ;;
    *) break ;;
    esac
done
model=${1:-$root/models/skip_cnn.mdl}
[ $# -eq 0 ] || shift

nvcc=${NVCC:-nvcc}
command -v "$nvcc" > /dev/null || {
    echo "SKIPPED: no nvcc on the PATH (or in NVCC): the kernels cannot be compiled"
    exit 77
}
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT INT TERM

fail()
{
    echo "cuda_kernels.sh: $1" >&2
    [ $# -lt 2 ] || head -40 "$2" >&2
    exit 2
}

"$build/bin/mdlc" emit -q --target cuda "$@" "$model" -o "$work/model" 2> "$work/log" ||
    fail "$model cannot be emitted" "$work/log"
flags="-std=c++17 -O3 -I$root/kernels -I$root/kernels/cuda -I$work/model"

# sources: a line for each: source and flags of its own, which are those of mdlc
sources()
{
    for source in "$root"/kernels/cuda/*.cu; do
        echo "$source"
    done
    [ ! -f "$work/model/fused.cu" ] || echo "$work/model/fused.cu -fmad=false"
}
sources > "$work/sources"

if [ -n "$check" ]; then
    checked=0
    while read -r source own; do
        for arch in $archs; do
            "$nvcc" $flags $own -gencode "arch=compute_$arch,code=sm_$arch" \
                -Xptxas -warn-spills,-warn-lmem-usage,-Werror -c "$source" -o "$work/object" \
                > "$work/log" 2>&1 || {
                echo "$(basename "$source") for sm_$arch leaves the registers, or does not compile:"
                cat "$work/log"
                exit 1
            }
            checked=$((checked + 1))
        done
    done < "$work/sources"
    [ $checked -gt 1 ] || fail "no kernels were found"
    echo "cuda_kernels.sh: no spills and no local memory in $checked compilations (sm: $archs)"
    exit 0
fi

include=$("$nvcc" --dryrun -x cu -c /dev/null -o /dev/null 2>&1 |
    sed -n 's/^#\$ INCLUDES="\(.*\)" *$/\1/p' | tr -d '"')
${CXX:-c++} -std=c++17 -O1 $include "$root/tests/bench/occupancy.cpp" -o "$work/occupancy" \
    2> "$work/log" || fail "occupancy.cpp does not compile (its header is in the CUDA Toolkit)" "$work/log"

# PTX says how many threads a block may have, ptxas the rest: "MAJOR MINOR … NAME" of each kernel.
measure()
{
    arch=$1 source=$2
    shift 2
    "$nvcc" $flags "$@" -arch="compute_$arch" -ptx "$source" -o "$work/kernels.ptx" \
        > "$work/log" 2>&1 || fail "$source does not compile" "$work/log"
    "$nvcc" -arch="sm_$arch" -cubin -Xptxas -v "$work/kernels.ptx" -o "$work/kernels.cubin" \
        > "$work/verbose" 2>&1 || fail "$source does not assemble" "$work/verbose"
    awk -v file="$(basename "$source")" -v arch="$arch" '
        FNR == 1 { part++ }
        part == 1 && /\.entry/ { name = $0; sub(/.*\.entry /, "", name); sub(/[( ].*/, "", name) }
        part == 1 && /^\.(maxntid|reqntid)/ {
            gsub(/[.a-z]+|,/, " ")
            threads[name] = $1 * ($2 ? $2 : 1) * ($3 ? $3 : 1)
        }
        part == 2 && /Function properties for/ { name = $NF }
        part == 2 && /bytes stack frame/ { stack = $1; spills = 0; gsub(/,/, "")
            for (i = 2; i <= NF; i++) if ($i == "spill") spills += $(i - 2) }
        part == 2 && /: Used [0-9]* registers/ {
            gsub(/,/, "")
            shared = barriers = 0
            for (i = 2; i <= NF; i++) {
                if ($i == "registers") registers = $(i - 1)
                if ($i == "barriers") barriers = $(i - 1)
                if ($i == "smem") shared = $(i - 2)
            }
            major = int(arch / 10)
            print file, major, arch - 10 * major, name in threads ? threads[name] : 1024,
                  registers, barriers, shared, stack, spills, name
        }' "$work/kernels.ptx" "$work/verbose"
}

for arch in $archs; do
    while read -r source own; do
        measure "$arch" "$source" $own
    done < "$work/sources"
done > "$work/measured" || exit 2
[ -s "$work/measured" ] || fail "no kernels were found"
# parameters of functions are left out of the names
c++filt < "$work/measured" | sed 's/(bool)1/true/g; s/(bool)0/false/g; s/(anonymous namespace):://g
    s/([A-Za-z_]*)\([0-9]\)/\1/g; s/ \(static \)*void / /; s/(.*//; s/> >/>>/g' |
    sort -k1,1 -k10 -k2,2n -s > "$work/rows"
"$work/occupancy" < "$work/rows"
