#!/bin/sh
# messages.sh TRAINER SIM_DIR - runs of a trainer for two GPUs that must end with one clear line.
#
# Without a GPU it runs against the real CUDA libraries; with the simulated ones there are too few
# GPUs, too little memory, none of the architecture, and every call of CUDA that the runtime makes
# fails in turn: each time with exit code 1, one line that names the call, and no complaint of the
# simulated GPU about what was left behind.
set -u
trainer=$1
sim=$2
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0

bad()
{
    printf 'BAD: %s\n' "$1"
    sed 's/^/    /' "$work/err" | head -20
    failed=1
}

# fails NAME WORDS COMMAND...: exit code 1 and one line that begins with "error: "; WORDS in it
fails()
{
    name=$1
    words=$2
    shift 2
    "$@" >"$work/out" 2>"$work/err"
    code=$?
    [ $code = 1 ] || { bad "$name: exit code $code"; return; }
    [ "$(wc -l <"$work/err")" = 1 ] || { bad "$name: not one line"; return; }
    grep -q '^error: ' "$work/err" || { bad "$name: no error"; return; }
    grep -qF -e "$words" "$work/err" || { bad "$name: not: $words"; return; }
    printf 'ok: %s: %s\n' "$name" "$(cat "$work/err")"
}

run="--data synthetic --steps 2 -q --timeout 20"
if [ ! -e /dev/nvidiactl ]; then
    fails "no GPU" "no NVIDIA GPU: " env -u LD_LIBRARY_PATH "$trainer" $run
    for way in "--target host" "--target sim"; do
        grep -qF -e "$way" "$work/err" || bad "no GPU: does not name $way"
    done
fi

# simulated NAME=VALUE...: a run under the simulated GPU with these settings
simulated()
{
    env "$@" LD_LIBRARY_PATH="$sim" "$trainer" $run
}

simulated >"$work/out" 2>"$work/err" || bad "a good run"
fails "one GPU" "placed on 2 GPUs and the simulator has 1; set MDL_SIM_DEVICES=2" \
    simulated MDL_SIM_DEVICES=1
fails "little memory" "gpu[0] needs " \
    simulated MDL_SIM_MEMORY=32MiB
fails "another architecture" "build it with --gpu-arch sm_75" \
    simulated MDL_SIM_ARCH=7.5

fails "no count" "no NVIDIA GPU: " simulated MDL_SIM_FAIL=cudaGetDeviceCount:1

# CALL:N: the N-th call of CUDA's or cuBLAS's function; in steps the place is said, too
for call in cudaSetDevice:1 cudaSetDevice:4 cudaMemGetInfo:2 cudaDeviceCanAccessPeer:1 \
    cudaMalloc:1 cudaMalloc:2 cudaStreamCreateWithFlags:1 cudaStreamCreateWithFlags:3 \
    cudaEventCreateWithFlags:1 cudaEventCreateWithFlags:15 cudaMemsetAsync:1 cudaHostAlloc:1 \
    cudaHostAlloc:2 cudaStreamSynchronize:3 cudaMemcpyAsync:1 cublasCreate_v2:1 \
    cublasSetWorkspace_v2:2 cublasLtCreate:1; do
    name=${call%:*}
    fails "$call" "]: ${name%_v2}: " simulated MDL_SIM_FAIL=$call
done
for call in cudaMemcpyAsync:28 cudaMemcpyPeerAsync:1 cudaMemcpyPeerAsync:7 cudaEventRecord:5 \
    cudaEventRecord:31 cudaStreamWaitEvent:1 cudaStreamWaitEvent:30; do
    name=${call%:*}
    fails "$call" ": $name: " simulated MDL_SIM_FAIL=$call
    grep -qE "error: stage [01] \(gpu\[[01]\]\), step [12].*\([a-z_]*\.c:[0-9]+\)$" "$work/err" ||
        bad "$call: not the place"
done
fails "a kernel" ", step 1" simulated MDL_SIM_FAIL=cudaLaunchKernel:20
fails "a step's end" ", step " simulated MDL_SIM_FAIL=cudaStreamSynchronize:16
exit $failed
