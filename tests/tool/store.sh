#!/bin/sh
# store.sh - how blobs are stored and verified: --compress, --level, --durability,
# --verify, and the variables that stand in for them.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

seq 1 300000 >"$work/text"
head -c 1000000 /dev/urandom >"$work/noise"

# stored_as FORMAT - the newest blob: lz4, as its magic says, or raw
stored_as() {
	blob=$(find "$work/cache" -type f -path '*.*.*.*' -printf '%C@ %p\n' | sort -n | tail -n 1)
	blob=${blob#* }
	format=raw
	[ "$(head -c 4 "$blob" | od -An -tx1 | tr -d ' ')" != 04224d18 ] || format=lz4
	[ "$format" = "$1" ] || fail "it is stored as $format"
}

# damage [OFFSET] - some bytes of the newest blob
damage() {
	blob=$(find "$work/cache" -type f -path '*.*.*.*' -printf '%C@ %p\n' | sort -n | tail -n 1)
	blob=${blob#* }
	chmod u+w "$blob"
	printf 'damaged' | dd of="$blob" bs=1 seek="${1:-500000}" conv=notrunc 2>"$work/dd" || fail "dd"
	chmod u-w "$blob"
}

case_is "put is raw unless something else is said"
run "$sc" put plain <"$work/text"
want_status 0
stored_as raw

case_is "put --compress=raw, lz4, auto"
for how in raw:text:raw lz4:text:lz4 auto:text:lz4 auto:noise:raw; do
	file=${how#*:}
	run "$sc" put --compress="${how%%:*}" "$how" <"$work/${file%:*}"
	want_status 0
	want_no_err
	stored_as "${how##*:}"
	run "$sc" get "$how"
	want_same "$work/${file%:*}" "$work/out"
done

case_is "a level is of lz4"
for level in 1 9 12; do
	run "$sc" put --level=$level level$level <"$work/text"
	want_status 0
	stored_as lz4
	run "$sc" get level$level
	want_same "$work/text" "$work/out"
	wc -c <"$blob" >"$work/bytes$level"
done
[ "$(cat "$work/bytes9")" -lt "$(cat "$work/bytes1")" ] || fail "9 is not smaller than 1"
run "$sc" put --level=9 --compress=raw level.raw <"$work/text"
want_status 0
stored_as raw

case_is "the variables, and options before them"
export STREAMCACHE_COMPRESS=lz4 STREAMCACHE_LEVEL=9
run "$sc" put by.env <"$work/text" # a key as long: so are the files
want_status 0
stored_as lz4
[ "$(wc -c <"$blob")" -eq "$(cat "$work/bytes9")" ] || fail "not level 9"
run "$sc" put --compress=raw options <"$work/text"
want_status 0
stored_as raw
STREAMCACHE_COMPRESS='' run "$sc" put nothing <"$work/text"
want_status 0
stored_as raw
unset STREAMCACHE_COMPRESS STREAMCACHE_LEVEL

case_is "what exec runs is stored so, too"
run "$sc" exec --compress=lz4 --level=9 --durability=data --key=by.run -- cat "$work/text"
want_status 0
want_same "$work/text" "$work/out"
stored_as lz4
STREAMCACHE_COMPRESS=auto run "$sc" exec --key=run -- cat "$work/text"
want_status 0
stored_as lz4

case_is "values that are none"
for bad in compress=zip compress= compress=LZ4 level=0 level=13 level=x level= level=01 \
	durability=yes durability=; do
	run "$sc" put --$bad k </dev/null
	want_status 2
	want_err "^streamcache put: --${bad%=*} is .*, not '${bad#*=}'\$"
	run "$sc" exec --$bad -- echo no
	want_status 125
	want_no_out
	run "$sc" git-pack-objects --$bad git pack-objects
	want_status 125
	want_no_out
done
for verb in get exec; do
	run "$sc" $verb --verify=maybe k
	[ "$status" -eq 2 ] || [ "$status" -eq 125 ] || fail "exit status $status"
	want_err "^streamcache $verb: --verify is restart, never or always, not 'maybe'\$"
done
run "$sc" get --compress=lz4 plain
want_status 2
has_no k || fail "something was stored"

case_is "variables with values that are none"
for name in COMPRESS LEVEL DURABILITY VERIFY; do
	run env STREAMCACHE_$name=nonsense "$sc" put k </dev/null
	want_status 125
	want_err "^streamcache: STREAMCACHE_$name is .*, not 'nonsense'\$"
	want_err_lines 1
	run env STREAMCACHE_$name=nonsense "$sc" exec -- echo yes
	want_status 0
	want_out yes
	want_err "not 'nonsense'; running the command without it\$"
done
has_no k || fail "something was stored"

case_is "what is to last is synced, what is not is not"
for how in none data full; do
	run "$sc" put --durability=$how last.$how <"$work/text"
	want_status 0
	want_no_err
	run "$sc" get last.$how
	want_same "$work/text" "$work/out"
done
if command -v strace >/dev/null 2>&1 && strace -o "$work/trace" true 2>/dev/null; then
	# syncs STATUS COMMAND... - does it call fsync(2) or the like?
	syncs() {
		want=$1
		shift
		# leaks cannot be looked for by two debuggers at once
		ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 strace -f -o "$work/trace" \
			-e trace=fsync,fdatasync,syncfs "$@" >"$work/out" 2>&1 || fail "strace: $*"
		found=1
		! grep -q 'sync(' "$work/trace" || found=0
		[ "$found" -eq "$want" ] || fail "$*: $found"
	}
	syncs 1 "$sc" put s.none <"$work/text"
	syncs 0 "$sc" put --durability=data s.data <"$work/text"
	syncs 0 env STREAMCACHE_DURABILITY=full "$sc" put s.full <"$work/text"
	syncs 0 "$sc" exec --durability=full --key=s.exec -- echo synced
fi

case_is "--verify=always finds what is damaged, and then it is gone"
for how in raw lz4; do
	run "$sc" put --compress=$how damaged <"$work/noise"
	want_status 0
	damage
	run "$sc" get --verify=always damaged
	want_status 124
	want_err "damaged"
	run "$sc" get damaged
	want_status 1
done
run "$sc" put damaged <"$work/noise"
damage
run env STREAMCACHE_VERIFY=always "$sc" get damaged
want_status 124
has_no damaged || fail "it is still there"

case_is "--verify=restart does as soon as the segment is another"
run "$sc" put damaged <"$work/noise"
damage
run "$sc" get damaged
want_status 0
! cmp -s "$work/out" "$work/noise" || fail "nothing was damaged"
rm "$work"/streamcache.* || fail "there is no segment"
run "$sc" get --verify=never damaged
want_status 0
! cmp -s "$work/out" "$work/noise" || fail "nothing was damaged"
run "$sc" get damaged
want_status 124
has_no damaged || fail "it is still there"

case_is "exec --verify=always runs its command again, unseen"
script loud <<'END'
begin
cat "$work/noise"
END
reset
run "$sc" exec --key=loud -- "$work/loud"
want_status 0
damage 1000 # later than that some would be printed already
run "$sc" exec --verify=always --key=loud -- "$work/loud"
want_status 0
want_same "$work/noise" "$work/out"
runs_are 2

case_is "the cache is sound"
run "$sc" check
want_out "0 violations found"
