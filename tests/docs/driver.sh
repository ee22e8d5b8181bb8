#!/bin/sh
# driver.sh MDLC - pages.sh fails where it should: one wrong page for each kind of example.
set -u
mdlc=$1
here=$(cd "$(dirname "$0")" && pwd) || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
tick='```'

# page CODE NAME: the page on the standard input, in which ''' stands for the fence
page()
{
    sed "s/'''/$tick/" >"$work/page.md"
    sh "$here/pages.sh" "$mdlc" "$work/page.md" >"$work/out" 2>&1
    code=$?
    [ $code -eq "$1" ] || {
        echo "$2: exit code $code, not $1"
        cat "$work/out"
        status=1
    }
}

page 0 "all kinds, right" <<'END'
'''mdl fragment
out = relu(linear(x, 4) as a);
'''
'''mdl items
train { steps = 3; }
'''
'''mdl whole.mdl
model m { input x : f32[2]; loss mean(linear(x, 2)); }
'''
'''sh
mdlc check whole.mdl
printf 'a\nb\nc\n'
'''
'''text
a
...
c
'''
'''c whole.mdl stage_0.c
static int forward(Stage *s, int m)
/* ... */
    return MDL_OK;
'''
END
page 1 "no examples" <<'END'
Text only.
END
page 1 "a block without an end" <<'END'
'''sh
true
END
page 1 "a wrong fragment" <<'END'
'''mdl fragment
out = linear(nothing, 4);
'''
END
page 1 "wrong items" <<'END'
'''mdl items
train { stepz = 3; }
'''
END
page 1 "a warning that is not shown" <<'END'
'''mdl fragment
unused = linear(x, 4);
out = linear(x, 4);
'''
END
page 1 "an error that is none" <<'END'
'''mdl error
model m { input x : f32[2]; loss mean(linear(x, 2)); }
'''
'''text
example.mdl:1:1: error
'''
END
page 1 "an error with another message" <<'END'
'''mdl error
model m { }
'''
'''text
example.mdl:1:7: error: the model m has a loss
'''
END
page 1 "an error without a message" <<'END'
'''mdl error
model m { }
'''
END
page 1 "a command that fails" <<'END'
'''sh
false
true
'''
END
page 1 "a command that should fail" <<'END'
'''sh fails
true
'''
END
page 1 "another output" <<'END'
'''sh
echo one
'''
'''text
two
'''
END
page 1 "more output" <<'END'
'''sh
printf 'one\ntwo\n'
'''
'''text
one
'''
END
page 1 "another end of the output" <<'END'
'''sh
printf 'one\ntwo\nthree\n'
'''
'''text
one
...
two
'''
END
page 1 "C that is not emitted" <<'END'
'''mdl whole.mdl
model m { input x : f32[2]; loss mean(linear(x, 2)); }
'''
'''c whole.mdl stage_0.c
static int forward(Stage *s, int m)
    return MDL_FAILED;
'''
END
page 1 "an unknown kind" <<'END'
'''basic
10 PRINT
'''
END
exit $status
