#!/bin/sh
# range.sh - get --range: parts named as in HTTP, of what is stored and of what grows.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# want_bytes TEXT - standard output is that, without a newline
want_bytes() {
	printf '%s' "$1" | cmp -s - "$work/out" || fail "standard output is not '$1'"
}

# part RANGE TEXT [KEY]
part() {
	run "$sc" get --range="$1" "${3:-ten}"
	want_status 0
	want_no_err
	want_bytes "$2"
}

printf 0123456789 | "$sc" put ten || fail "put"
: | "$sc" put none || fail "put"

case_is "parts of what is stored"
part 0-0 0
part 2-5 2345
part 9-9 9
part 0-9 0123456789
part 7- 789
part 0- 0123456789
part -3 789
part -10 0123456789

case_is "there is less than was asked for"
part 8-100 89
part 0-9223372036854775800 0123456789
part -11 0123456789
part -9000000000000000000 0123456789
part -5 "" none

case_is "there is nothing of it"
for range in 10-10 10- 11-20 9000000000000000000-; do
	run "$sc" get --range=$range ten
	want_status 1
	want_no_out
	want_err "^streamcache: range $range: the blob has only 10 bytes\$"
done
run "$sc" get --range=0- none
want_status 1
want_err "has only 0 bytes"
run "$sc" get --range=0-1 missing
want_status 1
want_err "no such key"

case_is "what is no range"
for range in "" - -- 5 a-b 1-2-3 1-2,4-5 " 1-2" "1 -2" +1-2 1-+2 0x1-2 1K-2K --5 -5- 1-x \
	99999999999999999999- 0-99999999999999999999 -99999999999999999999; do
	run "$sc" get --range="$range" ten
	want_status 2
	want_no_out
	want_err "is no range"
done
run "$sc" get --range=5-4 ten
want_status 2
want_err "ends before it begins"
run "$sc" get --range=-0 ten
want_status 2
want_err "has no bytes"
for other in --offset=1 --bytes=1 --range=0-1; do
	run "$sc" get --range=0-1 $other ten
	want_status 2
	run "$sc" get $other --range=0-1 ten
	want_status 2
	want_err "no --offset and no --bytes"
done

# grow KEY - a put of what is written to descriptor 8
grow() {
	rm -f "$work/fifo"
	mkfifo "$work/fifo"
	"$sc" put "$1" <"$work/fifo" &
	put=$!
	pids="$pids $put"
	exec 8>"$work/fifo"
}

# follow RANGE KEY FILE READERS - in the background
follow() {
	"$sc" get --range="$1" "$2" >"$work/$3" 2>"$work/$3.err" 8>&- &
	pids="$pids $!"
	await entry_is "$2" readers "$4"
}

case_is "of what grows: what is there at once, the rest when it comes"
grow growing
printf 01234 >&8
await entry_is growing bytes 5
part 1-3 123 growing
follow 3-6 growing out.1 1
first=$!
follow 6- growing out.2 2
second=$!
follow -4 growing out.3 3
third=$!
follow 12-13 growing out.4 4
fourth=$!
await has_line '^34$' "$work/out.1"
[ ! -s "$work/out.2" ] || fail "bytes that nobody has written"
printf 56789 >&8
wait_for "$first"
want_status 0
[ "$(cat "$work/out.1")" = 3456 ] || fail "not the range"
await entry_is growing bytes 10
[ ! -s "$work/out.3" ] || fail "the last bytes before the end is known"
printf ab >&8
exec 8>&-
wait_for "$put"
wait_for "$second"
want_status 0
[ "$(cat "$work/out.2")" = 6789ab ] || fail "not all to the end"
wait_for "$third"
want_status 0
[ "$(cat "$work/out.3")" = 89ab ] || fail "not the last ones"
wait_for "$fourth"
want_status 1
grep -q "^streamcache: range 12-13: the blob has only 12 bytes\$" "$work/out.4.err" ||
	fail "does not say how many there are"

case_is "the end does not come: 124"
grow dying
printf 01234 >&8
await entry_is dying bytes 5
follow -2 dying out.1 1
last=$!
follow 3- dying out.2 2
rest=$!
kill -KILL "$put"
wait_for "$last"
want_status 124
[ ! -s "$work/out.1" ] || fail "these may not be the last bytes"
wait_for "$rest"
want_status 124
[ "$(cat "$work/out.2")" = 34 ] || fail "not what was published"
exec 8>&-
wait "$put"

case_is "of a paced run: to wait for its end lets it go on"
reset
script large <<'END'
begin
held
head -c 3000000 /dev/zero
printf end
END
"$sc" exec --key=paced --window=4K -- "$work/large" >"$work/out.0" &
run=$!
pids="$pids $run"
await entry_is paced readers 1
kill -STOP "$run"
follow -3 paced out.1 2
touch "$work/go"
wait_for $!
want_status 0
[ "$(cat "$work/out.1")" = end ] || fail "not the last ones"
kill -CONT "$run"
wait_for "$run"
want_status 0
[ "$(wc -c <"$work/out.0")" -eq 3000003 ] || fail "the other reader did not get all"

case_is "of what is not stored"
reset
"$sc" exec --key=passing --pass-through -- "$work/large" >"$work/out.0" &
run=$!
pids="$pids $run"
await entry_is passing readers 1
follow -5 passing out.1 2
last=$!
follow 2999999-3000001 passing out.2 3
middle=$!
follow -3000000 passing out.3 4
most=$!
touch "$work/go"
wait_for "$last"
want_status 0
[ "$(tr '\0' 0 <"$work/out.1")" = 00end ] || fail "not the last ones"
wait_for "$middle"
want_status 0
[ "$(tr '\0' 0 <"$work/out.2")" = 0en ] || fail "not those in the midst"
wait_for "$most"
want_status 1
grep -q "is not stored" "$work/out.3.err" || fail "does not say why not"
wait_for "$run"
want_status 0
[ "$(wc -c <"$work/out.0")" -eq 3000003 ] || fail "the other reader did not get all"
