#!/bin/sh
# exec_killed.sh - callers, the run and its holder are interrupted and killed.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

script held <<'END'
begin
echo $$ >"$work/cmd"
echo first
held
echo last
END
printf 'first\nlast\n' >"$work/expected"
pid1='' pid2=''

# start N COMMAND... - in the background, as a session of its own, as from a terminal
start() {
	n=$1
	shift
	rm -f "$work/out.$n" "$work/err.$n" # of the case before: somebody awaits these
	setsid env --default-signal=INT,QUIT "$@" >"$work/out.$n" 2>"$work/err.$n" &
	eval "pid$n=$!"
	pids="$pids $!"
}

for signal in INT KILL; do
	case_is "SIG$signal to the first caller and its group leaves the others fine"
	reset
	start 1 "$sc" exec --key="first-$signal" -- "$work/held"
	await entry_is "first-$signal" readers 1
	await has_line first "$work/out.1"
	start 2 "$sc" exec --key="first-$signal" -- "$work/held"
	await entry_is "first-$signal" readers 2
	kill "-$signal" "-$pid1"
	wait_for "$pid1"
	[ "$status" -gt 128 ] || fail "the first caller was not hurt"
	touch "$work/go"
	wait_for "$pid2"
	want_status 0
	want_same "$work/expected" "$work/out.2"
	runs_are 1
	run "$sc" exec --key="first-$signal" -- "$work/held"
	want_same "$work/expected" "$work/out"
	runs_are 1
done

case_is "a caller that closes its output leaves the others fine"
reset
start 1 "$sc" exec --key=head -- "$work/held"
await entry_is head readers 1
rm -f "$work/out.2" # of the case before
"$sc" exec --key=head -- "$work/held" | head -n 1 >"$work/out.2" &
pids="$pids $!"
await has_line first "$work/out.2"
touch "$work/go"
wait_for "$pid1"
want_status 0
want_same "$work/expected" "$work/out.1"
[ "$(cat "$work/out.2")" = first ] || fail "head got more than the first line"

script silent <<'END'
trap 'echo term >"$work/term"; exit 0' TERM
begin
echo $$ >"$work/cmd"
while :; do sleep 0.02; done
END
script stubborn <<'END'
trap '' TERM
begin
echo $$ >"$work/cmd"
while :; do sleep 0.02; done
END

case_is "when nobody listens a silent CMD gets SIGTERM, and nothing is stored"
reset
start 1 "$sc" exec --key=silent -- "$work/silent"
await entry_is silent readers 1
await test -s "$work/cmd"
kill -KILL "$pid1"
await test -e "$work/term"
await is_gone "$(cat "$work/cmd")"
await has_no silent
run "$sc" get silent
want_status 1

case_is "what ignores SIGTERM is killed"
reset
rm -f "$work/cmd"
start 1 "$sc" exec --key=stubborn -- "$work/stubborn"
await entry_is stubborn readers 1
await test -s "$work/cmd"
kill -INT "-$pid1"
await is_gone "$(cat "$work/cmd")"

case_is "124: the holder is killed after the first byte, and CMD ends with it"
reset
rm -f "$work/cmd"
start 1 "$sc" exec --key=lost -- "$work/held"
await has_line first "$work/out.1"
kill -KILL "$(entry lost producer_pid)"
wait_for "$pid1"
want_status 124
[ "$(cat "$work/out.1")" = first ] || fail "what was published is not all there"
[ "$(wc -l <"$work/err.1")" -eq 1 ] || fail "one line should say so"
await is_gone "$(cat "$work/cmd")"

script second <<'END'
begin
[ "$(wc -l <"$work/runs")" -ge "$1" ] || while :; do sleep 0.02; done
echo yes
END

case_is "the holder is killed before the first byte: nobody notices"
reset
start 1 "$sc" exec --key=second -- "$work/second" 2
await test -s "$work/runs"
start 2 "$sc" exec --key=second -- "$work/second" 2
await entry_is second readers 2
kill -KILL "$(entry second producer_pid)"
for i in 1 2; do
	eval "wait_for \$pid$i"
	want_status 0
	[ "$(cat "$work/out.$i")" = yes ] || fail "wrong output"
	[ ! -s "$work/err.$i" ] || fail "somebody noticed"
done
runs_are 2

case_is "--on-death=fail: then somebody does"
reset
start 1 "$sc" exec --on-death=fail --key=failing -- "$work/second" 2
await test -s "$work/runs"
await entry_is failing readers 1
kill -KILL "$(entry failing producer_pid)"
wait_for "$pid1"
want_status 124
runs_are 1

script twice <<'END'
begin
echo first
[ "$(wc -l <"$work/runs")" -ge 2 ] || while :; do sleep 0.02; done
echo "$1"
END

case_is "--on-death=deterministic: another run goes on after the first byte"
reset
for i in 1 2; do
	start $i "$sc" exec --on-death=deterministic --key=twice -- "$work/twice" last
done
for i in 1 2; do
	await has_line first "$work/out.$i"
done
kill -KILL "$(entry twice producer_pid)"
for i in 1 2; do
	eval "wait_for \$pid$i"
	want_status 0
	[ "$(cat "$work/out.$i")" = "first
last" ] || fail "wrong output"
	[ ! -s "$work/err.$i" ] || fail "somebody noticed"
done
runs_are 2

script differing <<'END'
begin
wc -l <"$work/runs"
[ "$(wc -l <"$work/runs")" -ge 2 ] || while :; do sleep 0.02; done
END

case_is "--on-death=deterministic: not if that run prints something else"
reset
start 1 "$sc" exec --on-death=deterministic --key=differing -- "$work/differing"
await test -s "$work/out.1"
kill -KILL "$(entry differing producer_pid)"
wait_for "$pid1"
want_status 124
[ "$(cat "$work/out.1")" = 1 ] || fail "wrong output"
grep -q 'did not yield the same' "$work/err.1" || fail "does not say why"

case_is "--stall-timeout: the holder is stopped before the first byte, CMD is run without it"
reset
start 1 "$sc" exec --stall-timeout=1s --key=stalled -- "$work/second" 2
await test -s "$work/runs"
await entry_is stalled readers 1
holder=$(entry stalled producer_pid)
kill -STOP "$holder"
wait_for "$pid1"
want_status 0
[ "$(cat "$work/out.1")" = yes ] || fail "wrong output"
kill -TERM "$holder"
kill -CONT "$holder"
await is_gone "$holder"

case_is "a holder that gets SIGTERM stops CMD and tells its readers"
reset
rm -f "$work/cmd"
start 1 "$sc" exec --key=term -- "$work/held"
await has_line first "$work/out.1"
kill -TERM "$(entry term producer_pid)"
wait_for "$pid1"
want_status 124
await is_gone "$(cat "$work/cmd")"

case_is "after all this nobody is left, and the cache is sound"
await number_is peers 1
await number_is readers 0
run "$sc" check
want_status 0
