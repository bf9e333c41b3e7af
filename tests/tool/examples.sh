#!/bin/sh
# examples - each is built as its reader would build it, against an installed
# library by way of pkg-config, and does what its first lines say.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

top=$(cd "${TOP_SRCDIR:-$(dirname "$0")/../..}" && pwd) || exit 1
top_build=$(dirname "$sc")
dir=$work/cache

case_is "installing"
# One job and silent: make check has its own
MAKEFLAGS='' make -s -C "$top_build" install DESTDIR="$work/root" >"$work/out" 2>&1 ||
	fail "make install"
PKG_CONFIG_PATH=$(dirname "$(find "$work/root" -name streamcache.pc)")
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR="$work/root"
LD_LIBRARY_PATH=$(dirname "$PKG_CONFIG_PATH")
export LD_LIBRARY_PATH

case_is "building"
mkdir "$work/bin"
for source in "$top"/examples/*.c; do
	name=$(basename "$source" .c)
	[ "$(wc -l <"$source")" -lt 80 ] || fail "$name.c has 80 lines or more"
	# shellcheck disable=SC2046,SC2086 # lists of flags
	${CC:-cc} ${SANITIZE:-} -std=gnu11 -Wall -Wextra -Werror $(pkg-config --cflags streamcache) \
		"$source" -o "$work/bin/$name" $(pkg-config --libs streamcache) -pthread \
		>"$work/out" 2>"$work/err" || fail "$name.c cannot be compiled"
done
PATH=$work/bin:$PATH

case_is "put and get"
"$sc" --version >"$work/blob"
seq 300000 >>"$work/blob"
run put "$dir" a-key <"$work/blob"
want_status 0
run get "$dir" a-key
want_status 0
cmp "$work/out" "$work/blob" || fail "get prints something else"
run get "$dir" a-key 100 20
want_status 0
tail -c +101 "$work/blob" | head -c 20 | cmp - "$work/out" || fail "that is not the part"
run put "$dir" a-key </dev/null
want_status 0
run get "$dir" a-key
cmp "$work/out" "$work/blob" || fail "the second put has replaced it"
run get "$dir" no-such-key
want_status 1

case_is "follow: one run, four who see it"
for i in 1 2 3 4; do
	follow "$dir" run "echo >>$work/runs; cat $work/blob" >"$work/out.$i" 2>"$work/err.$i" &
	pids="$pids $!"
done
for pid in $pids; do
	wait "$pid" || fail "follow: exit status $?"
done
pids=
for i in 1 2 3 4; do
	cmp "$work/out.$i" "$work/blob" || fail "caller $i got something else"
done
[ "$(wc -l <"$work/runs")" -eq 1 ] || fail "the command was run more than once"
[ "$(cat "$work"/err.? | grep -c 'produced here')" -eq 1 ] || fail "who has produced it?"
run follow "$dir" failing "echo half; exit 3"
want_status 1
want_out half
grep -q 'code 3' "$work/err" || fail "nothing about code 3"
run follow "$dir" killed 'echo half; kill -9 $$'
want_status 1
grep -q 'code 137' "$work/err" || fail "nothing about the signal"
run get "$dir" killed
want_status 1

case_is "prefork: one of four workers produces"
run prefork "$dir" forked
want_status 0
[ "$(wc -l <"$work/out")" -eq 4 ] || fail "not four workers"
[ "$(grep -c '^produced' "$work/out")" -eq 1 ] || fail "not one producer"
[ "$(sed 's/.*  *\([0-9]* bytes\)/\1/' "$work/out" | sort -u | wc -l)" -eq 1 ] ||
	fail "they have read different bytes"
grep -q ' 8388608 bytes' "$work/out" || fail "not all bytes"

"$sc" --cache="$dir" check >"$work/out" || fail "findings"
