#!/bin/sh
# pages.sh MDLC PAGE - runs every fenced example of a page of the manual.
#
# In:  the compiler and a Markdown file. Out: exit code 1 and the place of each example that
#      does not do what the page says. What an example is, its info string says:
#
#     ```mdl [FILE]          a whole file: `mdlc check` passes and prints nothing; FILE keeps it
#     ```mdl fragment        statements of a model: wrapped by wrap_fragment below, then likewise
#     ```mdl items           items of a file: a small model stands after them, then likewise
#     ```mdl error           `mdlc check` fails and prints exactly the ```text block that follows
#     ```mdl warning         `mdlc check` passes and prints exactly the ```text block that follows
#     ```sh                  runs, and succeeds; a ```text block right after it is its output,
#                            in which a line of three dots stands for any number of lines
#     ```sh fails            likewise, but the last command fails
#     ```sh not run          commands that install, or take long
#     ```c MODEL FILE        stands, line by line, in FILE as emitted of MODEL; a line of three
#                            dots in a comment stands for any number of lines
#     ```cu MODEL FILE       likewise, emitted with --target cuda
#     ```csv FILE            a file of data
#     ```text sample, ```python, ```json, and ```text after none of the above: shown only
#
# All examples of a page run in one scratch directory, in their order, with mdlc in the PATH
# and the repository's models in models/.
set -u
mdlc=$1
page=$2
here=$(cd "$(dirname "$0")" && pwd) || exit 1
root=$(cd "$here/../.." && pwd) || exit 1
unset MDL_HOME CC
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM
mkdir "$scratch/tmp" "$scratch/cache" "$scratch/blocks" "$scratch/pages" "$scratch/emitted"
cp -r "$root/models" "$scratch/pages/models" || exit 1
# kernels for GPUs take long to compile: a cache of them may be given
export TMPDIR="$scratch/tmp" XDG_CACHE_HOME="${MDL_TEST_CACHE:-$scratch/cache}"
PATH=$(dirname "$mdlc"):$PATH
cd "$scratch/pages" || exit 1

failures=0
examples=0

fail()
{
    failures=$((failures + 1))
    printf '%s:%s: %s\n' "${page#"$root"/}" "$line" "$1"
    [ -z "${2-}" ] || sed 's/^/    /' "$2"
}

# Each block N of the page: N.body, and a line "N LINE INFO" in index.
cut_page()
{
    awk -v out="$scratch/blocks" '
        !inside && /^```/ { inside = 1; n++; at = NR; info = substr($0, 4); body = out "/" n ".body"
                            printf "%d %d %s\n", n, at, info > (out "/index")
                            printf "" > body; next }
        inside && /^```$/ { inside = 0; close(body); next }
        inside            { print > body }
        END { if (inside) { print "block without an end at line " at; exit 1 } }' "$1"
}

wrap_fragment()
{
    echo 'model example {'
    echo '    input  x : f32[64];'
    echo '    input  image : f32[3, 32, 32];'
    echo '    input  ids : i32[16];'
    echo '    target y : i32;'
    cat "$1"
    # what has no loss of its own is trained through the name `out`
    grep -q '^ *loss ' "$1" || echo '    loss cross_entropy(linear(flatten(out), 10) as the_end, y);'
    echo '}'
}

wrap_items()
{
    cat "$1"
    echo 'model example {'
    echo '    input  x : f32[64];'
    echo '    target y : i32;'
    echo '    for i in 0 .. 8 { x = relu(linear(x, 64) as layer[i]); }'
    echo '    loss cross_entropy(linear(x, 10) as last, y);'
    echo '}'
}

# check FILE CODE: runs mdlc check; what it prints is in ../said
check()
{
    mdlc check "$1" >../said 2>&1
    [ $? -eq "$2" ]
}

# The body of the block that follows, which must be text.
following_text()
{
    awk -v n="$(($1 + 1))" '$1 == n && $3 == "text" && $4 != "sample" { found = 1 } END { exit !found }' \
        "$scratch/blocks/index" && echo "$scratch/blocks/$(($1 + 1)).body"
}

run_mdl()
{
    body=$scratch/blocks/$1.body
    file=example.mdl
    case $2 in
    fragment) wrap_fragment "$body" >$file ;;
    items) wrap_items "$body" >$file ;;
    *.mdl)
        file=$2
        cp "$body" "$file"
        ;;
    *) cp "$body" $file ;;
    esac
    case $2 in
    error | warning)
        wanted=$(following_text "$1") || { fail "no text block with the message follows"; return; }
        code=0
        [ "$2" = warning ] || code=1
        check $file $code || fail "mdlc check does not exit with $code" ../said
        cmp -s "$wanted" ../said || fail "mdlc check prints another message" ../said
        ;;
    *)
        check $file 0 || fail "mdlc check fails" ../said
        [ ! -s ../said ] || fail "mdlc check is not silent" ../said
        ;;
    esac
}

run_sh()
{
    sh -eu "$scratch/blocks/$1.body" >../said 2>&1 </dev/null
    code=$?
    case $2 in
    fails) [ $code -ne 0 ] || fail "the commands do not fail" ../said ;;
    *) [ $code -eq 0 ] || fail "exit code $code" ../said ;;
    esac
    wanted=$(following_text "$1") || return
    awk -f "$here/stands_in.awk" -v whole=1 -v dots='^[.][.][.]$' "$wanted" ../said ||
        fail "prints something else" ../said
}

# run_c BLOCK MODEL FILE TARGET
run_c()
{
    model=$2
    emitted=../emitted/$4/$model
    [ -d "$emitted" ] || {
        mkdir -p "$emitted"
        mdlc emit -q --target "$4" "$model" -o "$emitted" || { fail "mdlc emit $model fails"; return; }
    }
    [ -f "$emitted/$3" ] || { fail "$model has no $3"; return; }
    awk -f "$here/stands_in.awk" -v whole=0 -v dots='^ *[/][*] [.][.][.] [*][/]$' \
        "$scratch/blocks/$1.body" "$emitted/$3" || fail "is not in the emitted $3"
}

line=0
cut_page "$page" || { fail "a block has no end"; exit 1; }
while read -r n line kind what more; do
    examples=$((examples + 1))
    case $kind in
    mdl) run_mdl "$n" "${what:-whole}" ;;
    sh) [ "${what-} ${more-}" = "not run" ] || run_sh "$n" "${what-}" ;;
    c) run_c "$n" "${what-}" "${more-}" host ;;
    cu) run_c "$n" "${what-}" "${more-}" cuda ;;
    csv) cp "$scratch/blocks/$n.body" "$what" ;;
    text | python | json) ;;
    '') fail "a block without a kind" ;;
    *) fail "blocks of kind $kind are not known" ;;
    esac
done <"$scratch/blocks/index"

printf '%s: %d examples, %d failures\n' "${page#"$root"/}" "$examples" "$failures"
[ "$examples" -gt 0 ] && [ "$failures" -eq 0 ]
