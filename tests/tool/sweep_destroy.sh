#!/bin/sh
# sweep_destroy.sh - what goes, what stays, and what is said about it.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

files() {
	find "$work/cache" -type f -size +0 -path '*.*.*.*' | wc -l
}

files_are() {
	[ "$(files)" -eq "$1" ]
}

case_is "sweep removes what has expired, and its file"
printf young | "$sc" put --max-age=1h young || fail "put"
printf old | "$sc" put --max-age=0 old || fail "put" # the last: creation sweeps, too
run "$sc" sweep --dry-run
want_status 0
grep -q '^expired  *3 B  old$' "$work/out" || fail "the expired entry is not listed"
grep -q '^would remove 1 entry (3 B), 0 orphan files (0 B)' "$work/out" || fail "no summary"
files_are 2 || fail "a dry run removed something"
run "$sc" sweep
want_status 0
grep -q '^removed 1 entry (3 B), 0 orphan files (0 B)' "$work/out" || fail "no summary"
files_are 1 || fail "the file is still there"
run "$sc" get young
want_status 0
run "$sc" sweep
grep -q '^removed 0 entries (0 B), 0 orphan files (0 B)' "$work/out" || fail "no summary"

case_is "sweep --max-age counts for all"
run "$sc" sweep --max-age=1h
grep -q '^removed 0 entries' "$work/out" || fail "removed what is young"
run "$sc" sweep --max-age=0 --json
want_status 0
grep -q '"entries": *1,' "$work/out" || fail "no sum"
grep -q '"name": *"young"' "$work/out" || fail "no victim"
run "$sc" get young
want_status 1
files_are 0 || fail "the file is still there"

case_is "an open reader finishes what is swept"
seq 1 1000000 >"$work/large"
"$sc" put --max-age=0 large <"$work/large" || fail "put"
run "$sc" rm large
"$sc" put large <"$work/large" || fail "put"
mkfifo "$work/fifo"
"$sc" get large >"$work/fifo" &
get=$!
pids="$pids $get"
exec 8<"$work/fifo"
await entry_is large readers 1
run "$sc" sweep --max-age=0
want_status 0
run "$sc" get large
want_status 1
cat <&8 >"$work/out"
exec 8<&-
wait_for "$get"
want_status 0
want_same "$work/large" "$work/out"
run "$sc" sweep
await files_are 0

case_is "files that no entry owns go, files of strangers stay"
printf kept | "$sc" put kept || fail "put"
blob=$(find "$work/cache" -type f -path '*.*.*.*' -size +0)
[ -n "$blob" ] || fail "the blob file was not found"
cp -p "$blob" "${blob%.*}.999999"
echo mine >"$work/cache/stranger"
run "$sc" sweep --dry-run
grep -q '^orphan  *4[ .].*B  ' "$work/out" || fail "the orphan is not listed"
files_are 2 || fail "a dry run removed something"
run "$sc" sweep
want_status 0
grep -q '^removed 0 entries (0 B), 1 orphan file (4[ .].*B)' "$work/out" || fail "no summary"
files_are 1 || fail "the orphan is still there"
[ "$(cat "$work/cache/stranger")" = mine ] || fail "the stranger's file is gone"
run "$sc" get kept
want_status 0

case_is "a killed producer leaves nothing that a sweep does not remove"
"$sc" put killed <"$work/fifo" &
put=$!
pids="$pids $put"
exec 8>"$work/fifo"
printf 12345 >&8
await entry_is killed bytes 5
kill -KILL "$put"
wait "$put"
exec 8>&-
run "$sc" sweep
want_status 0
has_no killed || fail "the entry is still there"
files_are 1 || fail "its file is still there"
number_is entries 1 || fail "its slot is still in use"

case_is "destroy refuses while the cache is in use"
"$sc" put busy <"$work/fifo" &
put=$!
pids="$pids $put"
exec 8>"$work/fifo"
await entry_is busy bytes 0
run "$sc" destroy
want_status 1
want_err "^streamcache: cache $work/cache: "
run "$sc" get kept
want_status 0
exec 8>&-
wait "$put"

case_is "destroy lists what is not the cache's, and leaves it"
run "$sc" destroy --dry-run
[ -e "$blob" ] || fail "a dry run removed something"
run "$sc" destroy
want_status 1
grep -q '^unknown .*stranger$' "$work/out" || fail "the stranger's file is not listed"
[ "$(cat "$work/cache/stranger")" = mine ] || fail "the stranger's file is gone"
[ "$(find "$work/cache" -type f | wc -l)" -eq 1 ] || fail "files of ours were left"

case_is "destroy removes the rest, and a new cache can be made"
rm -f "$work/cache/stranger"
[ ! -d "$work/cache" ] || run "$sc" destroy
printf again | "$sc" put again || fail "put"
run "$sc" get again
want_status 0
run "$sc" destroy
want_status 0
want_no_err
[ ! -e "$work/cache" ] || [ -z "$(ls -A "$work/cache")" ] || fail "something was left"
run "$sc" destroy
want_status 125
