#!/bin/sh
# check.sh - the gradients of one model against differences, in double precision.
#
# usage: check.sh MDLC HOME CC MODEL WORK [option of mdlc …]
#     HOME holds include/mdl and lib/mdl; WORK is a directory to build in.
#
# Twice: as mdlc builds the model, where every weight's gradient must agree; and with the
# gradient of the loss made 1.001 times as large in the emitted source, where every
# weight's gradient must be found wrong. The second says that the first can fail: that no
# weight is out of the loss's reach or too small to be seen.
set -u
mdlc=$1 home=$2 cc=$3 model=$4 work=$5
shift 5

fail()
{
    echo "$model: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

rm -rf "$work"
mkdir -p "$work" || exit 1
set -- --target host --set train.precision=f64 "$@"
flags="-O1 ${MDL_CFLAGS:-}" # words of their own

CC=$cc MDL_CFLAGS="$flags -Werror" "$mdlc" build -q "$@" "$model" -o "$work/trainer" ||
    fail "does not build"
"$work/trainer" --check-gradients > "$work/log" 2>&1 ||
    fail "the gradients do not agree with differences:" "$work/log"
good=$(grep -c '^ok ' "$work/log")
[ "$good" -gt 0 ] || fail "no weight was checked:" "$work/log"

"$mdlc" emit -q "$@" "$model" -o "$work/source" || fail "cannot be emitted"
changed=0
for stage in "$work"/source/stage_*.c; do
    sed 's/\(fill(s->team, d_[A-Za-z0-9_]*(s[, m]*), \)\(0\.[0-9]*[1-9][0-9]*, B);\)/\11.001 * \2/' \
        "$stage" > "$work/corrupted.c"
    cmp -s "$stage" "$work/corrupted.c" || changed=$((changed + 1))
    mv "$work/corrupted.c" "$stage"
done
[ "$changed" -eq 1 ] || fail "$changed stages hold the gradient of the loss, not 1"
$cc -std=c17 $flags -ffp-contract=off -DMDL_F64 -I"$home/include/mdl" "$work"/source/*.c \
    -o "$work/corrupted" -L"$home/lib/mdl" -lmdl_rt_f64 -lmdl_kernels_f64 \
    -ljansson -lxxhash -lz -lpthread -lm || fail "the corrupted source does not compile"
"$work/corrupted" --check-gradients > "$work/log" 2>&1
status=$?
[ $status -eq 1 ] || fail "a corrupted gradient ends in $status, not 1:" "$work/log"
bad=$(grep -c '^BAD ' "$work/log")
[ "$bad" -eq "$good" ] || fail "of $good corrupted gradients $bad are seen:" "$work/log"
echo "$model: $good weights agree, and are seen when they do not"
rm -rf "$work"
