#!/bin/sh
# size.sh - sizes that are known beforehand: of files, said of pipes and commands, shown
# while they grow, and held to.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

seq 1 300000 >"$work/file"
bytes=$(wc -c <"$work/file")

# state_is TEXT KEY
state_is() {
	"$sc" ls "$2" 2>/dev/null | grep -q "^$1 .* $2\$"
}

case_is "put of a file knows it by itself"
run "$sc" put file <"$work/file"
want_status 0
want_no_err
entry_is file declared_bytes "$bytes" || fail "nothing was declared"
state_is finished file || fail "a finished one needs no per cent"
run "$sc" get file
want_same "$work/file" "$work/out"
{
	read -r _ # a shell reads a file no further than the line
	"$sc" put rest
} <"$work/file" || fail "put"
entry_is rest declared_bytes $((bytes - 2)) || fail "not what was left of it"
run "$sc" get rest
tail -c +3 "$work/file" | cmp - "$work/out" || fail "not the rest"
: >"$work/empty"
run "$sc" put empty <"$work/empty"
want_status 0
run "$sc" put --size=unlimited open <"$work/file"
want_status 0
run "$sc" ls --json open
grep -q '"declared_bytes": *null' "$work/out" || fail "it has been declared all the same"

case_is "what is no file on a disk is not"
seq 1 10 | "$sc" put pipe || fail "put of a pipe"
run "$sc" put kernel </proc/self/status
want_status 0
run "$sc" get kernel
[ -s "$work/out" ] || fail "nothing came out of /proc"
if [ -r /sys/kernel/profiling ]; then # says 4096 bytes, and has two
	run "$sc" put sys </sys/kernel/profiling
	want_status 0
fi

case_is "put --size: as many, less, more"
seq 1 10 | "$sc" put --size=21 right || fail "put"
entry_is right declared_bytes 21 || fail "not declared"
for size in 22 20 0 1G; do
	status=0
	seq 1 10 | "$sc" put --size=$size wrong 2>"$work/err" || status=$?
	want_status 125
	want_err "^streamcache: nothing was stored: standard input is not of [0-9]* bytes, as declared\$"
	want_err_lines 1
	has_no wrong || fail "$size: something was stored"
done
: | "$sc" put --size=0 nothing || fail "put of nothing"
run "$sc" put --size=x bad
want_status 2
run "$sc" put --size=-1 bad
want_status 2

case_is "while it grows all see how much of it there is"
mkfifo "$work/fifo"
"$sc" put --size=1000 growing <"$work/fifo" &
put=$!
pids="$pids $put"
exec 8>"$work/fifo"
await state_is "filling,0%" growing
printf '%0427d' 0 >&8
await state_is "filling,42%" growing
entry_is growing declared_bytes 1000 || fail "JSON does not say it"
run "$sc" get --range=-600 growing 8>&- &
last=$!
pids="$pids $last"
await entry_is growing readers 1
printf '%0573d' 0 >&8
exec 8>&-
wait_for "$put"
want_status 0
wait_for "$last"
want_status 0

case_is "exec --size"
script ten <<'END'
begin
echo 123456789
END
reset
run "$sc" exec --size=10 --key=ten -- "$work/ten"
want_status 0
want_out 123456789
entry_is ten declared_bytes 10 || fail "not declared"
for size in 9 11; do
	script ten <<'END'
begin
printf 12345
held
echo 6789
END
	reset
	"$sc" exec --size=$size --key=wrong -- "$work/ten" >"$work/out" 2>"$work/err" &
	run=$!
	pids="$pids $run"
	await has_line 12345 "$work/out"
	touch "$work/go"
	wait_for "$run"
	want_status 124
	want_err "not written as many bytes as were declared"
	runs_are 1
	has_no wrong || fail "it was stored"
done

case_is "the cache is sound"
run "$sc" check
want_out "0 violations found"
