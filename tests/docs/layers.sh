#!/bin/sh
# layers.sh - includes go in one direction only:
#
#     base <- syntax <- graph <- passes <- program <- emit <- main
#
# In:  the #include lines of the repository. Out: exit code 1 and every arrow the wrong way,
#      every file that is in no layer, and every exception below that is not needed any more.
#
# rt.h and kernels.h are leaves: they are what generated code sees, and include none of the
# compiler. The compiler includes none of them, and links neither library.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
cd "$root" || exit 1

includes()
{
    grep -Hn '^ *# *include *"' "$@" | sed 's/:\([0-9]*\): *# *include *"/ \1 /; s/".*//'
}

{
    includes compiler/*.c compiler/*.h grammar/*
    echo ---
} | awk '
function layer(number, names,    i, n, list)
{
    n = split(names, list, " ")
    for (i = 1; i <= n; i++)
        of[list[i]] = number
}
# Arrows that only take a declaration from the wrong header.
function except(from, to)
{
    excepted[from " " to] = 1
}
# What a file is called without its folder and ending.
function stem(path)
{
    sub(/.*\//, "", path)
    sub(/[.].*/, "", path)
    return path
}
BEGIN {
    split("base syntax graph passes program emit main", name, " ")
    layer(1, "base table diag diag_list diag_print diag_json jobs")
    layer(2, "front ast ast_show ast_dump parse lex syntax source fmt model model_parser")
    layer(3, "graph graph_dump settings.h ops")
    layer(4, "elaborate arith blocks calls calls_attention calls_image calls_layers calls_loss calls_tensor " \
             "calls_weights catalogue command_text eval layers limits match operations prune " \
             "scope settings settings_data settings_read settings_rows statements " \
             "cost grad grad_rules fuse.h")
    layer(5, "program simplify precision differentiate outline attempt split split_even recompute search split_room place fuse lower offload roll schedule schedule_zero schedule_pace schedule_search schedule_file schedule_runs communicate slots allocate " \
             "cost_gpu cost_gpu_image cost_gpu_launch cost_gpu_step order order_waits profile verify verify_memory verify_races verify_shape verify_values waits timeline timeline_links lifetimes names")
    layer(6, "emit emit_cmake emit_fused emit_gpu emit_map emit_offload emit_ops emit_tensors emit_schedule emit_stage emit_text emit_trainer emit_update " \
             "plan plan_layers compare search_text plan_trace report_text report_json csv dot svg svg_rows svg_text")
    layer(7, "main driver apply options help build cache doctor profile_file profile_measure profile_trace files_out report toolchain toolchain_gpu kernels_gpu")
}
function layer_of(file)
{
    return file in of ? of[file] : of[stem(file)]
}
$1 == "---" { whole = 1; next }
{
    from = $1
    sub(/.*\//, "", from)
    if (!layer_of(from) || !layer_of($3)) {
        printf "%s:%d: %s is in no layer\n", $1, $2, layer_of(from) ? $3 : from
        wrong = 1
    } else if (layer_of(from) < layer_of($3)) {
        if ((from " " $3) in excepted)
            used[from " " $3] = 1
        else {
            printf "%s:%d: %s (%s) must not include %s (%s)\n", $1, $2, from,
                   name[layer_of(from)], $3, name[layer_of($3)]
            wrong = 1
        }
    }
    arrows++
}
END {
    for (pair in excepted)
        if (!(pair in used)) {
            printf "layers.sh: the exception %s is not needed any more\n", pair
            wrong = 1
        }
    if (!whole || arrows < 50) {
        print "layers.sh: the includes were not read"
        wrong = 1
    }
    exit wrong
}' || exit 1

status=0

# leaf FILE ALLOWED: FILE includes nothing of ours but what ALLOWED lists
leaf()
{
    includes "$1" /dev/null | awk -v allowed=" $2 " 'index(allowed, " " $3 " ") == 0 { print $1 ":" $2 ": " $3; bad = 1 }
        END { exit bad }' || {
        echo "$1 is a leaf"
        status=1
    }
}
leaf runtime/rt.h "gpu.h kernels.h"
leaf runtime/rt_cuda.h rt.h
leaf kernels/cuda/gpu.h "half.h kernels.h"
leaf kernels/cuda/gpu_half.h "gpu.h half.h"
leaf kernels/kernels.h none
leaf kernels/half.h kernels.h
leaf kernels/vmath.h kernels.h

# outside FOLDER OF: no file in the first list includes a header of the second folder
crosses()
{
    for header in $2; do
        if grep -Hn "^ *# *include *[\"<]\(.*/\)\{0,1\}$(basename "$header")[\">]" $1; then
            echo "$3"
            status=1
        fi
    done
}
crosses "$(ls compiler/*.[ch] grammar/*)" "$(ls runtime/*.h kernels/*.h kernels/host/*.h)" \
    "the compiler includes neither the runtime nor the kernels"
crosses "$(ls runtime/*.[ch] kernels/*.h kernels/host/*.[ch])" "$(ls compiler/*.h)" \
    "the runtime and the kernels include nothing of the compiler"
crosses "$(ls kernels/*.h kernels/host/*.[ch])" "$(ls runtime/*.h)" \
    "the kernels include nothing of the runtime"

if grep -n 'mdl_rt\|mdl_kernels' compiler/CMakeLists.txt; then
    echo "mdlc links neither the runtime nor the kernels"
    status=1
fi
exit $status
