#!/bin/sh
# deletions.sh - every wait and every event of an emitted stage is needed: each is deleted in
# turn, and the simulator reports the trainer that comes of it; as it is, it says nothing.
#
# usage: deletions.sh MDLC MODEL WORK OPTION...
#     OPTION... are options of mdlc build
set -u
mdlc=$1 model=$2 work=$3
shift 3
name=$(basename "$model" .mdl)
here=$(cd "$(dirname "$0")" && pwd) || exit 1
small="--set train.batch=8 --set parallel.microbatch=1"

fail()
{
    echo "$name: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

# run TRAINER: a step and more, then an evaluation
run()
{
    MDL_SIM_CHECK=race timeout 300 "$1" -q --steps 2 > "$work/out" 2> "$work/log"
}

rm -rf "$work"
mkdir -p "$work/src" || exit 1
sh "$here/cut.sh" "$model" own > "$work/model.mdl"
"$mdlc" emit -q --target sim $small "$@" "$work/model.mdl" -o "$work/src" || exit 1
"$mdlc" build -v --target sim $small "$@" "$work/model.mdl" -o "$work/whole" 2> "$work/commands" \
    > /dev/null || fail "does not build:" "$work/commands"

# How mdlc compiles a stage and links: everything between the compiler and "-c"; the words
# after the program's name, its libraries.
flags=$(sed -n 's/^cc \(.*\) -c [^ ]*stage_0.c .*$/\1/p' "$work/commands")
libraries=$(sed -n 's/^cc .*-o [^ ]*\/trainer \(-L.*\)$/\1/p' "$work/commands")
kernels=$(sed -n 's/^[^ ]*nvcc \(.*\) -c [^ ]*fused.cu .*$/\1/p' "$work/commands")
[ -n "$flags" ] && [ -n "$libraries" ] || fail "cannot tell the commands of a build:" "$work/commands"
# a library that was compiled just now is in mdlc's cache from the next build on
case $libraries in
*mdlc-*)
    "$mdlc" build -v --target sim $small "$@" "$work/model.mdl" -o "$work/whole" \
        2> "$work/commands" > /dev/null
    libraries=$(sed -n 's/^cc .*-o [^ ]*\/trainer \(-L.*\)$/\1/p' "$work/commands")
    ;;
esac
cd "$work/src" || exit 1
for file in *.c; do
    cc $flags -c "$file" -o "$file.o" || fail "$file does not compile"
done
if [ -f fused.cu ]; then
    "${NVCC:-nvcc}" $kernels -c fused.cu -o fused.cu.o || fail "fused.cu does not compile"
fi
cc $flags ./*.o -o "$work/trainer" $libraries || fail "does not link"
run "$work/trainer" || fail "is not silent as it is:" "$work/log"
[ -s "$work/log" ] && fail "is not silent as it is:" "$work/log"

deleted=0
for file in stage_*.c; do
    for line in $(grep -nE 'cudaStreamWaitEvent|cudaEventRecord' "$file" | cut -d: -f1); do
        sed "${line}s/.*/;/" "$file" > "$work/without.c"
        cc $flags -Wno-empty-body -I. -c "$work/without.c" -o "$work/without.o" ||
            fail "$file does not compile without line $line"
        objects=$(ls ./*.o | grep -v "^./$file.o$")
        cc $flags $objects "$work/without.o" -o "$work/trainer" $libraries || fail "does not link"
        run "$work/trainer"
        code=$?
        if [ $code -ne 86 ] || ! grep -q "^mdl-sim: " "$work/log"; then
            sed -n "${line}p" "$file" >&2
            fail "$file:$line: deleted, and nothing is reported (exit code $code)" "$work/log"
        fi
        deleted=$((deleted + 1))
    done
done
[ "$deleted" -gt 3 ] || fail "only $deleted lines to delete"
echo "$name $*: $deleted waits and events, each reported when it is missing"
