# small_steps.sh - for scripts that plan and train models made small: sourced, not run.
#
# In:  mdlc, target (host or sim), work (a directory), name and options (of the model at hand).

# The script's name is part of what it says: recompute: nanogpt: …
fail()
{
    echo "$(basename "$0" .sh): $name: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

# Leaves plan.json.
plan()
{
    "$mdlc" plan -q --target "$target" $options "$@" --json "$work/plan.json" "$work/model.mdl" \
        > "$work/log" 2>&1 || fail "no plan with $*:" "$work/log"
}

# Four steps, in silence, under the simulator looking for races. Leaves the weights.
train()
{
    "$mdlc" build -q --target "$target" $options "$@" "$work/model.mdl" -o "$work/trainer" \
        2> "$work/log" || fail "no trainer with $*:" "$work/log"
    MDL_SIM_CHECK=race "$work/trainer" -q --steps 4 --export "$work/weights" > "$work/log" 2>&1 ||
        fail "does not train with $*:" "$work/log"
    [ ! -s "$work/log" ] || fail "is not silent with $*:" "$work/log"
}
