#!/bin/sh
# seldom.sh - what is wanted too seldom is shared by those who want it at the same time,
# and is not stored.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

script held <<'END'
begin
echo first
held
echo last
END
printf 'first\nlast\n' >"$work/expected"

# eight KEY - callers at the same time, as one run
eight() {
	for i in 1 2 3 4 5 6 7 8; do
		"$sc" exec --key="$1" -- "$work/held" >"$work/out.$i" 2>"$work/err.$i" &
		eval "pid$i=$!"
		pids="$pids $!"
	done
	await entry_is "$1" readers 8
	"$sc" ls "$1" >"$work/listed"
	"$sc" ls --json "$1" >"$work/listed.json"
	touch "$work/go"
	for i in 1 2 3 4 5 6 7 8; do
		eval "wait_for \$pid$i"
		want_status 0
		want_same "$work/expected" "$work/out.$i"
		[ ! -s "$work/err.$i" ] || fail "caller $i has messages"
	done
	rm "$work/go"
}

run "$sc" config --min-occurrences=2
want_status 0
case_is "exec: twice the command runs, the third time it is stored"
reset
touch "$work/go"
for runs in 1 2 2 2; do
	run "$sc" exec --key=k -- "$work/held"
	want_status 0
	want_same "$work/expected" "$work/out"
	want_no_err
	runs_are $runs
	[ $runs -eq 2 ] || has_no k || fail "the first run was stored"
done
number_is not_retained 1 || fail "one run was not retained"

case_is "eight who come at once are one, and nothing is left of that"
reset
eight e
runs_are 1
has_line '"transient"' "$work/listed.json" || fail "ls --json does not say that it is transient"
has_line "^filling,transient " "$work/listed" || fail "ls does not say that it is transient"
has_no e || fail "it was stored"
eight e
runs_are 2
has_line '"transient"' "$work/listed.json" && fail "the second is stored: it is not transient"
run "$sc" exec --key=e -- "$work/held"
want_same "$work/expected" "$work/out"
runs_are 2

case_is "put says why nothing was stored, and the next one is"
status=0
seq 1 10 | "$sc" put p 2>"$work/err" || status=$?
want_status 125
want_err "^streamcache: nothing was stored: .*min_occurrences is 2\$"
want_err_lines 1
has_no p || fail "it was stored all the same"
seq 1 10 | "$sc" put p || fail "the second put"
seq 1 10 >"$work/expected"
run "$sc" get p
want_same "$work/expected" "$work/out"

case_is "put of what somebody reads: he has it"
rm -f "$work/go"
{
	echo 1
	until [ -e "$work/go" ]; do sleep 0.02; done
	seq 2 10
} | "$sc" put q 2>"$work/err" &
pids="$pids $!"
putter=$!
await entry_is q bytes 2
"$sc" get q >"$work/out" &
pids="$pids $!"
getter=$!
await entry_is q readers 1
touch "$work/go"
wait_for $putter
want_status 125
wait_for $getter
want_status 0
want_same "$work/expected" "$work/out"
has_no q || fail "it was stored"

case_is "back to one: stored at once"
run "$sc" config --min-occurrences=1
seq 1 10 | "$sc" put r || fail "put"
run "$sc" get r
want_same "$work/expected" "$work/out"
run "$sc" check
want_status 0
