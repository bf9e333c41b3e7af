#!/bin/sh
# run.sh TEST [ARG...] - run one test for the harness: with a time limit
# ($TEST_SECONDS, default 240) that ends all its processes, and with a TMPDIR
# of its own. Its output goes to the log; why it was skipped also to fd 9.
set -u

TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/streamcache-test.XXXXXX") || exit 99
export TMPDIR
trap 'chmod -R u+rwX "$TMPDIR"; rm -rf "$TMPDIR"' EXIT

name=tests/${1##*tests/}
case $1 in
*.sh) set -- "${SHELL:-/bin/sh}" "$@" ;;
esac

# In the background, so that a signal ends the wait and the traps tidy up; a
# shell makes such a child ignore SIGINT, which tests want to send.
env --default-signal=INT,QUIT timeout -k 5 "${TEST_SECONDS:-240}" "$@" &
pid=$!
trap 'kill "$pid" 2>/dev/null; wait "$pid"; exit 143' HUP INT TERM
wait "$pid"
status=$?

case $status in
77)
	# The harness made our standard output the test's log.
	why=
	[ -f "/proc/$$/fd/1" ] && why=$(tail -n 1 "/proc/$$/fd/1")
	{ printf 'WHY: %s: %s\n' "$name" "${why:-no reason given}" >&9; } 2>/dev/null
	;;
124)
	echo "$name: stopped after ${TEST_SECONDS:-240} seconds"
	;;
esac
exit "$status"
