#!/bin/sh
# exec_once.sh - one run serves all who ask, now and later; what fails is told
# to all and stored for nobody.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
unset STREAMCACHE_SEGMENT_DIR # here the default place

script held <<'END'
begin
echo first
held
echo last
END

case_is "eight concurrent callers share one run and stream it live"
reset
for i in 1 2 3 4 5 6 7 8; do
	"$sc" exec --key=eight -- "$work/held" >"$work/out.$i" 2>"$work/err.$i" &
	eval "pid$i=$!"
	pids="$pids $!"
done
await entry_is eight readers 8
for i in 1 2 3 4 5 6 7 8; do
	await has_line first "$work/out.$i"
done
touch "$work/go"
printf 'first\nlast\n' >"$work/expected"
for i in 1 2 3 4 5 6 7 8; do
	eval "wait_for \$pid$i"
	want_status 0
	want_same "$work/expected" "$work/out.$i"
	[ ! -s "$work/err.$i" ] || fail "caller $i has messages"
done
runs_are 1

case_is "a later caller gets what was stored"
run "$sc" exec --key=eight -- "$work/held"
want_status 0
want_same "$work/expected" "$work/out"
runs_are 1

case_is "--pass-through: shared by those who are there, and not stored"
reset
for i in 1 2 3; do
	"$sc" exec --pass-through --key=through -- "$work/held" >"$work/out.$i" &
	eval "pid$i=$!"
	pids="$pids $!"
done
await entry_is through readers 3
touch "$work/go"
for i in 1 2 3; do
	eval "wait_for \$pid$i"
	want_status 0
	want_same "$work/expected" "$work/out.$i"
done
runs_are 1
await has_no through
run "$sc" exec --pass-through --key=through -- "$work/held"
want_status 0
want_same "$work/expected" "$work/out"
runs_are 2

case_is "--pace=slowest: one that stops stops the run, and the others have their bytes"
reset
script much <<'END'
begin
exec seq 1 2000000
END
seq 1 2000000 >"$work/expected.much"
mkfifo "$work/slow"
"$sc" exec --pace=slowest --key=paced -- "$work/much" >"$work/slow" &
slow=$!
pids="$pids $slow"
exec 7<"$work/slow" # not read yet
# Else the quick one might be alone with the run, to its end.
await has_flag paced writer-waits
"$sc" exec --pace=slowest --key=paced -- "$work/much" >"$work/out.1" 7<&- &
quick=$!
pids="$pids $quick"
await entry_is paced readers 2
await has_flag paced writer-waits
[ "$(entry paced bytes)" -lt 4000000 ] || fail "it ran on"
cmp - "$work/expected.much" <&7 || fail "the slow one got other bytes"
exec 7<&-
wait_for "$slow"
want_status 0
wait_for "$quick"
want_status 0
want_same "$work/expected.much" "$work/out.1"
runs_are 1
run "$sc" exec --pace=medium --key=paced -- true
want_status 125

case_is "the default key tells commands, arguments, directories and umasks apart"
reset
script args <<'END'
begin
echo "$# $*"
END
run "$sc" exec -- "$work/args" a b
want_out "2 a b"
run "$sc" exec "$work/args" a b
want_out "2 a b"
runs_are 1
run "$sc" exec -- "$work/args" "a b"
want_out "1 a b"
runs_are 2
(cd / && run "$sc" exec -- "$work/args" a b)
runs_are 3
(umask 0 && run "$sc" exec -- "$work/args" a b)
runs_are 4
touch -d "2001-01-01" "$work/args"
run "$sc" exec -- "$work/args" a b
runs_are 5

case_is "options behind CMD are CMD's"
run "$sc" exec echo --key=x --help
want_status 0
want_out "--key=x --help"

case_is "a large output arrives whole, and again from the store"
seq 1 2000000 >"$work/expected"
run "$sc" exec -- seq 1 2000000
want_status 0
want_same "$work/expected" "$work/out"
run "$sc" exec -- seq 1 2000000
want_same "$work/expected" "$work/out"

case_is "what cannot be stored is delivered all the same"
reset
script many <<'END'
begin
seq 1 2000000
END
for i in 1 2; do
	(ulimit -f 8 && "$sc" exec --key=many -- "$work/many" 2>&1) | cmp - "$work/expected" ||
		fail "not all was delivered"
	runs_are "$i"
done

case_is "an empty output is a result, too"
run "$sc" exec -- true
want_status 0
want_no_out
run "$sc" exec -- true
want_status 0
want_no_err

case_is "--refresh runs it again and replaces what is stored"
reset
script count <<'END'
begin
wc -l <"$work/runs"
END
run "$sc" exec --key=count -- "$work/count"
want_out 1
run "$sc" exec --key=count -- "$work/count"
want_out 1
run "$sc" exec --refresh --key=count -- "$work/count"
want_out 2
run "$sc" exec --key=count -- "$work/count"
want_out 2

case_is "--max-age: an older run does not count"
run "$sc" exec --max-age=1h --key=count -- "$work/count"
want_out 2
run "$sc" exec --max-age=1ns --key=count -- "$work/count"
want_out 3

case_is "--no-cache and STREAMCACHE_DISABLE simply run it"
reset
run "$sc" exec --no-cache --key=count -- "$work/count"
want_out 1
run env STREAMCACHE_DISABLE=1 "$sc" exec --key=count -- "$work/count"
want_out 2
want_no_err
run env STREAMCACHE_DISABLE=1 "$sc" exec -- sh -c 'exit 9'
want_status 9

case_is "a cache that cannot be used: CMD runs, and one line says why"
reset
: >"$work/file"
for i in 1 2; do
	run "$sc" --cache="$work/file" exec -- "$work/count"
	want_status 0
	want_out "$i"
	want_err "^streamcache: cache $work/file: .*; running the command without it"
	want_err_lines 1
done
run env -u HOME -u XDG_CACHE_HOME -u STREAMCACHE_DIR "$sc" exec -- sh -c 'echo yes; exit 3'
want_status 3
want_out yes
want_err_lines 1
