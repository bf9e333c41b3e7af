#!/bin/sh
# config.sh - what is stored with a cache: shown, changed while it is in use, and refused.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# shows NAME VALUE - a line of the table
shows() {
	run "$sc" config
	want_status 0
	grep -q "^  $1  *$2\$" "$work/out" || fail "no $1 $2"
}

# shows_json NAME VALUE
shows_json() {
	run "$sc" config --json
	want_status 0
	grep -q "^ *\"$1\": *$2,*\$" "$work/out" || fail "no \"$1\": $2"
}

case_is "there is nothing to show of a cache that is not there"
run "$sc" config
want_status 125
want_no_out
[ ! -e "$work/cache" ] || fail "a cache was made"

case_is "an impossible value makes no cache"
run "$sc" config --max-bytes=1
want_status 2
want_err "streamcache: --max-bytes must be 64 KiB or more"
[ ! -e "$work/cache" ] || fail "a cache was made"

case_is "what is changed of a cache that is not there is what it begins with"
run "$sc" config --max-bytes=10M --min-free-percent=0 --min-free=1M
want_status 0
want_no_err
grep -q '^  max-bytes  *10.0 MiB$' "$work/out" || fail "not shown"
shows min-free "1.0 MiB"
shows min-free-percent 0
shows low-percent 95
shows max-entries unlimited
shows compress raw
shows_json max_bytes 10485760
shows_json max_entries null
shows_json min_free_percent 0
shows_json durability '"none"'

case_is "each setting can be changed"
run "$sc" config --max-entries=100 --low-percent=80 --max-age=2h --max-idle=30m --max-fill=1m \
	--min-occurrences=2 --window=8M --compress=lz4 --level=3 --durability=data --verify=always
want_status 0
want_no_err
shows max-entries 100
shows low-percent 80
shows max-age "2 h"
shows max-idle "30 min"
shows max-fill "60 s"
shows min-occurrences 2
shows window "8.0 MiB"
shows compress lz4
shows level 3
shows durability data
shows verify always
shows max-bytes "10.0 MiB"
run "$sc" config --max-entries=unlimited --min-occurrences=1 --max-fill=unlimited
want_status 0
shows max-entries unlimited
shows max-fill unlimited

case_is "stat shows them, and what is used of them"
run "$sc" stat --json
want_status 0
grep -q '"max_bytes": *10485760' "$work/out" || fail "no max_bytes"
[ "$(number bytes_used)" -eq 0 ] || fail "something is used"
[ "$(number bytes_spare)" -le 10485760 ] || fail "too much is spare"

case_is "unlimited is said so"
run "$sc" config --max-bytes=unlimited --min-free=0
run "$sc" stat
grep -q '^  bytes_spare  *unlimited$' "$work/out" || fail "a number"
run "$sc" stat --json
grep -q '"bytes_spare": *null' "$work/out" || fail "a number in JSON"
run "$sc" config --max-bytes=10M

case_is "it takes nothing from the environment, which says what one command does"
STREAMCACHE_COMPRESS=raw STREAMCACHE_LEVEL=9 STREAMCACHE_DURABILITY=full STREAMCACHE_VERIFY=never
export STREAMCACHE_COMPRESS STREAMCACHE_LEVEL STREAMCACHE_DURABILITY STREAMCACHE_VERIFY
run "$sc" config --low-percent=90
want_status 0
shows compress lz4
shows level 3
shows durability data
shows verify always
unset STREAMCACHE_COMPRESS STREAMCACHE_LEVEL STREAMCACHE_DURABILITY STREAMCACHE_VERIFY

case_is "what is stored holds for commands that say nothing"
seq 1 100000 | "$sc" put text || fail "put"
run "$sc" ls --long text
grep -q lz4 "$work/out" || fail "not compressed"
run "$sc" config --compress=raw --level=1 --durability=none
want_status 0

case_is "a lower limit is kept at once"
run "$sc" config --max-age=unlimited --max-idle=unlimited
for key in 1 2 3 4 5 6; do
	head -c 100000 /dev/urandom | "$sc" put $key || fail "put"
done
run "$sc" config --max-bytes=300000
want_status 0
[ "$(number bytes_used)" -le 300000 ] || fail "more is used"
[ "$(number evicted)" -ge 4 ] || fail "too few went"
run "$sc" get 6
want_status 0
head -c 100000 /dev/urandom | "$sc" put 7 || fail "put"
[ "$(number bytes_used)" -le 300000 ] || fail "more is used"
run "$sc" check
want_status 0

case_is "wrong values are refused, by name"
for wrong in max-bytes=0 max-bytes=12 max-entries=0 low-percent=101 low-percent=0 \
	low-percent=unlimited min-free-percent=100 min-free=unlimited max-idle=1ms \
	min-occurrences=300 max-entries=many max-bytes=-1 max-age=soon compress=zip level=13 \
	durability=some verify=often max-entries= low-percent=9x min-occurrences=99999999999999999999; do
	run "$sc" config "--$wrong"
	want_status 2
	want_no_out
	[ -s "$work/err" ] || fail "$wrong: no word"
done
run "$sc" config --max-entries=many
want_err "'many'"
run "$sc" config --min-free=unlimited
want_err "streamcache: --min-free must be"
run "$sc" config something
want_status 2
want_err "something"
shows max-bytes "293.0 KiB"

case_is "they outlive the segment"
rm "$work"/streamcache.*
shows low-percent 90
shows max-bytes "293.0 KiB"
