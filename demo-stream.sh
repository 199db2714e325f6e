#!/bin/sh
# A master followed while it is written to, each command printed before it runs: a log that grows, a
# chain of two slaves, nothing but new blocks and the inode on the way, one burst a flush, links
# killed and started again, an outage and what catches up. Ends with an error where anything does
# not hold. Called by `make demo-stream`, which builds the program; leaves everything in
# target/demo-stream.
set -eu
cd "$(dirname "$0")"
target=$(cd "${TARGET:-target}" && pwd)
PATH=$target/debug:$PATH

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
    printf 'demo-stream: %s\n' "$*" >&2
    exit 1
}
# Waits for a while until a command succeeds.
until_true() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "waited in vain: $*"
        sleep 0.1
    done
}

# Everything that can be seen of a PFS as of a TID, contents as checksums, into a file. Modification
# times are left out: HAMMER does not version them.
list() {
    mallet ls -R --json --sha256 --as-of "$2" "$1" / > "$3.all"
    sed -n '/"type":"entry"/s/"mtime_us":[0-9]*,//p' "$3.all" > "$3"
}
# The TID of a slave, while a stream works on it.
tid() {
    mallet pfs-status --json --lock-wait 60 "$1" \
        | sed -n 's/.*"sync_end_tid":"\([^"]*\)".*/\1/p' | head -n 1
}

# The writer keeps the master open all the time and reads what to do from a pipe.
commits=0
# A transaction with these lines; waits until it is committed, and sets `committed` to its TID.
commit() {
    printf '%s\n' "$@" sync >&3
    commits=$((commits + 1))
    until_true has_lines "$commits" TID writer.txt
    committed=$(sed -n 's/.*TID //p' writer.txt | tail -n 1)
}
has_lines() {
    [ "$(grep -c "$2" "$3")" -ge "$1" ]
}
has_passes() {
    [ "$(passes "$2" | wc -l)" -ge "$1" ]
}
# Text for the log.
text() {
    more=more.$1
    seq "$1" $(($1 + $2)) | sed 's/^/an event with the number /' > "$more"
}

# The acknowledgements in a link's events.
passes() {
    grep '"type":"pass"' "$1" || true
}
# Waits until a TID is among them, and prints that.
acknowledged() {
    until_true has_tid "$1" "$2"
    passes "$1" | grep "\"$2\"" | tail -n 1 | told
}
has_tid() {
    passes "$1" | grep -q "\"$2\""
}
# In words; over a link bytes are those on the wire.
told() {
    sed -e 's/.*"target":"\([^"]*\)".*"sync_end_tid":"\([^"]*\)",\(.*\),"ack_latency":\([0-9]*\.[0-9]\{3\}\).*/  \1 acknowledged \2 after \4 s: \3/' \
        -e 's/"records":\([0-9]*\)/\1 records/; s/"bytes":\([0-9]*\)/\1 bytes/; s/"deletes":.*//' \
        -e 's/"stream_bytes":\([0-9]*\)/\1 bytes on the wire/; s/,\([0-9]\)/, \1/; s/,$//'
}
# A number of the last one of them.
last() {
    passes "$1" | tail -n 1 | sed "s/.*\"$2\":\\([0-9]*\\).*/\\1/"
}
# Starts a link in the background, its events into NAME.json; sets `pid`.
link() {
    name=$1
    shift
    printf '$ mallet mirror-stream --json %s >> %s.json &\n' "$*" "$name"
    # Without the writer's pipe, which ends where nobody holds it any more.
    mallet mirror-stream --json "$@" >> "$name.json" 2>> "$name.txt" 3>&- &
    pid=$!
}

rm -rf "$target/demo-stream"
mkdir -p "$target/demo-stream"
cd "$target/demo-stream"
writer='' first='' second=''
trap 'kill $writer $first $second 2> /dev/null || true' EXIT

say 'Three file systems. The first has a log of 256 MiB in a PFS that is written to.'
for name in office attic cellar; do
    line "mallet newfs -L $name --size 1g $name.img > /dev/null"
done
line 'mallet pfs-master office.img#1 label=work > /dev/null'
seq 1 20000000 | sed 's/^/event /' | head -c 256m > log
run mallet put office.img#work log /log

say 'A chain: the attic follows the office; the cellar, as on another machine, follows the attic.'
link first -y office.img#work attic.img#1
first=$pid
until_true has_passes 1 first.json
passes first.json | told
cat > rsh <<'END'
#!/bin/sh
# Stands in for ssh: whatever is asked of the host "cellar" is done here.
while [ "$1" != cellar ]; do shift; done
shift 2
echo $$ > rsh.pid
exec mallet "$@"
END
chmod +x rsh
HAMMER_RSH=$(pwd)/rsh
export HAMMER_RSH
link second -y attic.img#1 cellar:cellar.img#1
second=$pid
until_true has_passes 1 second.json
passes second.json | told

say 'Whoever writes to the office stays there, and gives the log some lines at a time.' \
    'What goes over is their blocks, of 64 KiB, and the inode: not the log.'
mkfifo writer
printf '$ mallet batch -v office.img#work < writer &\n'
mallet batch -v office.img#work < writer 2> writer.txt &
writer=$!
exec 3> writer
for n in 1 2 3; do
    text ${n}000 2000
    commit "append $more /log"
    echo "append $(wc -c < "$more") bytes, committed as $committed"
    acknowledged first.json "$committed"
    acknowledged second.json "$committed"
    [ "$(last first.json bytes)" -lt 262144 ] || fail 'that is more than what is new'
    [ "$(last first.json records)" -le 4 ] || fail 'that is more than what is new'
    [ "$(last second.json stream_bytes)" -lt 262144 ] || fail 'that is more than what is new'
done

say 'Only what is flushed goes: ten appends in a transaction that is not committed yet.'
before=$(passes first.json | wc -l)
for n in 1 2 3 4 5 6 7 8 9 10; do
    text ${n}0000 2000
    printf 'append %s /log\n' "$more" >&3
done
sleep 2
[ "$(passes first.json | wc -l)" = "$before" ] || fail 'something went over before the commit'
echo 'After two seconds nothing has gone. The commit, and they go in one burst:'
commit 'mkdir /today'
acknowledged first.json "$committed"
acknowledged second.json "$committed"
[ "$(passes first.json | wc -l)" = $((before + 1)) ] || fail 'that was more than one burst'

say 'One stream into a slave at a time.'
line 'mallet mirror-stream office.img#work attic.img#1 || echo "status $?"'

say 'A signal ends a link with status 0. It is started again, and may now send 4 MiB a second.'
printf '$ kill %s\n' $first
kill $first
wait $first || fail "status $?"
link first -b 4m office.img#work attic.img#1
first=$pid

say 'The log grows by 32 MiB, and the link is killed with kill -9 while they are on their way.' \
    'The attic shows what it had acknowledged, and stays readable. The office goes on.'
acked=$committed
head -c 32m log > more
commit 'append more /log'
big=$committed
sleep 5
printf '$ kill -9 %s\n' $first
kill -9 $first
wait $first 2> /dev/null && fail 'it was over already'
[ "$(tid attic.img#1)" = "$acked" ] || fail "the attic is not at $acked"
echo "office $big, attic $(tid attic.img#1)"
run mallet check attic.img
text 500000 2000
commit "append $more /log" 'mkdir /later'

say 'Started again, tomorrow or in a year, it goes on where it was: the slave itself knows.'
link first office.img#work attic.img#1
first=$pid
acknowledged first.json "$committed"
acknowledged second.json "$committed"
grep -q '"type":"resumed"' first.json || fail 'it began anew'
echo "Resumed in the middle: $(($(last first.json bytes) >> 20)) MiB went over, of 32 that were new."
[ "$(last first.json bytes)" -lt 25000000 ] || fail 'it began anew'

say 'The program at the far end of the other link is killed. The link is made anew.'
printf '$ kill -9 %s\n' "$(cat rsh.pid)"
kill -9 "$(cat rsh.pid)"
text 550000 2000
commit "append $more /log"
acknowledged first.json "$committed"
acknowledged second.json "$committed"
has_lines 1 '"type":"retry"' second.json || fail 'nobody noticed'

say 'An outage: both links are gone, while a hundred transactions are made.'
printf '$ kill -9 %s %s\n' $first $second
kill -9 $first $second
wait $first 2> /dev/null || true
wait $second 2> /dev/null || true
n=0
while [ $n -lt 100 ]; do
    n=$((n + 1))
    text 600000 100
    case $((n % 10)) in
        0) commit "append $more /log" "put $more /copy-$n" ;;
        5) commit "append $more /log" "mkdir /today/$n" ;;
        *) commit "append $more /log" ;;
    esac
done
commit 'rm /copy-10' 'mv /later /today/later'
run mallet mirror-status --live office.img#1 attic.img#1 cellar.img#1
link first office.img#work attic.img#1
first=$pid
link second attic.img#1 cellar:cellar.img#1
second=$pid
acknowledged first.json "$committed"
acknowledged second.json "$committed"

say 'The end. Each slave is what its master is.'
exec 3>&-
wait $writer || fail 'the writer failed'
printf '$ kill %s %s\n' $first $second
kill $first $second
wait $first || fail "status $?"
wait $second || fail "status $?"
writer='' first='' second=''
run mallet mirror-status office.img#1 attic.img#1 cellar.img#1
run mallet mirror-verify --data office.img#1 attic.img#1
run mallet mirror-verify --data attic.img#1 cellar.img#1
run mallet check --data cellar.img

say 'And each was, as of every TID that was acknowledged: listings, contents by SHA-256.'
for link in first second; do
    slave=attic
    [ $link = first ] || slave=cellar
    passes $link.json | sed 's/.*"sync_end_tid":"\([^"]*\)".*/\1/' > $link.tids
    while read -r asof; do
        [ -e "office.$asof" ] || list office.img#1 "$asof" "office.$asof"
        list $slave.img#1 "$asof" "$slave.$asof"
        [ -s "$slave.$asof" ] || fail "$slave was empty as of $asof"
        cmp "office.$asof" "$slave.$asof" || fail "$slave was wrong as of $asof"
    done < $link.tids
    objects=$(wc -l < "$slave.$committed")
    echo "$slave: $(wc -l < $link.tids) TIDs acknowledged, $objects objects in the end; no difference."
done
