#!/bin/sh
# builds.sh - builds for GPUs that go wrong say what is wrong, and what a build leaves behind is
# used again only where it fits.
#
# usage: builds.sh MDLC MODELS WORK
set -u
mdlc=$1 models=$2 work=$3

fail()
{
    echo "builds: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

# refused CODE WORDS ARGUMENTS: ends with the code and says the words
refused()
{
    wanted=$1 words=$2
    shift 2
    "$@" > "$work/log" 2>&1
    code=$?
    [ $code -eq "$wanted" ] || fail "$*: exit code $code, not $wanted" "$work/log"
    grep -q -e "$words" "$work/log" || fail "$*: no word of '$words'" "$work/log"
    grep -q "bug in the compiler" "$work/log" && fail "$*: calls itself a bug" "$work/log"
}

rm -rf "$work"
mkdir -p "$work" || exit 1
two=$models/two_gpu.mdl
refused 2 "gpu-arch" "$mdlc" build --target cuda --gpu-arch sm_123 "$two" -o "$work/t"
refused 2 "CUDA Toolkit" env NVCC=no_such_nvcc "$mdlc" build --target cuda "$two" -o "$work/t"
refused 2 "target host" env NVCC=no_such_nvcc "$mdlc" run --target sim "$two"
refused 2 "cannot run ar" env PATH="$work/nothing" XDG_CACHE_HOME="$work/cache" \
    NVCC="${NVCC:-$(command -v nvcc)}" "$mdlc" build --target sim "$two" -o "$work/t"
# nothing is compiled where there is nothing to run it
if [ ! -e /proc/driver/nvidia/version ] && ! ldconfig -p | grep -q 'libcuda\.so\.1'; then
    for way in "no NVIDIA GPU here" "target host" "target sim"; do
        refused 2 "$way" env XDG_CACHE_HOME="$work/never" "$mdlc" run --target cuda "$two"
        [ "$(wc -l < "$work/log")" -eq 1 ] || fail "no GPU: not one line" "$work/log"
    done
    [ ! -e "$work/never" ] || fail "no GPU: something was compiled"
fi

# A kernel of mdlc's own that does not compile is none that was written for the model.
home=$(dirname "$(dirname "$mdlc")")
mkdir "$work/home" "$work/home/share" || exit 1
cp -r "$home/share/mdl" "$work/home/share/mdl"
ln -s "$home/include" "$work/home/include"
ln -s "$home/lib" "$work/home/lib"
echo "this is no kernel" > "$work/home/share/mdl/kernels/a_broken.cu"
refused 2 "a_broken.cu, a file of mdlc's own library of kernels" env MDL_HOME="$work/home" \
    XDG_CACHE_HOME="$work/cache" "$mdlc" build --target sim "$two" -o "$work/t"
grep -q "was written does not compile" "$work/log" && fail "a kernel of mdlc's:" "$work/log"

refused 1 "precision f64" "$mdlc" check --target cuda --set train.precision=f64 "$two"

# A weight on two GPUs: what updates send lies behind what a graph may hold, on both sides.
cat > "$work/copy.mdl" << 'END'
model copy {
    input x : f32[32];
    target y : i32;
    a = linear(x, 32)  @gpu[0];
    b = gelu(a)  @gpu[0];
    c = linear(b, 32, weight = a.weight, bias = false)  @gpu[1];
    loss cross_entropy(c, y);
}
train { batch = 8; }
parallel { microbatch = 2; transfer = nccl; }
data train = synthetic();
END
"$mdlc" emit -q --target cuda "$work/copy.mdl" -o "$work/copy" || exit 1
for stage in 0 1; do
    awk '/^static int stage_[01]_passes/ { passes = 1 } /^}/ { passes = 0 }
        passes && /(send|receive)_W_/ { print FILENAME ":" FNR ": " $0; bad = 1 }
        END { exit bad }' "$work/copy/stage_$stage.c" > "$work/log" ||
        fail "a weight's message is part of the passes" "$work/log"
    grep -q "stage_${stage}_passes" "$work/copy/stage_$stage.c" || fail "stage $stage has no passes"
done

# A weight that comes from a peer at the end of a step, and is read first in the next one.
cat > "$work/late.mdl" << 'END'
model late {
    input x : f32[64];
    target y : i32;
    a = linear(x, 64)  @gpu[1];
    b = linear(x, 64, weight = a.weight)  @gpu[0];
    c = a + b  @gpu[1];
    loss cross_entropy(c, y);
}
train { batch = 8; }
parallel { microbatch = 2; transfer = peer; }
data train = synthetic();
END
"$mdlc" build -q --target sim "$work/late.mdl" -o "$work/late" || exit 1
for schedule in lifo fifo eager random; do
    MDL_SIM_SCHEDULE=$schedule "$work/late" -q --steps 4 > "$work/log" 2>&1 ||
        fail "late.mdl, $schedule:" "$work/log"
    [ -s "$work/log" ] && fail "late.mdl, $schedule, is not silent:" "$work/log"
done

# What a trainer for the simulator says of too few GPUs, too little memory, another GPU.
simulated()
{
    refused "$@" "$work/late" -q --steps 1
    grep -q "target sim" "$work/log" && fail "for the simulator, and names it as a way out" "$work/log"
    unset MDL_SIM_DEVICES MDL_SIM_MEMORY MDL_SIM_ARCH MDL_SIM_FAIL MDL_SIM_KEEP
}
export MDL_SIM_DEVICES=1
simulated 1 "the simulator has 1; set MDL_SIM_DEVICES=2"
export MDL_SIM_MEMORY=32MiB
simulated 1 "MDL_SIM_MEMORY is what each has"
export MDL_SIM_ARCH=7.5
simulated 1 "set MDL_SIM_ARCH to 8.0"
export MDL_SIM_FAIL=cudaGetDeviceCount:1
simulated 1 "no NVIDIA GPU: .*--target host"
export MDL_SIM_KEEP=$work/none/kept
simulated 2 "MDL_SIM_KEEP=$work/none/kept: expected a folder that can be written into"
MDL_SIM_KEEP=$work/kept "$work/late" -q --steps 1 > "$work/log" 2>&1 || fail "late.mdl:" "$work/log"
[ -s "$work/log" ] && fail "late.mdl, kept, is not silent:" "$work/log"
ls "$work/kept" | grep -q '\.ptx$' || fail "MDL_SIM_KEEP keeps nothing"
echo "builds: refusals, copies of weights"
