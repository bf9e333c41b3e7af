#!/bin/sh
# sweep_watch.sh - one who sweeps again and again: what it says, what it survives,
# and how it ends. And segments that nobody has any more.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# watch OPTION... - in the background; $watcher, and $work/lines
watch() {
	: >"$work/lines"
	env --default-signal=INT "$sc" sweep --watch=50ms "$@" >"$work/lines" 2>"$work/messages" &
	watcher=$!
	pids="$pids $watcher"
}

lines_reach() {
	[ "$(wc -l <"$work/lines")" -ge "$1" ]
}

messages_reach() {
	[ "$(wc -l <"$work/messages")" -ge "$1" ]
}

# It is alive: what is litter now, it finds.
sweeps_twice() {
	count=$(wc -l <"$work/lines")
	printf old | "$sc" put --max-age=0 again || fail "put"
	await lines_reach $((count + 1))
	printf old | "$sc" put --max-age=0 again || fail "put"
	await lines_reach $((count + 2))
}

ends_by() {
	kill -"$1" "$watcher"
	wait_for "$watcher"
	want_status 0
}

case_is "a line for each sweep that has done something, and none otherwise"
printf young | "$sc" put young || fail "put"
watch
sweeps_twice
[ "$(grep -c '^removed 1 entry (3 B), 0 orphan files (0 B)$' "$work/lines")" -eq 2 ] ||
	fail "something else was said"
[ "$(wc -l <"$work/lines")" -eq 2 ] || fail "more was said"
run "$sc" get young
want_status 0

case_is "it goes on when its segment is retired"
segment=$(find "$work" -maxdepth 1 -name 'streamcache.*')
printf -- '-ertsc' | dd of="$segment" conv=notrunc bs=1 2>"$work/dd" || fail "dd"
sweeps_twice

case_is "it goes on when the cache was away for a while"
count=$(wc -l <"$work/messages")
mv "$work/cache" "$work/away"
await messages_reach $((count + 1))
mv "$work/away" "$work/cache"
sweeps_twice

case_is "it is nobody's obstacle: the cache can be destroyed meanwhile, and made anew"
await "$sc" destroy
sweeps_twice

case_is "it ends by SIGTERM, and by SIGINT, with status 0"
ends_by TERM
watch
sweeps_twice
ends_by INT

case_is "with --json each line is an object"
watch --json
sweeps_twice
ends_by TERM
[ "$(grep -c '^{.*"entries":1,.*"victims":\[{.*}\]}$' "$work/lines")" -eq 2 ] ||
	fail "no object a line"
[ "$(wc -l <"$work/lines")" -eq 2 ] || fail "other lines, too"

case_is "it does not begin without a cache, or a pause"
run "$sc" --cache="$work/none" sweep --watch=1s
want_status 125
want_err "none"
for wrong in 0 unlimited nonsense; do
	run "$sc" sweep --watch="$wrong"
	want_status 2
done
run "$sc" sweep --watch=1s --dry-run
want_status 2

case_is "the segment of a cache that was removed by hand goes with a sweep of another"
printf x | "$sc" --cache="$work/lost" put x || fail "put"
segment=$(find "$work" -maxdepth 1 -name 'streamcache.*' -newer "$work/cache/ctl/lock" \
	-newer "$work/lost/ctl/lock")
rm -rf "$work/lost"
run "$sc" sweep
grep -q segment "$work/out" && fail "it is too young"
find "$work" -maxdepth 1 -name 'streamcache.*' -exec touch -d '2 minutes ago' {} +
run "$sc" sweep --dry-run
want_status 0
grep -q '^segment .*/streamcache\.' "$work/out" || fail "the segment is not listed"
grep -q '; would remove 1 lost segment (' "$work/out" || fail "no summary"
run "$sc" sweep
want_status 0
grep -q '; removed 1 lost segment (' "$work/out" || fail "no summary"
[ "$(find "$work" -maxdepth 1 -name 'streamcache.*' | wc -l)" -eq 1 ] || fail "it is still there"
run "$sc" get young
want_status 1
