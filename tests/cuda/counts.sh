#!/bin/sh
# counts.sh - what `mdlc plan` says of a GPU's step is what its step does.
#
# usage: counts.sh MDLC WORK "MODEL [option of mdlc...]"...
#
# In:  models; those of models/ are made small by cut.sh.
# Out: exit code 1 where a step's launches of kernels, matrix products (and their shapes), copies
#      or messages are not those of the plan's JSON, device for device, by peer copies or by NCCL.
#
# A trainer runs for one step and for two under the simulated GPU, which prints every operation;
# the difference is one step.
set -u
mdlc=$1 work=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd) || exit 1

fail()
{
    echo "$name: $1" >&2
    [ $# -lt 2 ] || head -40 "$2" >&2
    exit 1
}

# The plan's JSON, whose lines hold one key each: "DEVICE WHAT COUNT" lines.
planned()
{
    awk -v q='"' '
        function word(    x) { x = $2; gsub(/[",]/, "", x); return x }
        $1 == "\"device\":" { device = word(); sub(/.*\[/, "", device); sub(/\]/, "", device)
                              number[stages++] = device }
        $1 == "\"gpu\":" { gpu = 1 }
        $1 == "\"stage\":" { gpu = 0 }
        gpu && $1 ~ /^"(kernels|products|copies)":$/ { name = $1; gsub(/[":]/, "", name)
                                                       print device, name, word() }
        gpu && $1 == "\"by\":" { by = word() }
        gpu && $1 == "\"m\":" { m = word() }
        gpu && $1 == "\"n\":" { n = word() }
        gpu && $1 == "\"k\":" { k = word() }
        gpu && $1 == "\"calls\":" && by != "kernel" { print device, n "x" m "x" k, word() }
        $1 == "\"messages\":" && $2 == "[" { messages = 1 }
        messages && $1 == "\"from\":" { from = word() }
        messages && $1 == "\"count\":" { print number[from], "messages", word() }
        messages && $1 == "]," { messages = 0 }
    ' "$1" | totals
}

# Sums of equal first and second words; nothing where the sum is nothing.
totals()
{
    awk '{ sum[$1 " " $2] += $3 } END { for (i in sum) if (sum[i]) print i, sum[i] }' | sort
}

# What ran, from the simulator's lines: "DEVICE WHAT 1" lines.
traced()
{
    sed -n 's/^mdl-sim: \(runs\|begins\) \([^ ]*\) *\([^ ,]*\).*, gpu \([0-9]*\), stream .*/\4 \2 \3/p' "$1" |
        awk -v times="$2" '
            $2 == "kernel" { print $1, "kernels", times; next }
            $2 ~ /^cublas/ { print $1, "products", times; print $1, $3, times; next }
            $2 ~ /^cudaMemcpyPeer/ || $2 == "ncclSend" { print $1, "messages", times; next }
            $2 == "ncclRecv" || $2 ~ /^cuda(EventRecord|StreamWaitEvent)$/ { next }
            $2 ~ /^cuda(Memcpy|Memset)Async$/ { print $1, "copies", times; next }
            { print $1, "unknown:" $2, times }'
}

check()
{
    transfer=$1
    shift
    "$mdlc" plan -q --target sim "$@" "$work/model.mdl" --json "$work/plan.json" \
        2> "$work/log" || fail "[$transfer] has no plan:" "$work/log"
    "$mdlc" build -q --target sim "$@" "$work/model.mdl" -o "$work/trainer" 2> "$work/log" ||
        fail "[$transfer] does not build:" "$work/log"
    for steps in 1 2; do
        MDL_SIM_TRACE=1 MDL_SIM_CHECK=fast MDL_SIM_DEVICES=8 timeout 600 "$work/trainer" -q \
            --lr 1e-9 --steps $steps > "$work/out" 2> "$work/trace.$steps" || {
            grep -v "^mdl-sim: \(runs\|begins\|ends\)" "$work/trace.$steps" > "$work/log"
            fail "[$transfer] does not train:" "$work/log"
        }
    done
    planned "$work/plan.json" > "$work/planned"
    { traced "$work/trace.2" 1; traced "$work/trace.1" -1; } | totals > "$work/traced"
    grep -q " kernels " "$work/planned" || fail "[$transfer] no kernels in the plan:" "$work/plan.json"
    diff "$work/planned" "$work/traced" > "$work/log" ||
        fail "[$transfer] the plan (<) and the step (>), as \"device what count\":" "$work/log"
}

rm -rf "$work"
mkdir -p "$work" || exit 1
count=0
for entry; do
    model=${entry%%.mdl*}.mdl
    name=$(basename "$model" .mdl)
    options=${entry#"$model"}
    case $model in
    */tests/*)
        cp "$model" "$work/model.mdl" || exit 1
        ;;
    *)
        sh "$here/cut.sh" "$model" own > "$work/model.mdl"
        options="$options --set train.batch=8 --set parallel.microbatch=2"
        case $name in
        deep_mlp) options="$options -D width=64" ;;
        skip_cnn) options="$options -D width=8" ;;
        esac
        check nccl $options --set parallel.transfer=nccl
        ;;
    esac
    check peer $options --set parallel.transfer=peer
    count=$((count + 1))
done
[ $count -gt 0 ] || { echo "counts.sh: no models" >&2; exit 1; }
echo "counts.sh: the plans of $count models are what their steps launch"
