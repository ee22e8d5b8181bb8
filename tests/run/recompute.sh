#!/bin/sh
# recompute.sh - recompute = auto within a limit of memory: what is planned fits, some layers run
# again, and the weights are those of keeping everything, to the bit.
#
# usage: recompute.sh MDLC TARGET WORK SHARES MODEL…
#     TARGET: host or sim. SHARES: where the limits are between what recompute = full and what
#     recompute = none need, in percent, as "20,60". A MODEL may be followed by the precision:
#     gpt2.mdl:bf16
set -u
mdlc=$1 target=$2 work=$3 shares=$(echo "$4" | tr , ' ')
shift 4
here=$(cd "$(dirname "$0")/../cuda" && pwd) || exit 1
. "$here/../run/small_steps.sh"

# The bytes of the device that needs most.
most()
{
    sed -n 's/^ \{6,8\}"total": \([0-9]*\),*$/\1/p' "$1" | sort -n | tail -1
}

for model in "$@"; do
    name=$(basename "${model%:*}" .mdl)
    options=$(sh "$here/small.sh" "${model%:*}" | tr '\n' ' ')
    case $model in
    *:*)
        options="$options --set train.precision=${model#*:}"
        name="$name in ${model#*:}"
        ;;
    esac
    rm -rf "$work"
    mkdir -p "$work" || exit 1
    sh "$here/cut.sh" "${model%:*}" 2 > "$work/model.mdl"
    plan --set parallel.recompute=full
    low=$(most "$work/plan.json")
    plan
    high=$(most "$work/plan.json")
    train
    mv "$work/weights" "$work/first"
    [ "$low" -lt "$high" ] || fail "recompute = full needs $low bytes, none $high"
    for share in $shares; do
        limit=$((low + (high - low) * share / 100))
        set -- --set parallel.recompute=auto --set "devices.memory=$limit B"
        plan "$@"
        [ "$(most "$work/plan.json")" -le "$limit" ] || fail "needs more than the limit, $limit"
        again=$(sed -n 's/^ *"\(whole\|cheap\)": \([1-9][0-9]*\),*$/\2 \1/p' "$work/plan.json")
        # near what everything needs another split may do
        [ -n "$again" ] || [ "$share" -ge 80 ] || fail "nothing runs again within $limit bytes"
        train "$@"
        cmp -s "$work/first" "$work/weights" || fail "other weights within $limit bytes"
        echo "$name: $(most "$work/plan.json") bytes, layers again:" ${again:-none}
    done
done
