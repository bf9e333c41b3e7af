#!/bin/sh
# getput.sh - blobs by key: stored, streamed while they come, replaced, removed.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

seq 1 1000000 >"$work/large"

case_is "what is put is what get prints"
run "$sc" put large <"$work/large"
want_status 0
want_no_out
want_no_err
run "$sc" get large
want_status 0
want_same "$work/large" "$work/out"
: | "$sc" put empty || fail "put of nothing"
run "$sc" get empty
want_status 0
want_no_out

case_is "a part of it"
run "$sc" get --offset=1000 --bytes=20 large
want_status 0
tail -c +1001 "$work/large" | head -c 20 | cmp - "$work/out" || fail "that is not the part"
run "$sc" get --offset=6888889 large # all but its last seven bytes
want_status 0
want_out 000000
run "$sc" get --offset=1G large
want_status 0
want_no_out
run "$sc" get --bytes=0 large
want_status 0
want_no_out
run "$sc" get --offset=-1 large
want_status 2

case_is "a key that exists is not overwritten"
echo new >"$work/new"
run "$sc" put large <"$work/new"
want_status 1
want_err "^streamcache: the key exists"
run "$sc" get large
want_same "$work/large" "$work/out"

case_is "--refresh replaces it"
run "$sc" put --refresh large <"$work/new"
want_status 0
run "$sc" get large
want_out new

case_is "no such key"
run "$sc" get missing
want_status 1
want_no_out
want_err "^streamcache: no such key"

case_is "rm: gone, and the key is free"
run "$sc" rm large
want_status 0
run "$sc" get large
want_status 1
run "$sc" rm large empty missing
want_status 1
want_err "no such key: 'large'"
has_no empty || fail "the others were not removed"
run "$sc" put large <"$work/new"
want_status 0
run "$sc" rm --all
want_status 0
has_no large || fail "--all left something"
run "$sc" rm --all
want_status 0

case_is "put runs without readers, get follows it live"
mkfifo "$work/fifo"
"$sc" put --max-age=1h live <"$work/fifo" &
put=$!
pids="$pids $put"
exec 8>"$work/fifo"
cat "$work/large" >&8
await entry_is live bytes "$(wc -c <"$work/large")"
"$sc" get live >"$work/out.1" 8>&- &
get=$!
pids="$pids $get"
await entry_is live readers 1
await cmp "$work/large" "$work/out.1"
run "$sc" get --offset=1000 --bytes=20 live
want_status 0
tail -c +1001 "$work/large" | head -c 20 | cmp - "$work/out" || fail "not the part of a live one"
"$sc" get --offset="$(wc -c <"$work/large")" --bytes=3 live >"$work/out.2" 8>&- &
part=$!
pids="$pids $part"
await entry_is live readers 2
[ ! -s "$work/out.2" ] || fail "bytes that nobody has written"
echo end >&8
wait_for "$part"
want_status 0
printf end | cmp - "$work/out.2" || fail "not the part it has waited for"
await has_line '^end$' "$work/out.1"
run "$sc" put --refresh live <"$work/new"
want_status 1
want_err "is being produced right now"
exec 8>&-
wait_for "$put"
want_status 0
wait_for "$get"
want_status 0
(cat "$work/large" && echo end) | cmp - "$work/out.1" || fail "the live reader got other bytes"

case_is "get ends when nobody reads its output, also while nothing comes"
mkfifo "$work/silent" "$work/nobody"
"$sc" put silent <"$work/silent" &
put=$!
pids="$pids $put"
exec 8>"$work/silent"
echo first >&8
await entry_is silent bytes 6
"$sc" get silent >"$work/nobody" 8>&- &
get=$!
pids="$pids $get"
head -n 1 "$work/nobody" >"$work/out" 8>&-
want_out first
wait_for "$get"
want_status 141 # 128 and SIGPIPE
exec 8>&-
wait_for "$put"
want_status 0

case_is "a blob that is removed is read to its end"
"$sc" put removed <"$work/fifo" &
put=$!
pids="$pids $put"
exec 8>"$work/fifo"
echo one >&8
await entry_is removed bytes 4
rm -f "$work/out.1"
"$sc" get removed >"$work/out.1" 8>&- &
get=$!
pids="$pids $get"
await has_line one "$work/out.1"
run "$sc" rm removed
want_status 0
run "$sc" get removed
want_status 1
echo two >&8
exec 8>&-
wait_for "$put"
want_status 0
wait_for "$get"
want_status 0
[ "$(cat "$work/out.1")" = "one
two" ] || fail "the reader did not get all"
run "$sc" get removed
want_status 1

case_is "124: put is killed in mid-stream"
"$sc" put killed <"$work/fifo" &
put=$!
pids="$pids $put"
exec 8>"$work/fifo"
echo one >&8
await entry_is killed bytes 4
rm -f "$work/out.1" "$work/err.1"
"$sc" get killed >"$work/out.1" 2>"$work/err.1" 8>&- &
get=$!
pids="$pids $get"
await has_line one "$work/out.1"
kill -KILL "$put"
wait_for "$get"
want_status 124
[ "$(wc -l <"$work/err.1")" -eq 1 ] || fail "one line should say so"
exec 8>&-
wait "$put"
run "$sc" put killed <"$work/new"
want_status 0

case_is "get of a run that fails: its bytes, its message, status 1"
script failing <<'END'
echo partial
echo why >&2
held
exit 7
END
reset
"$sc" exec --key=failing -- "$work/failing" >"$work/out.0" 2>"$work/err.0" &
pids="$pids $!"
await entry_is failing readers 1
rm -f "$work/out.1" "$work/err.1"
"$sc" get failing >"$work/out.1" 2>"$work/err.1" 8>&- &
get=$!
pids="$pids $get"
await entry_is failing readers 2
touch "$work/go"
wait_for "$get"
want_status 1
[ "$(cat "$work/out.1")" = partial ] || fail "what was written is not all there"
has_line '^why$' "$work/err.1" || fail "the message is missing"
has_line 'status 7$' "$work/err.1" || fail "the status is missing"

case_is "--max-age: expired blobs are no hits"
run "$sc" put --max-age=0 old <"$work/new"
want_status 0
run "$sc" get old
want_status 1
run "$sc" put --max-age=1d young <"$work/new"
run "$sc" get --max-age=1h young
want_status 0
run "$sc" get --max-age=1ns young
want_status 1
run "$sc" get young
want_status 0

case_is "what cannot be written is not stored, and put says so"
(
	ulimit -f 8
	"$sc" put limited <"$work/large" 2>&1
	echo "status $?"
) | cat >"$work/err"
want_err "^streamcache: nothing was stored: "
want_err "^status 125\$"
has_no limited || fail "a part is there"

case_is "keys of odd bytes, written plainly or in hexadecimal"
newline="a
b"
run "$sc" put "$newline" <"$work/new"
want_status 0
run "$sc" get --hex 610a62
want_status 0
want_out new
run "$sc" put --hex 00ff <"$work/large"
want_status 0
run "$sc" get --hex 00FF
want_same "$work/large" "$work/out"
run "$sc" rm --hex 00ff
want_status 0
long=$(printf '%0255d' 0)
run "$sc" put -- "$long" <"$work/new"
want_status 0
run "$sc" put -- --dashes <"$work/new"
want_status 0
run "$sc" get -- --dashes
want_out new

case_is "two directories are two caches"
run "$sc" --cache="$work/other" put young <"$work/large"
want_status 0
run "$sc" get young
want_out new
run "$sc" get --cache="$work/other" young
want_same "$work/large" "$work/out"
run "$sc" --cache="$work/other" destroy
want_status 0
