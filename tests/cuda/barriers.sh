#!/bin/sh
# barriers.sh - every barrier of a kernel is needed: each is deleted in turn, and the simulator
# reports the kernel that comes of it in the test of that kernel.
#
# usage: barriers.sh NVCC KERNELS LIBRARY SIM WORK TEST...
#     KERNELS is the folder kernels/, LIBRARY the static library of all kernels, TEST... the
#     objects of the kernels' tests; a deleted barrier's file is linked before LIBRARY.
set -u
nvcc=$1 kernels=$2 library=$3 sim=$4 work=$5
shift 5

fail()
{
    echo "barriers: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

# The tests that run the kernels of a file.
subject()
{
    case $1 in
    attention*) echo attention ;;
    rope*) echo rope ;;
    conv*) echo convolution ;;
    pool*) echo pooling ;;
    product*) echo products ;;
    reduce* | copy*) echo moves ;;
    optim*) echo optim ;;
    *) echo rows ;;
    esac
}

# Files to compile anew where FILE changes: itself, or all that include it.
users()
{
    case $1 in
    *.cu) echo "$1" ;;
    *)
        for other in $(grep -l "#include \"$1\"" ./*.cu ./*.cuh); do
            users "$(basename "$other")"
        done
        ;;
    esac
}

rm -rf "$work"
mkdir -p "$work/cuda" || exit 1
cp "$kernels"/*.h "$work" && cp "$kernels"/cuda/* "$work/cuda" || exit 1
cd "$work/cuda" || exit 1
deleted=0
for file in $(grep -lE '__sync(threads|warp)\(' ./*.cu ./*.cuh); do
    file=$(basename "$file")
    for line in $(grep -nE '^ *__sync(threads|warp)\(.*\);' "$file" | cut -d: -f1); do
        cp "$file" "$work/kept"
        sed "${line}s/__sync[a-z]*([^;]*;/;/" "$work/kept" > "$file"
        found=
        for user in $(users "$file" | sort -u); do
            "$nvcc" -std=c++17 -O3 -lineinfo -no-compress -cudart shared \
                -gencode arch=compute_80,code=compute_80 -I.. -I. -c "$user" -o "$work/user.o" ||
                fail "$user does not compile without $file:$line"
            for test in "$@"; do
                case $test in
                *kernels_"$(subject "$user")".*) ;;
                *) continue ;;
                esac
                cc "$test" "$work/user.o" $library -L"$sim" -l:libcublas.so.13 -l:libcublasLt.so.13 \
                    -l:libcudart.so.13 -lcmocka -lstdc++ -lpthread -lm -o "$work/test" ||
                    fail "does not link"
                LD_LIBRARY_PATH=$sim timeout 300 "$work/test" > "$work/log" 2>&1
                [ $? -eq 86 ] && grep -q "^mdl-sim: " "$work/log" && found=yes
            done
            [ -z "$found" ] || break
        done
        cp "$work/kept" "$file"
        [ -n "$found" ] || fail "$file:$line: deleted, and nothing is reported" "$work/log"
        deleted=$((deleted + 1))
    done
done
[ "$deleted" -gt 5 ] || fail "only $deleted barriers found"
echo "barriers: $deleted barriers, each reported when it is missing"
