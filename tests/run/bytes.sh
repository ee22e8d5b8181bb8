#!/bin/sh
# bytes.sh - a trainer learns from a text; and the same, to the bit, from shards of tokens.
#
# usage: bytes.sh MDLC MODEL TEXT WORK
#     MODEL reads book.txt in windows of 32 bytes; its schedule is cosine(warmup = 10, min = 0.003)
#     with lr = 0.03 and 120 steps. WORK is a directory to build in.
#
# The shards are made of the same bytes by iconv, of 16 and of 32 bits, in one file or in two,
# the second of which begins with the last token of the first: their windows are the text's.
set -u
mdlc=$1 model=$2 text=$3 work=$4
window=32

fail()
{
    echo "bytes: $1" >&2
    [ $# -lt 2 ] || cat "$2" >&2
    exit 1
}

# word N: its four bytes, the lowest first
word()
{
    printf "$(printf '\\%03o\\%03o\\%03o\\%03o' $(($1 & 255)) $(($1 >> 8 & 255)) \
        $(($1 >> 16 & 255)) $(($1 >> 24 & 255)))"
}

# shard MAGIC VERSION ENCODING < bytes
shard()
{
    cat > bytes
    word "$1"
    word "$2"
    word "$(wc -c < bytes)"
    head -c 1012 /dev/zero
    iconv -f ISO-8859-1 -t "$3" < bytes
}

# train PROGRAM NAME OPTION...: NAME.losses is what it logs, NAME.weights what it learns
train()
{
    program=$1 log=$2
    shift 2
    "./$program" -q --threads 1 --timeout 60 --log "$log.jsonl" --export "$log.weights" "$@" \
        > now.log 2>&1 || fail "$log does not train:" now.log
    sed 's/, "samples_per_s".*//' "$log.jsonl" > "$log.losses"
}

same()
{
    cmp -s text.losses "$1.losses" || fail "$1: other losses than from the text"
    cmp -s text.weights "$1.weights" || fail "$1: other weights than from the text"
}

# refused CODE MESSAGE OPTION...
refused()
{
    want=$1 message=$2
    shift 2
    ./shards -q "$@" > now.log 2>&1
    code=$?
    [ $code -eq "$want" ] || fail "$*: exit code $code, not $want:" now.log
    grep -qF -- "$message" now.log || fail "$*: no \"$message\":" now.log
}

rm -rf "$work"
mkdir -p "$work" || exit 1
head -c 40007 "$text" > "$work/book.txt"
cd "$work" || exit 1
sed 's/text("book.txt"/tokens("short_*.bin"/' "$model" > shards.mdl
"$mdlc" build -q --target host "$model" -o text > now.log 2>&1 || fail "does not build:" now.log
"$mdlc" build -q --target host shards.mdl -o shards > now.log 2>&1 || fail "does not build:" now.log

train text text
awk -F '[:,]' '
    /eval_loss/ { evaluated = $4; next }
    {
        s = $2; loss = $4; lr = $6
        part = (s - 11) / 110
        want = s <= 10 ? 0.03 * s / 10 : 0.003 + 0.027 * 0.5 * (1 + cos(atan2(0, -1) * part))
        if (lr - want > 1e-8 || want - lr > 1e-8) { print "step " s ": lr" lr ", not " want; bad = 1 }
        if (s == 1 && (loss < 5 || loss > 6)) { print "first loss" loss; bad = 1 }
    }
    END {
        if (s != 120) { print s " steps"; bad = 1 }
        if (!(evaluated > 1 && evaluated < 3)) { print "evaluation:" evaluated; bad = 1 }
        exit bad
    }' text.jsonl || fail "has not learnt:" text.jsonl

bytes=$(wc -c < book.txt)
cut=$(($window * 500))
mkdir one two wide
shard 20240520 1 UTF-16LE < book.txt > one/short_1.bin
head -c $((cut + 1)) book.txt | shard 20240520 1 UTF-16LE > short_1.bin
tail -c $((bytes - cut)) book.txt | shard 20240520 1 UTF-16LE > short_2.bin
head -c $((cut + 1)) book.txt | shard 20240801 7 UTF-32LE > wide/a.bin
tail -c $((bytes - cut)) book.txt | shard 20240801 7 UTF-32LE > wide/b.bin
train shards two
same two
train shards one --data one/short_1.bin --eval-data one/short_1.bin
same one
train shards wide --data 'wide/*.bin' --eval-data 'wide/?.bin'
same wide
train text book --data "$(pwd)/book.txt"
same book

printf 'ab' | cat book.txt - | shard 20240520 1 UTF-16LE > bad.bin
printf '\001\001' | dd of=bad.bin bs=1 seek=$((1024 + 2 * 1500)) conv=notrunc 2> now.log ||
    fail "dd:" now.log
refused 1 "bad.bin: token 1500 (from 0) is 257; input 'text' takes 0 to 255" --data bad.bin
refused 2 "none*.bin: no file matches" --data 'none*.bin'
refused 1 "book.txt: not a shard of tokens" --data book.txt
cd / && rm -rf "$work"
echo "bytes: text and shards teach the same"
