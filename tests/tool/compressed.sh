#!/bin/sh
# compressed.sh - get --compressed: the LZ4 frame as it is stored, for lz4(1).
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

seq 1 1000000 >"$work/large"
mkfifo "$work/fifo"

# unpacks FILE - lz4(1) makes it of standard output, if there is such a program
unpacks() {
	command -v lz4 >/dev/null 2>&1 || return 0
	lz4 -dc <"$work/out" >"$work/plain" 2>"$work/err" || fail "lz4 does not take it"
	want_same "$1" "$work/plain"
}

want_frame() {
	[ "$(head -c 4 "$work/out" | od -An -tx1 | tr -d ' ')" = 04224d18 ] || fail "no frame"
}

case_is "what lz4(1) unpacks is the blob"
run "$sc" put --compress=lz4 large <"$work/large"
want_status 0
run "$sc" get --compressed large
want_status 0
want_no_err
want_frame
unpacks "$work/large"
[ "$(wc -c <"$work/out")" -lt "$(($(wc -c <"$work/large") * 4 / 5))" ] || fail "hardly smaller"
"$sc" get --compressed large | cat >"$work/out.1"
want_same "$work/out" "$work/out.1"
: >"$work/out.1"
"$sc" get --compressed large >>"$work/out.1" || fail "get to a file that is appended to"
want_same "$work/out" "$work/out.1"
: >"$work/empty"
run "$sc" put --compress=lz4 empty <"$work/empty"
run "$sc" get --compressed empty
want_status 0
want_frame
unpacks "$work/empty"

case_is "what is stored as it is: what to do instead, and status 1"
run "$sc" put plain <"$work/large"
run "$sc" get --compressed plain
want_status 1
want_no_out
want_err "^streamcache: 'plain' is not stored compressed: get it without --compressed, or "
want_err_lines 1
run "$sc" get --compressed missing
want_status 1
want_err "^streamcache: no such key"

case_is "one that grows is waited for"
"$sc" put --compress=lz4 growing <"$work/fifo" &
put=$!
pids="$pids $put"
exec 8>"$work/fifo"
cat "$work/large" >&8
await entry_is growing bytes "$(wc -c <"$work/large")"
"$sc" get --compressed growing >"$work/out" 2>"$work/err" 8>&- &
get=$!
pids="$pids $get"
await entry_is growing readers 1
[ ! -s "$work/out" ] || fail "it has not waited"
cat "$work/large" >&8
exec 8>&-
wait_for "$put"
want_status 0
wait_for "$get"
want_status 0
cat "$work/large" "$work/large" >"$work/twice"
want_frame
unpacks "$work/twice"

case_is "one that grows and is raw is not"
"$sc" put raw <"$work/fifo" &
put=$!
pids="$pids $put"
exec 8>"$work/fifo"
echo one >&8
await entry_is raw bytes 4
run "$sc" get --compressed raw 8>&-
want_status 1
want_err "is not stored compressed"
exec 8>&-
wait_for "$put"
want_status 0

case_is "a producer whose only reader waits is not held up"
script large.run <<'END'
held
cat "$work/large" "$work/large" "$work/large" "$work/large"
END
cat "$work/twice" "$work/twice" >"$work/four"
for window in 1M 0; do
	reset
	"$sc" exec --compress=lz4 --window=$window --key=run$window -- "$work/large.run" \
		>"$work/out.1" 2>"$work/err.1" &
	caller=$!
	pids="$pids $caller"
	await entry_is run$window readers 1
	"$sc" get --compressed run$window >"$work/out" 2>"$work/err" &
	get=$!
	pids="$pids $get"
	await entry_is run$window readers 2
	kill -KILL "$caller"
	await entry_is run$window readers 1
	touch "$work/go"
	wait_for "$get"
	want_status 0
	want_frame
	unpacks "$work/four"
done

case_is "production that fails: its message, status 1; that is lost: 124"
script failing <<'END'
echo partial
echo why >&2
held
exit 7
END
reset
"$sc" exec --compress=lz4 --key=failing -- "$work/failing" >"$work/out.0" 2>"$work/err.0" &
pids="$pids $!"
await entry_is failing readers 1
"$sc" get --compressed failing >"$work/out" 2>"$work/err" &
get=$!
pids="$pids $get"
await entry_is failing readers 2
touch "$work/go"
wait_for "$get"
want_status 1
want_no_out
want_err '^why$'
want_err 'status 7$'
"$sc" put --compress=lz4 killed <"$work/fifo" &
put=$!
pids="$pids $put"
exec 8>"$work/fifo"
echo one >&8
await entry_is killed bytes 4
"$sc" get --compressed killed >"$work/out" 2>"$work/err" 8>&- &
get=$!
pids="$pids $get"
await entry_is killed readers 1
kill -KILL "$put"
wait_for "$get"
want_status 124
want_no_out
exec 8>&-

case_is "what is not stored has no file"
script slow <<'END'
echo first
held
END
reset
"$sc" exec --pass-through --key=passing -- "$work/slow" >"$work/out.0" 2>"$work/err.0" &
pids="$pids $!"
await entry_is passing readers 1
"$sc" get --compressed passing >"$work/out" 2>"$work/err" &
get=$!
pids="$pids $get"
await entry_is passing readers 2
touch "$work/go"
wait_for "$get"
want_status 1
want_err "^streamcache: 'passing' is not stored\$"

case_is "usage"
for part in --offset=1 --bytes=1 --range=0-1 --note; do
	run "$sc" get --compressed $part large
	want_status 2
	want_err "are different things"
done

case_is "the cache is sound"
run "$sc" check
want_out "0 violations found"
