#!/bin/sh
# terms.sh - what a run bears of its callers: one that does not read, and that all leave.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

mkfifo "$work/pipe"
run "$sc" put there </dev/null # or there is no cache to ask yet
seq 1 300000 >"$work/expected"

# stuck KEY OPTION... - a caller whose output nobody takes; $caller
stuck() {
	key=$1
	shift
	stalled=$(number stalled)
	"$sc" exec --key="$key" --window=64K --stall=100ms "$@" -- cat "$work/expected" \
		>"$work/pipe" 2>"$work/err" &
	caller=$!
	pids="$pids $caller"
	exec 3<"$work/pipe"
}

# has_stalled - since $stalled was set
has_stalled() {
	[ "$(number stalled)" -gt "$stalled" ]
}

# is_finished KEY
is_finished() {
	"$sc" ls "$1" | grep -q '^finished '
}

case_is "a run that aborts is lost for its caller, who says why"
stuck abort --on-stall=abort
await has_stalled
cat <&3 >"$work/out"
exec 3<&-
wait_for "$caller"
want_status 124
cmp -n "$(wc -c <"$work/out")" "$work/out" "$work/expected" || fail "other bytes"
want_err ": no reader has moved for 0.100 s"
await has_no abort

case_is "a run that takes too long is not begun anew"
run "$sc" config --max-fill=50ms
reset
# shellcheck disable=SC2016
"$sc" exec --key=slow -- sh -c 'echo run >>"$0"; sleep 0.2; echo late; sleep 0.2; echo later' \
	"$work/slow" >"$work/out" 2>"$work/err" &
caller=$!
pids="$pids $caller"
wait_for "$caller"
want_status 124
want_err ": production took longer than 0.050 s"
[ "$(wc -l <"$work/slow")" -eq 1 ] || fail "it ran more than once"
run "$sc" config --max-fill=unlimited

case_is "a run that goes on is stored, and its caller has it all in the end"
stuck run --on-stall=run
await is_finished run
cat <&3 >"$work/out"
exec 3<&-
wait_for "$caller"
want_status 0
want_same "$work/expected" "$work/out"

case_is "a run that waits is counted"
stuck wait
await has_stalled
cat <&3 >"$work/out"
exec 3<&-
wait_for "$caller"
want_status 0
want_same "$work/expected" "$work/out"

script held <<'END'
begin
head -n 200000 "$work/expected"
held
tail -n +200001 "$work/expected"
END
bytes=$(wc -c <"$work/expected")

# leave KEY OPTION... - the only caller is killed when the first part is there
leave() {
	key=$1
	shift
	reset
	"$sc" exec --key="$key" --window=unlimited "$@" -- "$work/held" >"$work/out" 2>&1 &
	caller=$!
	pids="$pids $caller"
	await entry_is "$key" bytes "$(head -n 200000 "$work/expected" | wc -c)"
	kill -KILL "$caller"
	wait_for "$caller"
}

case_is "what is nearly done is finished"
for option in --finish-percent=50 --finish-bytes=1M; do
	leave "nearly$option" --size="$bytes" "$option"
	await entry_is "nearly$option" readers 0
	touch "$work/go"
	await is_finished "nearly$option"
	run "$sc" get "nearly$option"
	want_same "$work/expected" "$work/out"
done

case_is "who lingers is joined"
leave linger --linger=1h
await entry_is linger readers 0
"$sc" exec --key=linger -- "$work/held" >"$work/out" 2>"$work/err" &
caller=$!
pids="$pids $caller"
await entry_is linger readers 1
touch "$work/go"
wait_for "$caller"
want_status 0
want_same "$work/expected" "$work/out"
runs_are 1

case_is "otherwise it is given up"
leave gone --linger=100ms
await has_no gone

case_is "what makes no sense is refused"
run "$sc" exec --on-stall=panic -- true
want_status 125
want_err "--on-stall is wait, abort or run, not 'panic'"
run "$sc" exec --stall=0 -- true
want_status 125
want_err "--stall is a time in which a reader can move"
run "$sc" put --on-stall=run x </dev/null
want_status 2
want_err "--on-stall says what happens after --stall"
run "$sc" exec --finish-percent=50 -- true
want_status 125
want_err "are parts of --size, which is missing"
run "$sc" put --on-stall= x </dev/null
want_status 2
for percent in "" 0 101 x 5x -1; do
	run "$sc" exec --finish-percent="$percent" -- true
	want_status 125
	want_err "--finish-percent is a number from 1 to 100"
done
