#!/bin/sh
# digest.sh - blobs that must be certain ones, and notes on blobs.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# of "abc", as xxhsum -H2 and sha256sum print them
abc_xxh128=06b05ab6733a618578af5f94892f3950
abc_sha256=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
seq 1 300000 >"$work/large"
mkfifo "$work/fifo"

case_is "what is right is stored"
for digest in xxh128:$abc_xxh128 sha256:$abc_sha256; do
	printf abc | "$sc" put --digest="$digest" "${digest%:*}" || fail "put"
	run "$sc" get "${digest%:*}"
	want_status 0
	[ "$(cat "$work/out")" = abc ] || fail "it is another"
done
printf abc | "$sc" put --digest=sha256:$abc_sha256 --digest=xxh128:$abc_xxh128 both || fail "both"
if command -v sha256sum >/dev/null 2>&1; then
	sum=$(sha256sum <"$work/large" | tr abcdef ABCDEF)
	for from in file pipe; do
		if [ $from = file ]; then
			run "$sc" put --digest="sha256:${sum%% *}" large <"$work/large"
			want_status 0
		else
			# shellcheck disable=SC2002 # it is to be a pipe
			cat "$work/large" | "$sc" put --compress=lz4 --refresh \
				--digest="sha256:${sum%% *}" large || fail "put of a pipe"
		fi
		run "$sc" get large
		want_same "$work/large" "$work/out"
	done
fi

case_is "what is not is not"
for digest in xxh128:$abc_xxh128 sha256:$abc_sha256; do
	for what in abd abcd ab ''; do
		status=0
		printf '%s' "$what" | "$sc" put --digest="$digest" wrong 2>"$work/err" || status=$?
		want_status 125
		want_err "^streamcache: nothing was stored: standard input is not what --digest says\$"
		want_err_lines 1
		has_no wrong || fail "'$what' was stored"
	done
done

case_is "who reads meanwhile is told"
for digest in xxh128:$abc_xxh128:124 sha256:$abc_sha256:1; do
	"$sc" put --digest="${digest%:*}" live <"$work/fifo" 2>"$work/err.0" &
	put=$!
	pids="$pids $put"
	exec 8>"$work/fifo"
	printf abd >&8
	await entry_is live bytes 3
	"$sc" get live >"$work/out" 2>"$work/err" 8>&- &
	get=$!
	pids="$pids $get"
	await entry_is live readers 1
	exec 8>&-
	wait_for "$put"
	want_status 125
	wait_for "$get"
	want_status "${digest##*:}"
done
want_err "it is not what --digest says"

case_is "exec --digest"
run "$sc" exec --digest=xxh128:$abc_xxh128 --key=right -- printf abc
want_status 0
run "$sc" get right
want_status 0
script wrong <<'END'
begin
printf abd
held
END
reset
"$sc" exec --digest=xxh128:$abc_xxh128 --key=wrong -- "$work/wrong" >"$work/out" 2>"$work/err" &
run=$!
pids="$pids $run"
await has_line abd "$work/out"
touch "$work/go"
wait_for "$run"
want_status 124
want_err "it is not what --digest says\$"
runs_are 1
has_no wrong || fail "it was stored"
script nothing <<'END'
begin
END
reset
run "$sc" exec --digest=xxh128:$abc_xxh128 --key=nothing -- "$work/nothing"
want_status 0
runs_are 2 # the other one is without the cache
has_no nothing || fail "it was stored"

case_is "digests that are none"
for digest in '' : abc md5:00 xxh128 xxh128: xxh128:00 "xxh128:${abc_xxh128}0" \
	"xxh128:${abc_xxh128}00" "xxh128:${abc_xxh128%?}g" sha256: "sha256:$abc_xxh128" \
	"SHA256:$abc_sha256"; do
	run "$sc" put --digest="$digest" k </dev/null
	want_status 2
	want_err "^streamcache put: '$digest' is no digest"
done
run "$sc" exec --digest=sha256:$abc_sha256 -- true
want_status 125
want_err "^streamcache exec: of sha256 only put knows"

case_is "a note, and none"
run "$sc" put --note='text/plain; of everything' noted <"$work/large"
want_status 0
run "$sc" get --note noted
want_status 0
[ "$(cat "$work/out")" = 'text/plain; of everything' ] || fail "another note"
run "$sc" get noted
want_same "$work/large" "$work/out"
run "$sc" get --note right
want_status 0
want_no_out
run "$sc" get --note missing
want_status 1
want_err "no such key"
run "$sc" put --note='' empty <"$work/large"
want_status 0
run "$sc" get --note empty
want_status 0
want_no_out
long=$(printf '%04096d' 0)
run "$sc" put --note="$long" long <"$work/large"
want_status 0
run "$sc" get --note long
[ "$(cat "$work/out")" = "$long" ] || fail "another note"
run "$sc" put --note="0$long" longer <"$work/large"
want_status 2
want_err "a note has 4096 bytes at most, this one has 4097"

case_is "a note outlives the segment"
rm "$work"/streamcache.* || fail "there is no segment"
run "$sc" get --note noted
want_status 0
[ "$(cat "$work/out")" = 'text/plain; of everything' ] || fail "another note"

case_is "the note of one that grows is waited for"
"$sc" put --note=late growing <"$work/fifo" &
put=$!
pids="$pids $put"
exec 8>"$work/fifo"
echo one >&8
await entry_is growing bytes 4
"$sc" get --note growing >"$work/out" 2>"$work/err" 8>&- &
get=$!
pids="$pids $get"
await entry_is growing readers 1
[ ! -s "$work/out" ] || fail "it has not waited"
exec 8>&-
wait_for "$put"
wait_for "$get"
want_status 0
[ "$(cat "$work/out")" = late ] || fail "another note"

case_is "the cache is sound"
run "$sc" check
want_out "0 violations found"
