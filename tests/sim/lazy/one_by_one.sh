#!/bin/sh
# one_by_one.sh NVCC SIM_DIR WORK_DIR - kernels are compiled one by one, when they are launched.
#
# The simulator's compiler is a script that counts its runs. Its first lines are the case's.
set -u
nvcc=$1 simulator=$2 work=$3
here=$(cd "$(dirname "$0")" && pwd) || exit 2
mkdir -p "$work" || exit 2
program=$work/one_by_one
failures=0

if ! [ "$program" -nt "$here/one_by_one.cu" ]; then
    "$nvcc" -std=c++17 -cudart shared -gencode arch=compute_80,code=compute_80 -no-compress \
        -lineinfo -g -Werror all-warnings -Xcompiler -Wall,-Wextra -o "$program" \
        "$here/one_by_one.cu" -lnccl || exit 2
fi
for setting in $(env | sed -n 's/^\(MDL_SIM_[A-Z]*\)=.*/\1/p'); do
    unset "$setting"
done
MDL_SIM_CACHE=$work/cache MDL_SIM_CC=$work/compiler LD_LIBRARY_PATH=$simulator
export MDL_SIM_CACHE MDL_SIM_CC LD_LIBRARY_PATH

# compiler LINES: what it does before it compiles; the cache is empty again
compiler()
{
    rm -rf "$work/cache" "$work/runs"
    mkdir "$work/runs" || exit 2
    cat >"$work/compiler" <<EOF
#!/bin/sh
runs=$work/runs
: >\$runs/\$\$
$1
exec cc "\$@"
EOF
    chmod +x "$work/compiler" || exit 2
}

# expect CODE OUTPUT RUNS WHAT ARGUMENT...: the program's exit code and output, and how often the
# compiler has run since its making
expect()
{
    code=$1 output=$2 runs=$3 what=$4
    shift 4
    timeout 120 "$program" "$@" >"$work/out" 2>"$work/err"
    got=$?
    count=$(find "$work/runs" -type f | wc -l)
    if [ "$got" -ne "$code" ] || [ "$(cat "$work/out")" != "$output" ] ||
        [ "$count" -ne "$runs" ] || { [ "$code" -eq 0 ] && [ -s "$work/err" ]; }; then
        printf 'FAIL  %s: exit code %s, "%s", %s runs of the compiler\n' "$what" "$got" \
            "$(cat "$work/out")" "$count"
        head -n 20 "$work/err" | sed 's/^/      | /'
        failures=$((failures + 1))
    else
        printf 'ok    %s\n' "$what"
    fi
}

compiler ''
expect 0 '7 8 7' 2 'what is not launched is not compiled' order add other
expect 0 '26 27 26' 3 'one more kernel of the module' order set add twice other
expect 0 '10 11 10' 3 'all of them are kept' order twice add other

compiler ''
expect 0 '16 17 16' 3 'variables are the module'"'"'s, whoever comes first' \
    order twice set add other

compiler ''
expect 0 8 1 'what is asked about a kernel' attributes

compiler ''
expect 86 '' 0 'an unknown instruction in what is launched' unknown
grep -q 'unknown: kernel not_simulated: mma.sync.aligned.m8n8k4' "$work/err" || {
    echo 'FAIL  the report does not name it'
    failures=$((failures + 1))
}

compiler ''
expect 0 168 2 'threads that launch the same kernels: each is compiled once' threads

# a thread that waits for another one, which compiles, is in no deadlock
compiler 'sleep 3'
export MDL_SIM_TIMEOUT=1
expect 0 21 1 'a kernel that compiles for long' late

[ "$failures" -eq 0 ]
