#!/bin/sh
# bugs.sh NVCC SIM_DIR WORK_DIR [CASE...] - planted bugs that the simulated GPU must report.
#
# Compiles the programs of bugs/ and runs every case that their comments describe (bug.h says
# how), or those that are named. With its bug, a case must end with exit code 86 and a report
# of the expected kind and words, for each of ten seeds. Its twin without the bug must compute
# the right results and say nothing, for each of ten seeds and in every other schedule, with
# and without race checking. Prints a line for each case.
set -u

# bugs.sh --one FILE CASE: one case of a compiled program; $work and $sources are set.
if [ "$1" = --one ]; then
    program=$work/$(basename "$2" .cu)
    case_name=$3
    report=$work/$case_name.err
    output=$work/$case_name.out
    result=$work/$case_name.result

    # the comment line "// KEY: ..." of the case
    about()
    {
        awk -v key="// $1: " -v name="$case_name" '
            index($0, "// case: ") == 1 { mine = $3 == name }
            mine && index($0, key) == 1 { print substr($0, length(key) + 1) }
        ' "$2"
    }

    # expected words, one a line, with here:MARK as FILE:LINE
    expected=$(about expect "$2" | awk -F'  +' -v file="$2" '
        BEGIN {
            base = file
            sub(/.*\//, "", base)
            while ((getline line < file) > 0) {
                ++n
                if (match(line, /\/\* here: [a-z_]+ \*\//))
                    at[substr(line, RSTART + 9, RLENGTH - 12)] = base ":" n
            }
        }
        { for (i = 1; i <= NF; ++i) {
            word = $i
            if (sub(/^here:/, "", word))
                word = word in at ? at[word] : "no mark " word
            print word
        } }')
    with=$(about with "$2")

    fail()
    {
        {
            printf 'FAIL  %s: %s\n' "$case_name" "$1"
            head -n 20 "$report" | sed 's/^/      | /'
        } >"$result"
        exit 0
    }

    : >"$report"
    [ -n "$expected" ] || fail "no expectation"

    # run good|bug SETTING...: the case in an environment of these settings
    run()
    {
        side=$1
        shift
        # settings are words
        # shellcheck disable=SC2086
        env $with "$@" timeout 60 "$program" "$case_name" "$side" >"$output" 2>"$report"
        code=$?
    }

    good()
    {
        run good "$@"
        [ "$code" -eq 0 ] || fail "$*: without the bug: exit code $code"
        [ ! -s "$report" ] || fail "$*: without the bug: a report"
        [ "$(cat "$output")" = right ] || fail "$*: without the bug: no results"
    }

    bug()
    {
        run bug "$@"
        [ "$code" -eq 86 ] || fail "$*: with the bug: exit code $code"
        kind=$(printf '%s\n' "$expected" | head -n 1)
        grep -qE "^mdl-sim: ($kind): " "$report" || fail "$*: no finding \"$kind\""
        missing=$(printf '%s\n' "$expected" | tail -n +2 | while read -r word; do
            grep -qF -e "$word" "$report" || printf ' "%s"' "$word"
        done)
        [ -z "$missing" ] || fail "$*: the report lacks$missing"
    }

    for seed in 1 2 3 4 5 6 7 8 9 10; do
        good MDL_SIM_SEED="$seed"
        bug MDL_SIM_SEED="$seed"
    done
    for schedule in eager fifo lifo; do
        good MDL_SIM_SCHEDULE="$schedule"
    done
    good MDL_SIM_CHECK=fast
    printf 'ok    %s\n' "$case_name" >"$result"
    exit 0
fi

nvcc=$1
simulator=$2
work=$3
shift 3
sources=$(cd "$(dirname "$0")/bugs" && pwd) || exit 2
mkdir -p "$work" || exit 2
export work sources

# two at a time; a program is compiled again when it is older than its source
printf '%s\n' "$sources"/*.cu | xargs -P 2 -I {} sh -c '
    nvcc=$0 source=$1
    program=$work/$(basename "$source" .cu)
    if [ "$program" -nt "$source" ] && [ "$program" -nt "$sources/bug.h" ]; then
        exit 0
    fi
    libraries=
    grep -q cublas "$source" && libraries="-lcublas -lcublasLt"
    grep -q nccl "$source" && libraries="$libraries -lnccl"
    "$nvcc" -cudart shared -gencode arch=compute_80,code=compute_80 -no-compress -lineinfo -g \
        -Werror all-warnings -Xcompiler -Wall,-Wextra -o "$program" "$source" $libraries
' "$nvcc" {} || exit 2

# a test that asks for a setting gets it from its own line only
for setting in $(env | sed -n 's/^\(MDL_SIM_[A-Z]*\)=.*/\1/p'); do
    unset "$setting"
done
MDL_SIM_CACHE=$work/cache
LD_LIBRARY_PATH=$simulator${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export MDL_SIM_CACHE LD_LIBRARY_PATH

# FILE CASE, for all cases or those named
grep -H '^// case: ' "$sources"/*.cu | sed 's/^\([^:]*\):\/\/ case: \([a-z_0-9]*\).*/\1 \2/' |
    while read -r file name; do
        for wanted in "${@:-$name}"; do
            [ "$wanted" != "$name" ] || printf '%s %s\n' "$file" "$name"
        done
    done >"$work/cases"
rm -f "$work"/*.result
xargs -P 2 -L 1 sh "$0" --one <"$work/cases"
passed=0
failed=0
while read -r file name; do
    cat "$work/$name.result"
    if grep -q '^ok' "$work/$name.result"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
done <"$work/cases"
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
