#!/bin/sh
# Reads a volume made by DragonFly in every way there is, and prints each command before it runs.
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

rm -rf "$target/demo"
mkdir -p "$target/demo"
cd "$target/demo"

say 'A volume that DragonFly made: 3000 files in PFS 1, then two small changes.'
run unpack "$testdata/skips/m.img.zst" m.img
before=$(sha256sum < m.img)
run mallet info m.img
run mallet pfs-status 'm.img#1'

first=0x00000001000b02d0
last=0x00000001000b83a0
say 'PFS 1 before the changes, and after them.'
line "mallet ls -l --as-of $first 'm.img#1' /d00003 | sed -n 9,12p"
line "mallet ls -l --as-of $last 'm.img#1' /d00003 | sed -n 9,12p"
line "mallet ls -R --as-of $first 'm.img#1' / | wc -l"
line "mallet ls -R --as-of $last 'm.img#1' / | wc -l"
run mallet diff 'm.img#1' / --from 0x00000001000b0340 --to $last
run mallet history "m.img#1" "/d00003/f000010@@$first"
run mallet history "m.img#1" /d00007/f000077

say 'Every structure and every byte of data verified.'
run mallet check --data m.img

say 'Everything up to the first moment as a stream; then only what changed since.'
line "mallet mirror-read --end-tid $first 'm.img#1' > full.mir"
run mallet mirror-plan 'm.img#1' --from 0x00000001000b02d1 --end-tid $last
line "mallet mirror-read --end-tid $last 'm.img#1' 0x00000001000b02d1 > incremental.mir"
run ls -l full.mir incremental.mir
line 'mallet mirror-dump header < full.mir'
line 'mallet mirror-dump < full.mir | grep -c Record'
line 'mallet mirror-dump < incremental.mir | grep -A1 ^Record | head -n 8'

say "DragonFly's own stream of the same window, made before the volume's last change: the same records."
run unpack "$testdata/skips/inc12.mir.zst" dragonfly.mir
line 'mallet mirror-dump < incremental.mir | grep -A1 ^Record > ours.txt'
line 'mallet mirror-dump < dragonfly.mir | grep -A1 ^Record > theirs.txt'
run cmp ours.txt theirs.txt
line 'grep -c ^Record ours.txt'

say 'Reading changed nothing.'
[ "$before" = "$(sha256sum < m.img)" ] || { echo 'm.img was changed' >&2; exit 1; }
echo 'm.img is what it was.'
