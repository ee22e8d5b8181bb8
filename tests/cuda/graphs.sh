#!/bin/sh
# graphs.sh - steps as CUDA graphs: with --cuda-graph a trainer has the losses and the weights that
# it has without, to the bit, and the simulator, which looks for races, has nothing to say.
#
# usage: graphs.sh MDLC MODELS TIED WORK
#     MODELS is the folder of models; TIED a model whose stages send weights after the update
#
# Ten steps with an evaluation after every third, under several seeds of the simulator's scheduler.
# That graphs were launched, and nothing is done besides, is counted in the lines of the simulator.
# Then: where a step is none that can be captured, and where a call fails, there is one clear line.
set -u
mdlc=$1 models=$2 tied=$3 work=$4
here=$(cd "$(dirname "$0")" && pwd) || exit 1

fail()
{
    echo "graphs: $1" >&2
    [ $# -lt 2 ] || tail -n 20 "$2" >&2
    exit 1
}

# build NAME TARGET MODEL OPTION...
build()
{
    trainer=$work/$1 target=$2 model=$3
    shift 3
    "$mdlc" build -q --target "$target" "$@" "$model" -o "$trainer" 2> "$work/log" ||
        fail "$trainer does not build:" "$work/log"
}

# train NAME OPTION...: a run of the trainer, which leaves NAME.jsonl, NAME.weights and NAME.err
train()
{
    out=$work/$1
    shift
    timeout 600 "$trainer" -q --steps 10 --eval-every 3 --log "$out.jsonl" \
        --export "$out.weights" "$@" > "$work/out" 2> "$out.err" ||
        fail "$trainer $* does not train:" "$out.err"
}

# What a run says of its numbers, not of its speed.
numbers()
{
    sed 's/, "samples_per_s":[^,}]*//' "$1.jsonl"
}

same()
{
    numbers "$work/plain" > "$work/plain.numbers"
    numbers "$work/graph" > "$work/graph.numbers"
    [ "$(grep -c '"lr"' "$work/plain.numbers")" -eq 10 ] || fail "no ten steps" "$work/plain.jsonl"
    grep -q eval "$work/plain.numbers" || fail "no evaluation" "$work/plain.jsonl"
    diff "$work/plain.numbers" "$work/graph.numbers" > "$work/log" ||
        fail "$trainer: other numbers with graphs (>), $1:" "$work/log"
    cmp "$work/plain.weights" "$work/graph.weights" ||
        fail "$trainer: other weights with graphs, $1"
}

# count WORDS NAME: lines of the simulator that say that something of this name began
count()
{
    grep -cE "^mdl-sim: (runs|begins) ($1)" "$work/$2.err"
}

runs=0
# compare STAGES: the trainer with and without graphs
compare()
{
    export MDL_SIM_CHECK=race
    train plain
    for seed in 1 2 3; do
        [ $((seed % 2)) -eq 1 ] && export MDL_SIM_NCCL=pessimistic || unset MDL_SIM_NCCL
        export MDL_SIM_SEED=$seed
        train graph --cuda-graph
        [ -s "$work/graph.err" ] && fail "$trainer, seed $seed, is not silent:" "$work/graph.err"
        same "seed $seed"
        runs=$((runs + 1))
    done
    # the first step is captured and every other one launched
    export MDL_SIM_TRACE=1 MDL_SIM_CHECK=fast
    train plain
    train graph --cuda-graph
    unset MDL_SIM_TRACE
    launches=$(count 'cudaGraphLaunch \(begin\)' graph)
    [ "$launches" -eq $((9 * $1)) ] || fail "$trainer: $launches launches of graphs"
    for what in kernel cublas ncclSend cudaMemcpyAsync; do
        plain=$(count "$what" plain) graph=$(count "$what" graph)
        [ "$plain" -eq "$graph" ] || fail "$trainer: $graph $what with graphs, $plain without"
    done
}

# refuses CODE WORDS OPTION...: one line with WORDS, and nothing is trained
refuses()
{
    code=$1 words=$2
    shift 2
    rm -f "$work/log.jsonl"
    timeout 300 "$trainer" -q --steps 3 --log "$work/log.jsonl" "$@" > "$work/out" 2> "$work/log"
    got=$?
    [ $got -eq "$code" ] || fail "$trainer $*: exit code $got:" "$work/log"
    [ "$(wc -l < "$work/log")" -eq 1 ] && grep -qF -e "$words" "$work/log" ||
        fail "$trainer $*: not the one line with '$words':" "$work/log"
    [ "$code" -eq 1 ] || [ ! -s "$work/log.jsonl" ] || fail "$trainer $*: has begun to train"
}

rm -rf "$work"
mkdir -p "$work" || exit 1
small="--set train.batch=8 --set parallel.microbatch=2"
nccl="--set parallel.transfer=nccl"
for gpus in 1 2; do
    for name in two_gpu deep_mlp skip_cnn fashion; do
        sh "$here/cut.sh" "$models/$name.mdl" $gpus > "$work/$name.$gpus.mdl"
    done
done
{ cat "$tied"; echo "data eval = synthetic(take = 8);"; } > "$work/tied.mdl"

build deep_mlp sim "$work/deep_mlp.2.mdl" -D width=64 $small $nccl
compare 2
build skip_cnn sim "$work/skip_cnn.1.mdl" -D width=8 $small
compare 1
build tied sim "$work/tied.mdl" -D parts=2 -D gpus=2 $small $nccl
compare 2
build two_gpu sim "$work/two_gpu.2.mdl" $small $nccl
compare 2

refuses 2 "--cuda-graph and --trace exclude each other" --cuda-graph --trace "$work/trace.json"
# calls that fail: before the first step, around captures, in one, in launches; what other stages
# had in their streams then ends without its messages, and the simulator has nothing to say of it
export MDL_SIM_CHECK=race
for call in cudaStreamBeginCapture:1 cudaStreamEndCapture:2 cudaGraphInstantiate:3 \
    cudaGraphUpload:4 cudaEventRecord:30 cudaStreamWaitEvent:30 ncclSend:1 ncclSend:10 ncclRecv:2 \
    cudaGraphLaunch:1 cudaGraphLaunch:4; do
    export MDL_SIM_FAIL=$call
    refuses 1 ": ${call%:*}: " --cuda-graph
done
for call in ncclSend:4 ncclRecv:5 ncclRecv:12 cudaEventRecord:4 cudaEventRecord:40 \
    cudaStreamWaitEvent:7; do
    export MDL_SIM_FAIL=$call
    for seed in 1 2 3 4; do
        export MDL_SIM_SEED=$seed
        refuses 1 ": ${call%:*}: "
        grep -qE "^error: stage [01] \(gpu\[[01]\]\), step [123]" "$work/log" ||
            fail "$trainer: $call: not the place:" "$work/log"
    done
done
export MDL_SIM_FAIL=cublasLtMatmul:2
refuses 1 ": gpu_linear_forward: "
unset MDL_SIM_FAIL
build peer sim "$work/two_gpu.2.mdl" $small --set parallel.transfer=peer
refuses 2 "--cuda-graph: messages go between peers; build with --set parallel.transfer=nccl" \
    --cuda-graph
build fashion sim "$work/fashion.1.mdl" $small
refuses 2 "--cuda-graph: dropout draws new numbers in every step" --cuda-graph
build host host "$work/two_gpu.2.mdl" $small
refuses 2 "--cuda-graph is for GPUs" --cuda-graph
echo "graphs: $runs trainings with graphs, losses and weights equal to the bit"
