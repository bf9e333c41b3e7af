#!/bin/sh
# verify.sh - what is stored is compared with its checksums, what is damaged goes.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

head -c 3000000 /dev/urandom >"$work/noise"
seq 1 500000 >"$work/text"

# damage KEY - stores it, then some bytes in the middle of its file change
damage() {
	find "$work/cache" -type f -path '*.*.*.*' | sort >"$work/before"
	"$sc" put --compress="${2:-raw}" --hex "$1" <"$work/noise" || fail "put"
	find "$work/cache" -type f -path '*.*.*.*' | sort >"$work/after"
	blob=$(comm -13 "$work/before" "$work/after")
	chmod u+w "$blob"
	printf 'damaged' | dd of="$blob" bs=1 seek=1500000 conv=notrunc 2>"$work/dd" || fail "dd"
	chmod u-w "$blob"
}

case_is "what is sound"
"$sc" put one <"$work/noise" || fail "put"
"$sc" put --compress=lz4 two <"$work/text" || fail "put"
: | "$sc" put empty || fail "put"
run "$sc" verify --all
want_status 0
want_no_err
grep -q '^compared 3 entries ([0-9.]* MiB), 0 damaged and removed, 0 skipped$' "$work/out" ||
	fail "no summary"
run "$sc" verify one
want_status 0
want_out "compared 1 entry (2.9 MiB), 0 damaged and removed, 0 skipped"

case_is "what is damaged is listed and removed"
damage 0a6b # "\nk"
damage 6c7a34 lz4
run "$sc" verify --all
want_status 1
grep -q '^damaged  *2\.9 MiB  \\nk$' "$work/out" || fail "the first is not listed"
grep -q '^damaged  *2\.9 MiB  lz4$' "$work/out" || fail "the second is not listed"
grep -q '^compared 5 entries (.*), 2 damaged and removed, 0 skipped$' "$work/out" ||
	fail "no summary"
[ "$(wc -l <"$work/out")" -eq 3 ] || fail "more than that"
has_no lz4 || fail "it is still there"
number_is damaged 2 || fail "stat does not know"
run "$sc" verify --all
want_status 0
run "$sc" get one
want_same "$work/noise" "$work/out"

case_is "named ones, of which some are not there"
damage 6261 # ba
run "$sc" verify one ba missing two
want_status 1
want_err "^streamcache: no such key: 'missing'\$"
grep -q '^compared 3 entries (.*), 1 damaged and removed, 0 skipped$' "$work/out" ||
	fail "no summary"
run "$sc" verify missing
want_status 1
run "$sc" verify --hex 6f6e65
want_status 0

case_is "what grows is skipped"
mkfifo "$work/fifo"
"$sc" put growing <"$work/fifo" &
put=$!
pids="$pids $put"
exec 8>"$work/fifo"
echo one >&8
await entry_is growing bytes 4
run "$sc" verify --all 8>&-
want_status 0
grep -q '^compared 3 entries (.*), 0 damaged and removed, 1 skipped$' "$work/out" ||
	fail "no summary"
exec 8>&-
wait_for "$put"

case_is "--json"
damage 0a6b
run "$sc" verify --json --all
want_status 1
for line in '"entries": *5' '"damaged": *1' '"skipped": *0' '"key_hex": *"0a6b"' \
	'"bytes": *3000000'; do
	grep -q "$line" "$work/out" || fail "no $line"
done
run "$sc" verify --json one
want_status 0
tr -d ' \n' <"$work/out" | grep -q '"victims":\[\]' || fail "no empty array"

case_is "--rate"
start=$(date +%s%N)
run "$sc" verify --rate=4M one
want_status 0
[ "$(($(date +%s%N) - start))" -ge 600000000 ] || fail "that was faster"
for bad in 0 x -1 ''; do
	run "$sc" verify --rate="$bad" one
	want_status 2
done
run "$sc" verify --rate=unlimited one
want_status 0

case_is "a line on a terminal, and none elsewhere"
if command script -qec true /dev/null >/dev/null 2>&1 </dev/null; then
	command script -qefc "'$sc' verify --rate=1500K --all" "$work/typescript" >"$work/out" 2>&1 \
		</dev/null || fail "on a terminal"
	has_line "streamcache: [0-9.]* MiB of [0-9.]* MiB ([0-9]*%), .*/s, comparing '[a-z]*'" \
		"$work/typescript" || fail "no progress"
	has_line "^.*compared 4 entries" "$work/typescript" || fail "no summary"
fi

case_is "KEYs or --all"
run "$sc" verify
want_status 2
want_err "either KEYs or --all is needed"
run "$sc" verify --all one
want_status 2
run "$sc" check
want_out "0 violations found"
