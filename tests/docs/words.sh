#!/bin/sh
# words.sh MDLC - the manual speaks of everything that there is.
#
# In:  the tables of the compiler, what the programs' --help prints, the pages. Out: exit code 1 and
#      every call, setting, data kind, device, option and command that its page leaves out; every link of a page
#      that leads nowhere; every command of the README that ./quickstart does not know.
set -u
mdlc=$1
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
cd "$root" || exit 1
status=0
count=0

# has PAGE TEXT WHAT
has()
{
    count=$((count + 1))
    grep -qF -- "$2" "$1" || {
        echo "$1: no word of the $3 $2"
        status=1
    }
}

# has_each PAGE BEFORE AFTER WHAT: every word of the standard input, between BEFORE and AFTER
has_each()
{
    seen=0
    while read -r word; do
        seen=$((seen + 1))
        has "$1" "$2$word$3" "$4"
    done <<END
$(cat)
END
    [ "$seen" -ge 3 ] || {
        echo "words.sh: the table of ${4}s was not read"
        status=1
    }
}

has_each docs/language.md '`' '(' call <<END
$(sed -n 's/^OP([A-Z0-9_]*, \([a-z0-9_]*\), ".*/\1/p; s/^MAP([A-Z0-9_]*, \([a-z0-9_]*\), ".*/\1/p; s/^SUGAR(\([a-z0-9_]*\),.*/\1/p' compiler/ops.def)
END
has docs/language.md '`attention`' "call that is not available yet"
has_each docs/language.md '`' '`' setting <<END
$(grep -o '{"[a-z_]*", read_[a-z_]*}' compiler/settings_rows.c | sed 's/{"//; s/".*//')
END
has_each docs/language.md '`' '`' device <<END
$(sed -n 's/^    {"\([a-z0-9_]*\)", .*/\1/p' compiler/catalogue.c)
END
has_each docs/language.md '' '(' "kind of data" <<END
$(sed -n '/kinds\[\] = {/,/;/p' compiler/settings_data.c | grep -o '"[a-z]*"' | tr -d '"')
END
has_each docs/language.md '`mdlc ' '' command <<END
$("$mdlc" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z]*\) .*/\1/p')
END
has_each docs/language.md '' '' option <<END
$("$mdlc" --help | grep -o '^  \(-[A-Z]\|--[a-z]*\)')
END

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
"$mdlc" build -q models/two_gpu.mdl -o "$work/trainer" || exit 1
has_each docs/trainer.md '`' '' option <<END
$("$work/trainer" --help | grep -o '^  --*[a-z][a-z-]*')
END

for page in *.md docs/*.md docs/adr/*.md; do
    grep -o ']([^)]*)' "$page" | sed 's/^](//; s/)$//; s/#.*//' | while read -r link; do
        case $link in
        '' | http*) continue ;;
        esac
        [ -e "$(dirname "$page")/$link" ] || echo "$page: no file $link"
    done >"$work/dead"
    # within a page and to another: every #anchor is a heading there
    grep -o ']([^)]*#[^)]*)' "$page" | sed 's/^](//; s/)$//' | while IFS='#' read -r file anchor; do
        case $file in
        http*) continue ;;
        '') file=$page ;;
        *) file=$(dirname "$page")/$file ;;
        esac
        sed -n 's/^##* //p' "$file" 2>/dev/null | tr 'A-Z ' 'a-z-' | sed 's/[^a-z0-9_-]//g' |
            grep -qx -- "$anchor" || echo "$page: no heading #$anchor in $file"
    done >>"$work/dead"
    [ ! -s "$work/dead" ] || {
        cat "$work/dead"
        status=1
    }
done

# every ./quickstart of the README is a case of the script
[ -x quickstart ] || { echo "quickstart cannot be run"; status=1; }
commands=0
for what in $(sed -n 's/^\.\/quickstart *\(.*\)/:\1/p' README.md); do
    commands=$((commands + 1))
    what=${what#:}
    grep -q "^${what:-train})" quickstart || { echo "README.md: ./quickstart $what is no command"; status=1; }
done
[ "$commands" -ge 2 ] || { echo "README.md: the two commands are missing"; status=1; }

echo "$count words looked for"
[ "$count" -ge 100 ] || status=1
exit $status
