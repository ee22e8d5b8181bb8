#!/bin/sh
# cli.sh MDLC CASE - runs case_CASE in a directory of its own and fails at the first thing
# that is not as it should be. Each case uses `mdlc`, and says what it expects with
#     run CODE ARGS...      runs mdlc; its exit code must be CODE; fills $out and $err
#     has TEXT WHAT, lacks  what $out or $err must hold
set -u
mdlc=$1
case_name=$2
unset MDL_HOME CC
here=$(mktemp -d) || exit 1
trap 'rm -rf "$here"' EXIT
trap 'exit 1' INT TERM
mkdir "$here/work" "$here/tmp" "$here/cache" "$here/bin"
export TMPDIR="$here/tmp" XDG_CACHE_HOME="$here/cache"
cd "$here/work" || exit 1

fail()
{
    printf 'FAIL %s: %s\n' "$case_name" "$1"
    printf -- '-- stdout\n%s\n-- stderr\n%s\n' "${out-}" "${err-}"
    exit 1
}

run()
{
    want=$1
    shift
    what="mdlc $*"
    "$mdlc" "$@" >"$here/out" 2>"$here/err" </dev/null
    code=$?
    out=$(cat "$here/out")
    err=$(cat "$here/err")
    [ "$code" -eq "$want" ] || fail "$what: exit code $code, not $want"
}

has()
{
    case $2 in
    *"$1"*) ;;
    *) fail "$what: no \"$1\"" ;;
    esac
}

lacks()
{
    case $2 in
    *"$1"*) fail "$what: has \"$1\"" ;;
    esac
}

# wrong TEXT ARGS...: exit code 2, one line on stderr that holds TEXT, nothing on stdout
wrong()
{
    text=$1
    shift
    run 2 "$@"
    has "$text" "$err"
    [ -z "$out" ] || fail "$what: writes to stdout"
    [ "$(wc -l <"$here/err")" -eq 1 ] || fail "$what: more than one line"
    case $err in
    "mdlc: "*) ;;
    *) fail "$what: does not say who speaks" ;;
    esac
}

no_leftovers()
{
    [ -z "$(ls -A "$here/tmp")" ] || fail "$what: leaves $(ls -A "$here/tmp")"
}

# model NAME STAGES: a model with that many stages
model()
{
    {
        echo "model $1 {"
        echo "    input  x : f32[12];"
        echo "    target y : i32;"
        echo
        previous=x
        stage=0
        while [ "$stage" -lt "$2" ]; do
            echo "    layer$stage = linear($previous, 5) @gpu[$stage];"
            previous=layer$stage
            stage=$((stage + 1))
        done
        echo
        echo "    loss cross_entropy($previous, y);"
        echo "}"
        echo
        echo "train {"
        echo "    batch     = 8;"
        echo "    optimizer = sgd(lr = 0.1);"
        echo "    steps     = 3;"
        echo "}"
        echo
        echo "data train = synthetic();"
    } >"$1.mdl"
}

# ------------------------------------------------------------------------------ cases

case_version()
{
    run 0 --version
    has "mdlc " "$out"
    [ "$(wc -l <"$here/out")" -eq 1 ] || fail "more than one line"
    run 0 build --version
    has "mdlc " "$out"
}

case_help()
{
    run 0 --help
    for command in build run emit plan profile check fmt doctor; do
        has "  $command " "$out"
    done
    has "Exit codes" "$out"
    for command in build run emit plan profile check fmt doctor; do
        run 0 "$command" --help
        has "Usage: mdlc $command" "$out"
        has "Example" "$out"
        has "  mdlc $command" "$out"
        [ -z "$err" ] || fail "$what: writes to stderr"
        cp "$here/out" "$here/help"
        run 0 help "$command"
        cmp -s "$here/out" "$here/help" || fail "$what: differs from mdlc $command --help"
    done
    run 0 plan --help
    for option in --json --svg --dot --csv --trace; do
        has "$option=FILE" "$out"
    done
    run 0 fmt --help
    has "--check" "$out"
    lacks "--dump" "$out"
    run 2
    has "Usage: mdlc" "$err"
    wrong "did you mean build?" help biuld
    "$mdlc" --help >/dev/full 2>/dev/null && fail "help to a full disk succeeds"
    return 0
}

case_wrong_use()
{
    model m 1
    wrong "unknown command biuld; did you mean build?" biuld m.mdl
    wrong "unknown command chekc; did you mean check?" chekc m.mdl
    wrong "build, run, emit, plan, profile, check, fmt or doctor" wxyz m.mdl
    wrong "which command? For instance: mdlc build m.mdl" m.mdl
    wrong "needs a model" check
    wrong "b.mdl is one operand too many" check m.mdl b.mdl
    wrong "after --" run m.mdl 5
    wrong "mdlc doctor takes none" doctor m.mdl
    wrong "unknown option --verbos-; did you mean --verbose?" check m.mdl --verbos-
    wrong "unknown option -x" check -vx m.mdl
    wrong "options of the trainer go after --" run m.mdl --steps 5
    wrong "-o needs a value" build m.mdl -o
    wrong "--set needs a value" check m.mdl --set
    wrong "takes no value" fmt --check=yes m.mdl
    wrong "does not take --svg, which is for plan" check m.mdl --svg x.svg
    wrong "does not take --check, which is for fmt" build --check m.mdl
    wrong "does not take --output" plan -o x m.mdl
    wrong "communicate, order, allocate, ast, graph, gradients or program; did you mean graph?" \
        check m.mdl --dump=grahp
    wrong "host, cuda or sim" check m.mdl --target=tpu
    wrong "it takes names such as sm_80" build m.mdl --target cuda --gpu-arch=80
    wrong "it takes names such as sm_80" build m.mdl --target cuda --gpu-arch=sm_80,
    wrong "--gpu-arch is for --target cuda; the target is host" build m.mdl --target host \
        --gpu-arch=sm_80
    wrong "--gpu-arch is for --target cuda; the target is sim" run m.mdl --target sim \
        --gpu-arch=sm_80
    wrong "--lineinfo is for --target cuda or sim; the target is host" build m.mdl --lineinfo \
        --target host
    wrong "text or json" check m.mdl --diagnostics=xml
    wrong "NAME=VALUE" check m.mdl -D width
    wrong "NAME=VALUE" check m.mdl -D =3
    wrong "BLOCK.KEY=VALUE" check m.mdl --set train.batch
    wrong "two outputs" plan m.mdl --json a --csv a
    [ "$(ls)" = m.mdl ] || fail "files were made: $(ls)"
}

case_inputs()
{
    model m 1
    wrong "cannot open none.mdl: No such file" check none.mdl
    wrong "did you mean m.mdl?" check m
    wrong "is a directory" check .
    wrong "cannot open" check ""
    wrong "cannot open" fmt none.mdl
    run 0 check ./m.mdl
    run 0 -q check m.mdl --dump=ast
    has "layer0" "$out"
    run 0 check -- m.mdl
    cp m.mdl ./-dash.mdl
    run 0 check -- -dash.mdl
    "$mdlc" check - <m.mdl || fail "standard input"
    mkfifo pipe
    cat m.mdl >pipe &
    "$mdlc" check pipe || fail "a pipe"
    wait
}

case_exit_codes()
{
    model m 2
    run 0 check m.mdl
    [ -z "$out$err" ] || fail "$what: is not silent"
    echo 'model bad { input x : f32[4]; y = linear(z, 3); }' >bad.mdl
    for command in build run emit check; do
        run 1 "$command" bad.mdl
        has "bad.mdl:1:" "$err"
        has "error" "$err"
    done
    [ "$(ls)" = "bad.mdl
m.mdl" ] || fail "a wrong model made files: $(ls)"
    run 1 check m.mdl --set train.batch=zero
}

case_diagnostics()
{
    echo 'model bad { input x : f32[4]; y = linear(z, 3); }' >bad.mdl
    run 1 check --diagnostics=json bad.mdl
    case $err in
    "["*'"severity"'*"]") ;;
    *) fail "$what: not JSON" ;;
    esac
}

case_emit()
{
    model m 3
    run 0 emit m.mdl
    has "m_src: stage_0.c ... stage_2.c trainer.c CMakeLists.txt" "$out"
    run 0 emit -q m.mdl -o deep/er/src
    [ -z "$out$err" ] || fail "$what: is not silent"
    diff -r m_src deep/er/src >/dev/null || fail "two emits differ"
    grep -rF "$here" m_src && fail "a path of this machine is in the output"
    run 0 emit m.mdl
    diff -r m_src deep/er/src >/dev/null || fail "a second emit to the same place differs"

    echo "/* stage_7.c by hand */" >m_src/stage_7.txt
    echo "int mine;" >m_src/stage_9.c
    model two 2
    run 0 emit two.mdl -o m_src
    [ ! -e m_src/stage_2.c ] || fail "a stage of the old model is left"
    [ -e m_src/stage_7.txt ] && [ -e m_src/stage_9.c ] || fail "somebody's file was removed"
    model one 1
    run 0 emit one.mdl
    has "one_src: stage_0.c trainer.c" "$out"
}

case_emit_foreign()
{
    model m 1
    mkdir src
    echo "project(mine)" >src/CMakeLists.txt
    run 2 emit m.mdl -o src
    has "src/CMakeLists.txt" "$err"
    [ "$(cat src/CMakeLists.txt)" = "project(mine)" ] || fail "it was replaced"
    [ "$(ls src)" = CMakeLists.txt ] || fail "some files were written all the same"
    echo text >file
    wrong "not a directory" emit m.mdl -o file
    wrong "m.mdl" emit m.mdl -o m.mdl
    [ "$(cat file)" = text ] || fail "the file was changed"
}

case_fmt()
{
    printf 'model   m{input x:f32[4];target y:i32; # note\na=linear(x,3);loss cross_entropy(a,y);}' \
        >m.mdl
    cp m.mdl before.mdl
    run 1 fmt --check m.mdl
    has "m.mdl" "$err"
    cmp -s m.mdl before.mdl || fail "--check changed the file"
    chmod 640 m.mdl
    ln -s m.mdl link.mdl
    run 0 fmt link.mdl
    [ -L link.mdl ] || fail "the link became a file"
    has "rw-r-----" "$(ls -l m.mdl)"
    grep -q '# note' m.mdl || fail "the comment is gone"
    run 0 fmt --check m.mdl
    cp m.mdl once.mdl
    run 0 fmt m.mdl
    cmp -s m.mdl once.mdl || fail "a second fmt changes something"
    "$mdlc" fmt - <before.mdl | cmp -s - once.mdl || fail "fmt - differs"
    echo 'model {' >bad.mdl
    run 1 fmt bad.mdl
    [ "$(cat bad.mdl)" = 'model {' ] || fail "a file with errors was changed"
}

case_doctor()
{
    run 0 doctor
    for part in "C compiler       ok" "jansson          ok" "xxhash           ok" \
        "zlib             ok" "runtime          ok" "runtime, f64     ok" "cores" "nvcc" "GPU"; do
        has "$part" "$out"
    done
    has "The host target works here." "$out"
    case $out in
    *"simulated GPU    ok"*) has "The target sim does, too." "$out" ;;
    *) lacks "The target sim does" "$out" ;;
    esac
    case $out in
    *"GPU              -"*) lacks "The target cuda does" "$out" ;;
    *) has "The target cuda does, too." "$out" ;;
    esac
    NVCC=no-such-nvcc
    export NVCC
    run 0 doctor
    has "The host target works here. The targets cuda and sim do not." "$out"
    unset NVCC
    run 0 doctor -q
    [ -z "$out" ] || fail "$what: is not silent"
    run 0 doctor -v
    has "-lz" "$err"

    CC=no-such-compiler
    export CC
    run 2 doctor
    has "apt install gcc" "$out"
    CC=false
    run 2 doctor
    has "does not work here" "$out"
    # a compiler without xxhash
    printf '#!/bin/sh\ncase "$*" in *-lxxhash*) exit 1 ;; esac\nexec cc "$@"\n' >"$here/bin/cc1"
    chmod +x "$here/bin/cc1"
    CC=$here/bin/cc1
    run 2 doctor
    has "apt install libxxhash-dev" "$out"
    has "zlib             ok" "$out"
    unset CC
    MDL_HOME=/nowhere
    export MDL_HOME
    run 2 doctor
    has "MDL_HOME" "$out"
    no_leftovers
}

case_build()
{
    model m 2
    run 0 build m.mdl
    has "m: 2 stages, " "$out"
    has "built in" "$out"
    ./m --steps 2 >/dev/null || fail "the trainer does not run"
    run 0 build m.mdl -q -o other
    [ -z "$out$err" ] || fail "$what: is not silent"
    case ${MDL_CFLAGS:-} in
    *sanitize*) echo "not compared: sanitizers write the directory into the trainer" ;;
    *) cmp -s m other || fail "two builds differ" ;;
    esac
    run 0 build m.mdl -v
    has "stage_1.c" "$err"
    CC="env cc"
    export CC
    run 0 build m.mdl -o by_words
    unset CC
    run 0 build m.mdl --set train.precision=f64 -o double
    ./double --steps 2 >/dev/null || fail "the trainer in double precision does not run"
    "$mdlc" build -q - <m.mdl && [ -x trainer ] || fail "standard input"
    mkdir "a b;c"
    run 0 build m.mdl -o "a b;c/t'r"
    [ -x "a b;c/t'r" ] || fail "a name with odd characters"
    no_leftovers
}

case_build_failures()
{
    model m 2
    wrong "is a directory" build m.mdl -o .
    wrong "cannot write into" build m.mdl -o none/m
    cp m.mdl noext
    wrong "would replace noext" build noext
    mkdir m
    wrong "is a directory" build m.mdl
    rmdir m
    CC=no-such-compiler
    export CC
    run 2 build m.mdl
    has "no-such-compiler" "$err"
    has "apt install gcc" "$err"
    unset CC
    saved=${MDL_CFLAGS-}
    export MDL_CFLAGS="$saved -no-such-flag"
    run 2 build m.mdl
    has "no-such-flag" "$err"
    lacks "bug" "$err"
    MDL_HOME=/nowhere
    export MDL_HOME
    wrong "MDL_HOME" build m.mdl
    unset MDL_HOME
    no_leftovers

    MDL_CFLAGS="$saved -Dstage_1=1"
    run 3 build m.mdl
    has "bug in the compiler" "$err"
    has "error:" "$err"
    kept=$(ls -d "$here"/tmp/mdlc-*)
    has "kept in $kept" "$err"
    [ -e "$kept/stage_1.c" ] || fail "the source is not kept"
    [ ! -e m ] || fail "there is a trainer"
    MDL_CFLAGS=$saved
    TMPDIR=/nowhere
    wrong "TMPDIR" build m.mdl
}

case_build_interrupted()
{
    model m 2
    printf '#!/bin/sh\necho $$ >>%s\nexec sleep 60\n' "$here/begun" >"$here/bin/slow"
    chmod +x "$here/bin/slow"
    what="an interrupted build"
    CC=$here/bin/slow "$mdlc" build m.mdl &
    pid=$!
    tries=0
    until [ -s "$here/begun" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || fail "the compiler does not begin"
        sleep 0.1
    done
    kill -TERM "$pid"
    wait "$pid"
    code=$?
    [ "$code" -eq 143 ] || fail "exit code $code, not that of the signal"
    for job in $(cat "$here/begun"); do
        kill -0 "$job" 2>/dev/null && fail "a compiler still runs"
    done
    [ ! -e m ] || fail "there is a trainer"
    no_leftovers
}

case_run()
{
    model m 2
    run 0 run m.mdl -- --steps 2
    has "built in" "$err"
    lacks "built in" "$out"
    has "2" "$out"
    run 0 run m.mdl
    lacks "built in" "$err"
    run 0 run m.mdl -- --help
    has "--steps" "$out"
    run 2 run m.mdl -- --no-such-option
    [ "$(ls "$here/cache/mdlc" | wc -l)" -eq 1 ] || fail "the cache holds more than one"
    run 0 run m.mdl --set train.batch=4 -q
    [ "$(ls "$here/cache/mdlc" | wc -l)" -eq 2 ] || fail "another model is not another entry"

    # no place to keep it: it runs all the same, and nothing is left
    XDG_CACHE_HOME=relative
    HOME=/dev/null
    export HOME
    run 0 run m.mdl -- --steps 1
    no_leftovers
    XDG_CACHE_HOME=$here/shared
    mkdir -p "$here/shared/mdlc"
    chmod 777 "$here/shared/mdlc"
    run 0 run m.mdl -- --steps 1
    [ -z "$(ls -A "$here/shared/mdlc")" ] || fail "a directory that anyone may write to is used"
}

case_run_at_once()
{
    model m 2
    for i in 1 2 3 4; do
        "$mdlc" run m.mdl -- --steps 2 >"$here/out$i" 2>&1 &
        eval "pid$i=\$!"
    done
    for i in 1 2 3 4; do
        eval "wait \$pid$i" || fail "run $i: $(cat "$here/out$i")"
    done
    [ "$(ls "$here/cache/mdlc" | wc -l)" -eq 1 ] || fail "the cache: $(ls "$here/cache/mdlc")"
    what="runs at once"
    no_leftovers
}

case_profile()
{
    cat >m.mdl <<'END'
model m {
    input  x : f32[64];
    target y : f32[64];
    for i in 0 .. 4 {
        x = relu(linear(x, 64) as fc[i]);
    }
    loss mse(x, y);
}
train { batch = 8; optimizer = sgd(lr = 0.1); steps = 3; }
parallel { microbatch = 2; }
devices gpu[2] = cpu;
data train = synthetic();
END
    run 0 profile m.mdl -- --threads 1
    has "wrote m.profile.json: 5 layers; a step takes " "$err"
    [ -z "$out" ] || fail "$what: writes to stdout"
    [ "$(ls)" = "m.mdl
m.profile.json" ] || fail "files: $(ls)"
    text=$(cat m.profile.json)
    has '"model": "m"' "$text"
    has '"threads": 1' "$text"
    has '{"layer": "fc.3", "F": ' "$text"
    lacks '"link": null' "$text"
    lacks '"update": null' "$text"
    [ "$(grep -c '"F": [0-9.e-]*[1-9]' m.profile.json)" -eq 5 ] || fail "a layer takes no time"
    no_leftovers

    for schedule in 1f1b gpipe interleaved zero_bubble zb_h2 zb_v searched; do
        run 0 plan m.mdl --profile m.profile.json --set parallel.schedule=$schedule
        has "from measured times" "$out"
        has "from m.profile.json: " "$out"
    done
    run 0 plan m.mdl --profile m.profile.json --json -
    has '"profile": "m.profile.json"' "$out"
    run 0 check m.mdl --profile m.profile.json
    run 0 run m.mdl --profile m.profile.json -- --steps 1 -q
    run 0 build m.mdl --profile m.profile.json -q -o trainer
    run 0 emit m.mdl --profile m.profile.json -q -o source
    grep -q 'phase_begin(s, .F., 0, m)' source/stage_0.c || fail "no phase in the trainer"

    # the first layer is said to take far longer: it is alone on its device
    sed 's/\("layer": "fc.0", "F": \)[^,]*/\11/' m.profile.json >heavy.json
    run 0 check m.mdl --profile heavy.json --dump=place
    has "chunk 0  device 0  linear  fc.0" "$out"
    has "chunk 1  device 1  linear  fc.1" "$out"
    sed 's/\("layer": "fc.3", "F": \)[^,]*/\11/' m.profile.json >heavy.json
    run 0 check m.mdl --profile heavy.json --dump=place
    has "chunk 0  device 0  linear  fc.2" "$out"
    has "chunk 1  device 1  linear  fc.3" "$out"

    run 1 plan m.mdl --profile m.profile.json --set parallel.microbatch=4
    has "micro-batches of 2, and the model has micro-batches of 4" "$err"
    run 1 plan m.mdl --profile m.profile.json --set train.precision=bf16
    has "precision f32, and the precision is bf16" "$err"
    sed 's/0 \.\. 4/0 .. 3/' m.mdl >short.mdl
    run 1 plan short.mdl --profile m.profile.json
    has "with other layers" "$err"
    run 2 plan m.mdl --profile m.mdl
    has "m.mdl:1:5: it is not JSON" "$err"
    run 2 plan m.mdl --profile none.json
    has "cannot read the profile none.json: No such file" "$err"
    wrong "the target is sim" plan m.mdl --profile m.profile.json --target sim
    wrong "is the profile itself" plan m.mdl --profile m.profile.json --json m.profile.json
    wrong "does not take --profile" profile m.mdl --profile m.profile.json
    wrong "cannot write into none/" profile m.mdl -o none/p.json
    run 2 profile m.mdl -q -o failed.json -- --no-such-option
    has "the trainer failed" "$err"
    [ ! -e failed.json ] || fail "a profile of nothing"
    run 0 profile m.mdl -q -o again.json --set parallel.schedule=zero_bubble
    [ -z "$out$err" ] || fail "$what: says something"
    run 0 plan m.mdl --profile again.json -q
    no_leftovers
}

case_outputs()
{
    model m 1
    cp m.mdl before
    wrong "is the model itself" build m.mdl -o ./m.mdl
    wrong "is the model itself" plan m.mdl --json m.mdl
    cmp -s m.mdl before || fail "the model was changed"
    run 2 build m.mdl -o /dev/full
    has "No space left" "$err"
    run 0 build m.mdl -o /dev/null
    [ -c /dev/null ] || fail "/dev/null was replaced"
    echo old >t
    chmod 600 t
    run 0 build m.mdl -o t
    has "rwx" "$(ls -l t)"
    no_leftovers
}

step_of()
{
    sed -n 's/.*"step_seconds": \([0-9.e+-]*\).*/\1/p' "$1"
}

case_compare()
{
    model m 2
    run 0 build m.mdl --set parallel.microbatch=2 -o trainer -q
    ./trainer --steps 5 -q --threads 1 --trace trace.json || fail "the trainer fails"
    run 0 plan m.mdl --set parallel.microbatch=2 --compare trace.json --svg m.svg
    has "planned and measured (step " "$out"
    [ "$(grep -c '^  .* measured .*idle' "$here/out")" -eq 2 ] || fail "not a row for each device"
    has " of the plan" "$out"
    # both steps are drawn: each of 4 micro-batches, F and B, on 2 devices, twice
    has "measured" "$(cat m.svg)"
    run 0 plan m.mdl --set parallel.microbatch=2 --svg plain.svg -q
    planned=$(grep -o 'class="d"' plain.svg | wc -l)
    [ "$(grep -o 'class="d"' m.svg | wc -l)" -eq $((2 * planned)) ] || fail "no second set of rows"

    wrong "is no file of at most" plan m.mdl --compare missing.json
    wrong "is no file of at most" plan m.mdl --compare /dev/zero
    for bad in '' '[]' '{"traceEvents": 1}' '{"traceEvents": [{"ph": "X"}]}' 'nonsense'; do
        printf '%s' "$bad" >bad.json
        run 1 plan m.mdl --compare bad.json
        has "bad.json: this is no trace of a trainer" "$err"
    done
    run 1 plan m.mdl --set parallel.microbatch=4 --compare trace.json
    has "is no action of this plan, which has 2 chunks and 2 micro-batches" "$err"
    run 1 plan m.mdl --set parallel.microbatch=1 --compare trace.json
    has "not every run of a step of gpu[" "$err"
    cp trace.json before.json
    wrong "is the trace itself" plan m.mdl --compare trace.json --svg ./trace.json
    cmp -s trace.json before.json || fail "the trace was changed"
}

case_search()
{
    cat >m.mdl <<'EOF'
# a comment that stays
model tower {
    input x : f32[64]; target y : i32;
    for i in 0 .. 8 { x = relu(linear(x, 64 + 16 * i) as fc[i]); }
    loss cross_entropy(linear(x, 10) as head, y);
}
train { batch = 64; optimizer = adam(lr = 1e-3); }
devices gpu[2 + 2] { compute = 1 GFLOPS; latency = 1 us; memory = 4 MB; }
EOF
    for parallel in "" "parallel { }" "parallel { split = time; schedule = gpipe # why; so
  ; microbatch = 4 * 2 # eight; yes
  ; recompute = none; }"; do
        { cat m.mdl; echo "$parallel"; } >with.mdl
        run 0 plan with.mdl --search --apply best.mdl --json found.json
        run 0 plan with.mdl --search
        has "made into plans; the best:" "$out"
        run 0 plan best.mdl --json again.json -q
        [ "$(step_of found.json)" = "$(step_of again.json)" ] || fail "the copy has another plan"
        has "a comment that stays" "$(cat best.mdl)"
        # no setting by hand is better
        for schedule in 1f1b gpipe zero_bubble zb_h2 zb_v interleaved; do
            "$mdlc" plan best.mdl --set parallel.schedule=$schedule --json hand.json -q \
                2>"$here/err" || continue # does not fit
            awk "BEGIN { exit $(step_of again.json) > 1.0051 * $(step_of hand.json) }" ||
                fail "$schedule is faster than what was found"
        done
    done
    cp m.mdl before.mdl
    wrong "is the model itself" plan m.mdl --apply ./m.mdl
    cmp -s m.mdl before.mdl || fail "the model was changed"
    wrong "does not go with --schedule-file" plan m.mdl --search --schedule-file m.mdl
    wrong "mdlc check does not take --search" check m.mdl --search
    run 1 plan m.mdl --search --set devices.memory=10KB
    has "none fits into the memory of the devices" "$err"
}

case_schedule_file()
{
    model m 2
    run 0 plan m.mdl --set parallel.microbatch=4 --csv order.csv -q
    run 0 plan m.mdl --schedule-file order.csv
    has "schedule from order.csv, batch 8: 2 micro-batches of 4 samples on 2 stages" "$out"
    lacks "1f1b" "$out"
    lacks "(p-1)" "$out"
    lacks "with equal stages" "$out"
    run 0 check m.mdl --schedule-file order.csv
    run 0 emit m.mdl --schedule-file ./order.csv -o src -q
    has "schedule     from order.csv, 2 micro-batches" "$(cat src/stage_1.c)"
    run 0 run m.mdl --schedule-file order.csv -q -- -q --steps 1 --threads 1

    # what cannot be read is no fault of the model
    wrong "cannot read missing.csv: No such file" check m.mdl --schedule-file missing.csv
    wrong "cannot read src: it is a directory" check m.mdl --schedule-file src
    wrong "cannot read /dev/zero: it is larger than 16 MiB" check m.mdl --schedule-file /dev/zero
    wrong "needs the name of a file" check m.mdl --schedule-file ""
    wrong "needs a value" check m.mdl --schedule-file
    wrong "mdlc fmt does not take --schedule-file" fmt m.mdl --schedule-file order.csv
    cp order.csv before
    wrong "is the schedule itself" plan m.mdl --schedule-file order.csv --csv ./order.csv
    cmp -s order.csv before || fail "the schedule was changed"

    # what is wrong in it is
    sed 's/0B1/0B0/' before >twice.csv
    for command in plan check build run emit; do
        run 1 $command m.mdl --schedule-file twice.csv
        has "twice.csv:1:13: error: 0B0 at step 4 of gpu[0]: that has been done" "$err"
    done
    run 1 check m.mdl --schedule-file twice.csv --diagnostics=json
    has '"file": "twice.csv"' "$err"
    printf '0F0\000,0F1\n' >nul.csv
    run 1 check m.mdl --schedule-file nul.csv
    has "is no action" "$err"
    no_leftovers
}

command -v "case_$case_name" >/dev/null || {
    echo "no case $case_name"
    exit 1
}
"case_$case_name"
echo "ok $case_name"
