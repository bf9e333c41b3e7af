#!/bin/sh
# ls_stat.sh - what the inspecting verbs print, for people and as JSON.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# want_json - standard output is JSON, as far as anything here can tell
want_json() {
	if command -v jq >/dev/null 2>&1; then
		jq . "$work/out" >/dev/null || fail "jq does not take it"
	elif command -v python3 >/dev/null 2>&1; then
		python3 -m json.tool "$work/out" >/dev/null || fail "python3 does not take it"
	fi
}

# want_member NAME VALUE - a pattern
want_member() {
	grep -q "^ *\"$1\": *$2,*\$" "$work/out" || fail "no \"$1\": $2"
}

case_is "ls of nothing"
: | "$sc" put first || fail "put"
run "$sc" rm first
run "$sc" ls
want_status 0
want_no_out
run "$sc" ls --json
want_status 0
[ "$(tr -d ' \n' <"$work/out")" = "[]" ] || fail "no empty array"

case_is "ls lists finished entries"
printf '%01000d' 7 | "$sc" put --max-age=3h big || fail "put"
: | "$sc" put --max-age=unlimited small || fail "put"
run "$sc" ls
want_status 0
[ "$(wc -l <"$work/out")" -eq 3 ] || fail "not one line each and a head"
grep -q '^STATE .* KEY$' "$work/out" || fail "no head"
grep -q '^finished  *1000 B  *0  *[0-9]* ms  *2 h  *-  big$' "$work/out" ||
	grep -q '^finished  *1000 B  *0  *[0-9]* m*s  *179 min  *-  big$' "$work/out" ||
	grep -q '^finished  *1000 B  *0  *[0-9]* s  *2 h  *-  big$' "$work/out" || fail "no big"
grep -q '^finished  *0 B  *0  *[0-9]* m*s  *-  *-  small$' "$work/out" || fail "no small"

case_is "ls KEY limits it, and misses what is not there"
run "$sc" ls small
want_status 0
[ "$(wc -l <"$work/out")" -eq 2 ] || fail "more than asked for"
run "$sc" ls small absent
want_status 1
want_err "no such key: 'absent'"
grep -q 'small$' "$work/out" || fail "what is there is not listed"

case_is "ls --json"
run "$sc" ls --json big
want_status 0
want_json
want_member key '"big"'
want_member key_hex '"626967"'
want_member state '"finished"'
want_member bytes 1000
want_member stored_bytes 1000
want_member readers 0
want_member expires_in_ns '[0-9]\{13,\}'
want_member producer_pid null
run "$sc" ls --json small
want_member expires_in_ns null

case_is "ls shows how they are stored, if that is wanted"
seq 1 100000 | "$sc" put --compress=lz4 packed || fail "put"
run "$sc" ls --long
want_status 0
grep -q '^STATE  *SIZE STORED  *FILE READERS .* KEY$' "$work/out" || fail "no head"
grep -q '^finished  *1000 B  *raw  *1\.1 KiB  *0 .* big$' "$work/out" || fail "no big"
grep -q '^finished  *575\.1 KiB  *lz4  *[0-9.]* KiB  *0 .* packed$' "$work/out" || fail "no packed"
run "$sc" ls --json packed
want_json
want_member compression '"lz4"'
want_member bytes 588895
want_member stored_bytes 588895
"$sc" get --compressed packed >"$work/frame" || fail "get"
[ "$(entry packed file_bytes)" -gt "$(wc -c <"$work/frame")" ] || fail "its footer is not counted"
[ "$(entry packed file_bytes)" -lt 500000 ] || fail "it is not smaller"
run "$sc" ls --json big
want_member compression '"raw"'
want_member file_bytes '1[0-9][0-9][0-9]'
run "$sc" rm packed
want_status 0

case_is "ls shows who produces and who reads"
mkfifo "$work/fifo"
"$sc" put growing <"$work/fifo" &
put=$!
pids="$pids $put"
exec 8>"$work/fifo"
printf 12345 >&8
await entry_is growing bytes 5
"$sc" get growing >/dev/null 8>&- &
get=$!
pids="$pids $get"
await entry_is growing readers 1
run "$sc" ls growing
grep -q "^filling  *5 B  *1  *[0-9]* m*s  *-  *$put  growing\$" "$work/out" || fail "no such line"
run "$sc" ls --long growing
grep -q "^filling  *5 B  *raw  *-  *1 .* growing\$" "$work/out" || fail "no such long line"
run "$sc" ls --json growing
want_json
want_member state '"filling"'
want_member producer_pid "$put"
want_member window_bytes null
run "$sc" stat --json
want_member entries_filling 1
want_member entries_finished 2
want_member peers 3
want_member readers 1
exec 8>&-
wait "$put" "$get"

case_is "odd keys are escaped for people and exact in hexadecimal"
: | "$sc" put --hex 0a1b5cff || fail "put"
: | "$sc" put --hex c3bc2062c29b || fail "put"
run "$sc" ls --hex 0a1b5cff
grep -q '  \\n\\033\\\\\\377$' "$work/out" || fail "the key is not escaped"
run "$sc" ls --hex c3bc2062c29b
grep -q "  ü b\\\\302\\\\233\$" "$work/out" || fail "the key is not as it should be"
run "$sc" ls --json --hex 0a1b5cff
want_json
want_member key_hex '"0a1b5cff"'
run "$sc" ls --json
want_json

case_is "stat counts what happened"
"$sc" get big >/dev/null || fail "get"
"$sc" get big >/dev/null || fail "get"
run "$sc" stat --json
want_status 0
want_json
want_member productions 7
want_member finishes 7
want_member failures 0
want_member joins 1
want_member hits 3
want_member bytes_produced 589900
want_member entries_hidden 0
for name in entries entries_free entries_failed rings_in_use misses deaths bypasses \
	bytes_from_ring bytes_from_file reads_from_ring reads_from_file waits wakes expired \
	removed degraded max_entries max_peers max_readers max_rings ring_bytes segment_bytes \
	max_age_ns window_bytes; do
	want_member "$name" '[0-9][0-9]*'
done
want_member directory "\"$work/cache\""
want_member mode '"0700"'

case_is "stat for people"
run "$sc" stat
want_status 0
grep -q "^cache $work/cache\$" "$work/out" || fail "no directory"
grep -q '^  productions  *7$' "$work/out" || fail "no productions"
grep -q '^  max-age  *60 min$' "$work/out" || fail "no max-age"

case_is "check finds nothing wrong"
run "$sc" check
want_status 0
want_out "0 violations found"
run "$sc" check --json
want_status 0
want_json
want_member violations 0

case_is "check --repair finds nothing to do, twice"
for _ in 1 2; do
	run "$sc" check --repair --json
	want_status 0
	want_json
	want_member violations 0
	want_member replaced false
done
want_member reaped 0
want_member freed 0
run "$sc" check --repair
want_status 0
grep -q '^0 dead processes cleaned up' "$work/out" || fail "does not say what was done"

case_is "inspecting does not create a cache"
for verb in "ls" "stat" "check" "get x" "rm x" "rm --all" "sweep" "verify --all" "destroy"; do
	# shellcheck disable=SC2086 # verb and argument
	run "$sc" --cache="$work/none" $verb
	want_status 125
	want_no_out
	want_err "^streamcache: cache $work/none: "
	[ ! -e "$work/none" ] || fail "$verb made a directory"
done
