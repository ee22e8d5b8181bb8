#!/bin/sh
# schedules.sh - schedules from files: plans that are read back are the same, and however the runs
# are ordered, on whatever devices, the model learns the same to the bit.
#
# usage: schedules.sh MDLC MODELS WORK
set -u
mdlc=$1 models=$2 work=$3

fail()
{
    echo "schedules: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

rm -rf "$work"
mkdir -p "$work" && cd "$work" || exit 1

# ------------------------------------------------------------------------------- plans

# plain FILE: a plan without the name and the formula of its schedule
plain()
{
    sed '/^  "schedule": /d; /^    "formula": /d' "$1"
}

# back MODEL OPTION...: under every schedule, the plan from the file that the plan writes
back()
{
    model=$1
    shift
    for schedule in 1f1b gpipe interleaved zero_bubble zb_h2 zb_v searched; do
        "$mdlc" plan "$model" --target host --set parallel.schedule=$schedule "$@" \
            --csv order.csv --json plan.json > now.log 2>&1 || fail "$model $schedule:" now.log
        "$mdlc" plan "$model" --target host --set parallel.schedule=$schedule "$@" \
            --schedule-file order.csv --csv again.csv --json again.json > now.log 2>&1 ||
            fail "$model $schedule is not taken back:" now.log
        cmp -s order.csv again.csv || fail "$model $schedule: another order"
        plans=$((plans + 1))
        # what the model does not place is cut for the order, and a searched one is found last
        case $model-$schedule in three.mdl-searched) continue ;; esac
        plain plan.json > plan.txt
        plain again.json > again.txt
        [ "$(wc -l < plan.txt)" -gt 50 ] || fail "$model: no plan" plan.txt
        diff plan.txt again.txt > now.log || fail "$model $schedule: another plan" now.log
        grep -q '^  "schedule": "from order.csv"' again.json || fail "$model: whose schedule?"
    done
}

cat > free.mdl <<'MDL'
model free {
    input x : f32[24];
    target y : f32[24];
    for i in 0 .. 9 {
        x = tanh(linear(x, 24) as fc[i]);
    }
    loss mse(x, y);
}

train {
    batch = 8;
    optimizer = adam(lr = 1e-2);
    steps = 4;
    clip_norm = 1;
}

data train = synthetic();
MDL
sed 's/^data/parallel { microbatch = 1; }\ndevices gpu[3] = cpu;\n&/' free.mdl > three.mdl

plans=0
for model in two_gpu deep_mlp autoencoder skip_cnn fashion nanogpt vit; do
    back "$models/$model.mdl"
done
small="-D vocab=211 -D width=64 -D layers=4 -D heads=4 -D context=32"
back "$models/gpt2.mdl" $small
back "$models/llama.mdl" $small -D inner=160 -D kv_heads=2
back three.mdl
[ "$plans" -eq 70 ] || fail "$plans plans"

# ------------------------------------------------------------------------------ weights

# learns NAME MODEL OPTION...: NAME.weights, after four steps
learns()
{
    name=$1 model=$2
    shift 2
    "$mdlc" build -q "$model" --target host -o trainer "$@" > now.log 2>&1 ||
        fail "$name does not build:" now.log
    ./trainer -q --threads 1 --timeout 60 --export "$name.weights" > now.log 2>&1 ||
        fail "$name does not train:" now.log
}

# A V: chunks 0 and 3 on the first device, 1 and 2 on the second.
cat > v.csv <<'CSV'
0F0,0F1,0F2,3F0,3I0,3W0,3F1,3I1,3W1,0F3,0I0,0W0,3F2,3I2,3W2,0I1,0W1,3F3,3I3,3W3,0I2,0W2,,0I3,0W3
,1F0,2F0,1F1,2F1,2I0,2W0,1F2,1I0,1W0,2F2,2I1,2W1,1F3,1I1,1W1,2F3,2I2,2W2,1I2,2I3,1I3,1W2,2W3,1W3
CSV
# Four chunks on three devices in no order, B here and I and W there, W late.
cat > odd.csv <<'CSV'
1F0,,1F1,1F2,1F3,1I0,1W0,1B1,1I2,1I3,1W2,1W3
2F0,2F1,2B0,2I1,2F2,2F3,2I2,2W1,2W2,2B3
0F0,0F1,3F0,3B0,0F2,3F1,3I1,0F3,0B0,3W1,3F2,3F3,0B1,3B2,3B3,0I2,0I3,0W2,0W3
CSV
# Forward passes of all, then backward passes, on one device.
cat > one.csv <<'CSV'
0F0,0F1,1F0,1F1,0F2,1F2,0F3,1F3,1B0,1B1,0B0,1B2,0B1,1I3,0B2,0B3,1W3
CSV

learns f1b free.mdl --set parallel.microbatch=2
for schedule in v odd one; do
    learns $schedule free.mdl --schedule-file $schedule.csv
    cmp -s f1b.weights $schedule.weights || fail "$schedule: other weights than 1f1b's"
done
head -c 200 f1b.weights | grep -q fc.0.weight || fail "no weights"

# One sample apart is another order of sums: what is compared can differ.
learns other free.mdl --set parallel.microbatch=1
cmp -s f1b.weights other.weights && fail "the weights cannot differ"

"$mdlc" emit -q free.mdl --target host --schedule-file v.csv -o source || fail "no source"
grep -q 'schedule     from v.csv, 4 micro-batches of 2 samples' source/stage_0.c ||
    fail "the source does not name its schedule" source/stage_0.c
echo "ok: $plans plans, 3 schedules"
