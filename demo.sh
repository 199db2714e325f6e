#!/bin/sh
# The whole story, each command printed before it runs: file systems made, filled and mirrored,
# changed and mirrored again, a copy killed and continued, the past read on a slave; then a volume
# and a stream that DragonFly made. Ends with an error where anything does not hold.
# Called by `make demo`, which builds the programs; leaves everything in target/demo.
set -eu
cd "$(dirname "$0")"
target=$(cd "${TARGET:-target}" && pwd)
testdata=$(pwd)/testdata
PATH=$target/debug:$target/debug/examples:$PATH

say() {
    printf '\n'
    printf '# %s\n' "$@"
}
run() {
    printf '$ %s\n' "$*"
    "$@"
}
# Runs a shell line with a pipe or a redirection in it.
line() {
    printf '$ %s\n' "$1"
    sh -c "$1"
}
fail() {
    printf 'demo: %s\n' "$*" >&2
    exit 1
}
# Fails unless two listings are the same, and says that they are.
same() {
    cmp "$1" "$2" || fail "$1 and $2 differ"
    echo "$1 and $2 are the same: $(wc -l < "$1") objects, contents by SHA-256."
}
# Everything that can be seen of a PFS, contents as checksums, into a file. Further words are
# options. Modification times are left out: HAMMER does not version them, and so does not mirror
# those that change alone.
list() {
    spec=$1 file=$2
    shift 2
    set -- mallet ls -R --json --sha256 "$@" "$spec" /
    printf '$ %s > %s\n' "$*" "$file"
    "$@" | sed -n '/"type":"entry"/s/"mtime_us":[0-9]*,//p' > "$file"
}
# A field of a PFS's status.
status() {
    mallet pfs-status --json "$1" | sed -n "s/.*\"$2\":\"\\{0,1\\}\\([^\",}]*\\).*/\\1/p" | head -n 1
}
# A number of the summary in a file of JSON lines.
number() {
    sed -n "/\"type\":\"summary\"/s/.*\"$2\":\\([0-9]*\\).*/\\1/p" "$1"
}

rm -rf "$target/demo"
mkdir -p "$target/demo"
cd "$target/demo"

say 'Three file systems in sparse image files, the first with a PFS that is written to.'
run mallet newfs -L office --size 512m office.img
line 'mallet newfs -L attic --size 512m attic.img > /dev/null'
line 'mallet newfs -L cellar -V 6 --size 512m cellar.img > /dev/null'
run mallet pfs-master office.img#1 label=work --link /work
run du -h office.img

say 'Something to keep: a disk image and a tree.'
head -c 48m /dev/urandom > disk.raw
mkdir -p papers/letters
for n in 1 2 3 4 5 6 7 8 9; do
    seq "$n" $((n * 500)) > "papers/letters/letter-$n"
done
echo 'Buy a mallet.' > papers/notes
ln papers/notes papers/notes-again
ln -s letters/letter-1 papers/first
run mallet put office.img#work disk.raw /disk.raw
run mallet put office.img#work papers /papers
run mallet ls -lR office.img#work /

say 'To two slaves, which are made for it, with one scan.'
run mallet mirror-copy -y office.img#1 attic.img#1 cellar.img#1
first=$(status office.img#1 sync_end_tid)
list office.img#1 office.1
list attic.img#1 attic.1
list cellar.img#1 cellar.1
same office.1 attic.1
same office.1 cellar.1
[ "$(status attic.img#1 sync_end_tid)" = "$first" ] || fail 'the slave is not at the TID of its master'

say 'Three blocks of the disk image change, and some papers.'
for block in 100 300 500; do
    dd if=/dev/urandom of=disk.raw bs=64k count=1 seek=$block conv=notrunc status=none
done
run mallet put -v office.img#work disk.raw /disk.raw
cat > script <<'END'
rm /papers/letters/letter-9
mv /papers/letters/letter-8 /papers/letters/letter-eight
truncate /papers/letters/letter-7 100
append script /papers/notes
mkdir /papers/new
END
line 'cat script'
line 'mallet batch -v office.img#work < script'
run mallet diff office.img#work / --from "$first"

say 'What a copy would move; then to both slaves again. Only what changed goes.'
run mallet mirror-copy -n office.img#1 attic.img#1
line 'mallet mirror-copy --json office.img#1 attic.img#1 cellar.img#1 > copy.json'
records=$(number copy.json items) bytes=$(number copy.json read_bytes)
echo "One scan ($(number copy.json passes)): $records records looked at, $bytes bytes of data read."
[ "$(number copy.json passes)" = 1 ] || fail 'that was more than one scan'
[ "$bytes" -gt 196608 ] && [ "$bytes" -lt 300000 ] || fail 'that is not what changed'
second=$(status office.img#1 sync_end_tid)
list office.img#1 office.2
list attic.img#1 attic.2
list cellar.img#1 cellar.2
same office.2 attic.2
same office.2 cellar.2

say 'Another disk image. The copy of it, slowed down, is killed in the middle with kill -9.'
head -c 48m /dev/urandom > second.raw
run mallet put office.img#work second.raw /second.raw
printf '$ mallet mirror-copy -b 2m office.img#1 attic.img#1 cellar.img#1 &\n'
mallet mirror-copy -b 2m office.img#1 attic.img#1 cellar.img#1 2> killed.txt &
copy=$!
# What has come is made durable every three seconds.
sleep 13
printf '$ kill -9 %s\n' $copy
kill -9 $copy || fail 'the copy was over already'
wait $copy 2> /dev/null && fail 'the copy was over already'
say 'The slaves show what they had acknowledged, as if nothing had been going on.'
for slave in attic cellar; do
    [ "$(status $slave.img#1 sync_end_tid)" = "$second" ] || fail "$slave is not at $second"
    list $slave.img#1 $slave.3
    same $slave.2 $slave.3
    run mallet check --data $slave.img
done

say 'It goes on where it was.'
line 'mallet mirror-copy --json office.img#1 attic.img#1 cellar.img#1 > resumed.json'
grep -c '"resumed":true' resumed.json > /dev/null || fail 'it began anew'
echo "$(number resumed.json read_bytes) bytes of data read, of $(wc -c < second.raw) that are new."
[ "$(number resumed.json read_bytes)" -lt 40000000 ] || fail 'it began anew'
list office.img#1 office.4
for slave in attic cellar; do
    list $slave.img#1 $slave.4
    same office.4 $slave.4
    run mallet check --data $slave.img
done

say "A slave remembers: the papers as of $first, and the disk image to the byte."
line "mallet ls -l --as-of $first attic.img#1 /papers/letters | tail -n 3"
line 'mallet ls -l attic.img#1 /papers/letters | tail -n 3'
list attic.img#1 attic.old --as-of "$first"
same attic.1 attic.old

say 'A volume that DragonFly made: 3000 files in PFS 1, then two small changes.'
run unpack "$testdata/skips/m.img.zst" m.img
before=$(sha256sum < m.img)
run mallet info m.img
run mallet check --data m.img
run mallet diff 'm.img#1' / --from 0x00000001000b0340 --to 0x00000001000b83a0

say "The stream of a window, ours and DragonFly's: the same records."
line "mallet mirror-read --end-tid 0x00000001000b83a0 'm.img#1' 0x00000001000b02d1 > incremental.mir"
run unpack "$testdata/skips/inc12.mir.zst" dragonfly.mir
line 'mallet mirror-dump < incremental.mir | grep -A1 ^Record > ours.txt'
line 'mallet mirror-dump < dragonfly.mir | grep -A1 ^Record > theirs.txt'
run cmp ours.txt theirs.txt
line 'grep -c ^Record ours.txt'

say 'Its PFS in a slave of ours.'
run mallet mirror-copy -y 'm.img#1' 'attic.img#2'
list 'm.img#1' dragonfly.1
list 'attic.img#2' ours.1
same dragonfly.1 ours.1

say 'Reading changed nothing.'
[ "$before" = "$(sha256sum < m.img)" ] || fail 'm.img was changed'
echo 'm.img is what it was.'
