#!/bin/sh
# exec_fail.sh - exit statuses and messages: CMD's own, and those about CMD.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

script failing <<'END'
begin
echo partial
echo why >&2
held
exit 7
END

case_is "a failing command: status, output and message for all, and not stored"
reset
for i in 1 2 3 4; do
	"$sc" exec --key=failing -- "$work/failing" >"$work/out.$i" 2>"$work/err.$i" &
	eval "pid$i=$!"
	pids="$pids $!"
done
await entry_is failing readers 4
touch "$work/go"
for i in 1 2 3 4; do
	eval "wait_for \$pid$i"
	want_status 7
	[ "$(cat "$work/out.$i")" = partial ] || fail "caller $i did not get what was written"
	[ "$(cat "$work/err.$i")" = why ] || fail "caller $i did not get the message"
done
runs_are 1
run "$sc" exec --key=failing -- "$work/failing"
want_status 7
runs_are 2
run "$sc" get failing
want_status 1

case_is "standard error is live for the caller that started the run"
reset
"$sc" exec --key=live -- "$work/failing" >"$work/out.1" 2>"$work/err.1" &
pids="$pids $!"
await has_line why "$work/err.1"
touch "$work/go"
wait_for $!
want_status 7

case_is "success: messages for the first caller, none from the store"
run "$sc" exec --key=note -- sh -c 'echo note >&2; echo yes'
want_out yes
want_err '^note$'
want_err_lines 1
run "$sc" exec --key=note -- false
want_status 0
want_out yes
want_no_err

case_is "of long messages at least the end is told"
run "$sc" exec -- sh -c 'seq 1 200000 >&2; exit 1'
want_status 1
want_err '^200000$'

case_is "a signal is 128+N"
for signal in TERM:143 KILL:137 ABRT:134; do
	run "$sc" exec -- sh -c "ulimit -c 0; kill -${signal%:*} \$\$"
	want_status "${signal#*:}"
done

case_is "signals are as after login, whatever the caller ignores"
trap '' TERM PIPE INT
run "$sc" exec -- sh -c 'kill -INT $$; echo survived'
want_status 130
run "$sc" exec -- sh -c 'kill -PIPE $$; echo survived'
want_status 141
trap - PIPE
trap 'exit 1' INT TERM

case_is "126: found, but cannot be run; 127: not found"
run "$sc" exec -- "$work"
want_status 126
want_err "^streamcache: '$work': "
: >"$work/plain"
run "$sc" exec -- "$work/plain"
want_status 126
run "$sc" exec -- "$work/missing"
want_status 127
PATH=/usr/bin:/bin # a directory in it that may not be searched makes it 126
run "$sc" exec -- streamcache-no-such-command
want_status 127
want_err "^streamcache: 'streamcache-no-such-command': "
run "$sc" exec ""
want_status 127
run "$sc" exec --no-cache -- streamcache-no-such-command
want_status 127
printf '#!%s/missing\n' "$work" >"$work/bad"
chmod +x "$work/bad"
run "$sc" exec -- "$work/bad"
want_status 127
want_err_lines 1

case_is "where no blob can be made CMD runs all the same, once, and is nobody's parent"
mkdir -p "$work/odd/blobs"
chmod 700 "$work/odd" "$work/odd/blobs"
for digit in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do
	(cd "$work/odd/blobs" && for more in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do
		: >"$digit$more"
	done)
done
script childless <<'END'
begin
echo "children:$(cat "/proc/$$/task/$$/children" 2>/dev/null)"
END
reset
# what the shell starts for the substitution is a child, too: the last one
run "$sc" --cache="$work/odd" exec -- "$work/childless"
want_status 0
[ "$(wc -w <"$work/out")" -le 2 ] || fail "CMD has children that it never made"
runs_are 1
rm -r "$work/odd/blobs"
"$sc" --cache="$work/odd" destroy >/dev/null

case_is "what runs on in the background may keep standard error"
run timeout 20 "$sc" exec -- sh -c 'sleep 600 >/dev/null & echo $!'
want_status 0
kill "$(cat "$work/out")"

case_is "nobody shares descriptors or the terminal with CMD"
exec 7>"$work/seven"
# shellcheck disable=SC2016 # for the inner shell
run "$sc" exec -- sh -c 'for fd in /proc/self/fd/*; do echo "${fd##*/}"; done | sort -n | tr "\n" " "
	(: </dev/tty) 2>/dev/null && echo tty || echo "no tty"'
exec 7>&-
# sort's pipe and the directory being read are the shell's own
grep -q '^0 1 2 [^7]*no tty$' "$work/out" || fail "CMD has more than it should"

case_is "CMD has the environment, the umask and the limits of its caller"
# shellcheck disable=SC2016
(
	umask 027
	ulimit -f 77777 # in a unit that differs between shells
	COLOUR=green
	export COLOUR
	inherited=$(sh -c 'ulimit -f')
	run "$sc" exec -- sh -c 'echo $COLOUR $(umask) $(ulimit -f)'
	want_out "green 0027 $inherited"
) || exit 1
