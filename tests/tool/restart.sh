#!/bin/sh
# restart.sh - what was put is there after the segment is gone, as after a reboot.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

lose() {
	rm "$work"/streamcache.* || fail "there is no segment"
}

files_are() {
	count=$(find "$work/cache" -type f -path '*.*.*.*' | wc -l)
	[ "$count" -eq "$1" ] || fail "$count files instead of $1"
}

seq 1 1000000 >"$work/large"
mkfifo "$work/fifo"

case_is "get after everybody was killed and the segment is gone"
"$sc" put large <"$work/large" || fail "put"
: | "$sc" put empty || fail "put of nothing"
echo small | "$sc" put --max-age=1d small || fail "put"
"$sc" put killed <"$work/fifo" &
put=$!
pids="$pids $put"
exec 8>"$work/fifo"
cat "$work/large" >&8
await entry_is killed bytes "$(wc -c <"$work/large")"
kill -KILL "$put"
wait "$put"
exec 8>&-
files_are 4
lose
run "$sc" get large
want_status 0
want_no_err
want_same "$work/large" "$work/out"
run "$sc" get empty
want_status 0
want_no_out
run "$sc" get killed
want_status 1
number_is adopted 2 || fail "two have been asked for, and $(number adopted) are adopted"
number_is hits 2 || fail "$(number hits) hits"

case_is "a part of one, and one that is not to be too old"
lose
run "$sc" get --offset=1000 --bytes=20 large
want_status 0
tail -c +1001 "$work/large" | head -c 20 | cmp - "$work/out" || fail "that is not the part"
run "$sc" get --max-age=1ns small
want_status 1
run "$sc" get --max-age=1h small
want_status 0
want_out small

case_is "exec does not run its command again"
reset
script slow <<'END'
begin
echo made
END
run "$sc" exec --key=made -- "$work/slow"
want_out made
lose
run "$sc" exec --key=made -- "$work/slow"
want_status 0
want_out made
runs_are 1

case_is "sweep says what it adopts"
run "$sc" rm made
want_status 0
lose
run "$sc" ls
want_no_out
run "$sc" sweep --dry-run
want_status 0
[ "$(grep -c '^adopted .*  blobs/' "$work/out")" -eq 3 ] || fail "three are to be listed"
has_line '^would remove 0 entries (0 B), 0 orphan files (0 B); would adopt 3 former blobs (' \
	"$work/out" || fail "no summary"
number_is entries 0 || fail "a dry run adopted something"
run "$sc" sweep --dry-run --json
has_line '"adopted": *3,' "$work/out" || fail "no sum"
[ "$(grep -c '"why": *"adopted"' "$work/out")" -eq 3 ] || fail "three are to be listed"
run "$sc" sweep
want_status 0
[ "$(wc -l <"$work/out")" -eq 1 ] || fail "more than a summary"
has_line '^removed 0 entries (0 B), 0 orphan files (0 B); adopted 3 former blobs (' \
	"$work/out" || fail "no summary"
number_is entries 3 || fail "they are no entries"
run "$sc" sweep
has_line '^removed 0 entries (0 B), 0 orphan files (0 B)$' "$work/out" || fail "once more"
lose
run "$sc" sweep --json
has_line '"adopted": *3,' "$work/out" || fail "no sum"
has_line '"adopted_bytes": *[1-9]' "$work/out" || fail "no bytes"
run "$sc" get large
want_same "$work/large" "$work/out"

case_is "rm, and put --refresh, count for what nobody has asked for yet"
lose
run "$sc" rm small
want_status 0
run "$sc" get small
want_status 1
run "$sc" rm small
want_status 1
echo new >"$work/new"
lose
run "$sc" put large <"$work/new"
want_status 1
want_err "^streamcache: the key exists"
lose
run "$sc" put --refresh large <"$work/new"
want_status 0
run "$sc" get large
want_out new
files_are 2
lose
run "$sc" get large
want_out new
run "$sc" get small
want_status 1

case_is "a damaged one is not served"
lose
blob=$(find "$work/cache" -type f -path '*.*.*.*' -size +0 -exec grep -l '^new' {} +)
chmod 600 "$blob"
printf X | dd of="$blob" conv=notrunc status=none
chmod 400 "$blob"
run "$sc" get large
want_status 1
want_no_out
run "$sc" sweep
files_are 1
