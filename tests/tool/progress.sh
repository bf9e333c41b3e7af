#!/bin/sh
# progress - on a terminal, what takes over a second says how much, how fast,
# and whom it waits for; elsewhere nothing does.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

if ! command script -qec true /dev/null >/dev/null 2>&1 </dev/null; then
	echo "needs script(1) and a pseudo-terminal"
	exit 77
fi

script silent <<'END'
begin
echo first
held
END

# on_terminal FILE COMMAND - a shell command line, its standard error a terminal
on_terminal() {
	command script -qefc "$2" "$1" >/dev/null 2>&1 </dev/null &
	pids="$pids $!"
}

case_is "whom a caller waits for is on the terminal, and gone at the end"
reset
on_terminal "$work/typescript" "'$sc' exec --key=p -- '$work/silent' >'$work/out.1'"
shown=$!
await has_line 'streamcache: 6 B, .*/s, waiting for producer [0-9]*, silent for' "$work/typescript"
touch "$work/go"
wait_for "$shown"
want_status 0
[ "$(cat "$work/out.1")" = first ] || fail "the output is not CMD's"

case_is "of what has been declared how much there is"
reset
on_terminal "$work/typescript" "'$sc' exec --size=12 --key=s -- '$work/silent' >'$work/out.1'"
shown=$!
await has_line 'streamcache: 6 B of 12 B (50%), ' "$work/typescript"
touch "$work/go"
wait_for "$shown"
want_status 124

case_is "an output that nobody reads is named"
mkfifo "$work/fifo"
exec 7<>"$work/fifo"
on_terminal "$work/typescript" "'$sc' exec --key=q -- head -c 1000000 /dev/zero >'$work/fifo'"
shown=$!
await has_line 'standard output is full' "$work/typescript"
[ "$(head -c 1000000 <&7 | wc -c)" -eq 1000000 ] || fail "the output is not whole"
wait_for "$shown"
want_status 0

case_is "a file gets no progress line"
reset
"$sc" exec --key=r -- "$work/silent" >"$work/out.1" 2>"$work/err.1" &
pids="$pids $!"
quiet=$!
await has_line first "$work/out.1"
touch "$work/go"
wait_for "$quiet"
[ ! -s "$work/err.1" ] || fail "there are messages"
