# shellcheck shell=sh
# lib.sh - what the tool tests share; sourced by each of them.
#
# A test works in $work, a directory of its own, with a cache in $work/cache.
# `case_is "..."` names what follows; the first `fail` ends the script.
# Nothing here sleeps for luck: await polls for a state until a deadline.
set -u

sc=${STREAMCACHE:-${TOP_BUILDDIR:-$(dirname "$0")/../../build}/streamcache}
case $sc in
/*) ;;
*) sc=$PWD/$sc ;;
esac
if [ ! -x "$sc" ]; then
	echo "there is no $sc: build it first, or set STREAMCACHE to the tool"
	exit 1
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/streamcache-tool.XXXXXX") || exit 1
unset STREAMCACHE_DISABLE STREAMCACHE_COMPRESS STREAMCACHE_LEVEL STREAMCACHE_DURABILITY \
	STREAMCACHE_VERIFY
STREAMCACHE_DIR=$work/cache
STREAMCACHE_SEGMENT_DIR=$work # many tests at once, and /dev/shm may be small
export STREAMCACHE_DIR STREAMCACHE_SEGMENT_DIR work
case_name=start
pids=

# is_ours PID - a child that runs. One that has ended may have been reaped by any
# command since, and its number be a stranger's.
is_ours() {
	grep -q "^PPid:[[:space:]]*$$\$" "/proc/$1/status" 2>/dev/null
}

tidy() {
	trap - EXIT HUP INT TERM
	touch "$work/go"
	for pid in $pids; do
		is_ours "$pid" && kill -KILL "$pid"
	done
	wait
	tries=0
	while [ -d "$work/cache" ] &&
		! "$sc" --cache="$work/cache" destroy >"$work/destroyed" 2>&1; do
		tries=$((tries + 1))
		[ "$tries" -lt 30 ] || { cat "$work/destroyed"; break; }
		sleep 0.1
	done
	chmod -R u+rwX "$work"
	rm -rf "$work"
}
trap tidy EXIT
trap 'exit 1' HUP INT TERM

case_is() {
	case_name=$1
	echo "- $1"
}

fail() {
	echo "FAILED: $case_name: $*"
	for file in out err; do
		[ -s "$work/$file" ] && echo "$file:" && head -n 20 "$work/$file"
	done
	exit 1
}

# run COMMAND... - sets $status, $work/out and $work/err
run() {
	status=0
	"$@" >"$work/out" 2>"$work/err" || status=$?
}

want_status() {
	[ "$status" -eq "$1" ] || fail "exit status $status instead of $1"
}

want_out() {
	printf '%s\n' "$1" | cmp -s - "$work/out" || fail "standard output is not '$1'"
}

want_no_out() {
	[ ! -s "$work/out" ] || fail "there is standard output"
}

want_no_err() {
	[ ! -s "$work/err" ] || fail "there are messages"
}

# want_err PATTERN - standard error has a line that matches
want_err() {
	grep -q -e "$1" "$work/err" || fail "no message matches '$1'"
}

want_err_lines() {
	[ "$(wc -l <"$work/err")" -eq "$1" ] || fail "there should be $1 lines of messages"
}

want_same() {
	cmp "$1" "$2" || fail "$1 and $2 differ"
}

# runs_are N [FILE] - so many lines were appended to FILE
runs_are() {
	count=$(wc -l <"${2:-$work/runs}")
	[ "$count" -eq "$1" ] || fail "the command was run $count times instead of $1"
}

# await COMMAND... - until it succeeds
await() {
	tries=0
	while ! "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ "$tries" -lt 600 ] || fail "waited in vain for: $*"
		sleep 0.05
	done
}

# wait_for PID - sets $status
wait_for() {
	status=0
	wait "$1" || status=$?
}

# entry KEY NAME - a number of an entry, as ls shows it
entry() {
	"$sc" ls --json "$1" 2>/dev/null |
		sed -n 's/^ *"'"$2"'": *\(-\{0,1\}[0-9][0-9]*\),*$/\1/p'
}

entry_is() {
	[ "$(entry "$1" "$2")" = "$3" ]
}

has_flag() {
	"$sc" ls --json "$1" 2>/dev/null | grep -q "\"$2\""
}

# number NAME - one of stat's; the first of that name says what is now
number() {
	"$sc" stat --json | sed -n 's/^ *"'"$1"'": *\([0-9][0-9]*\),*$/\1/p' | head -n 1
}

number_is() {
	[ "$(number "$1")" = "$2" ]
}

has_no() {
	! "$sc" ls "$1" >/dev/null 2>&1
}

is_gone() {
	! kill -0 "$1" 2>/dev/null || grep -q '^State:[[:space:]]*Z' "/proc/$1/status"
}

has_line() {
	grep -q -e "$1" "$2" 2>/dev/null
}

# script NAME - an executable from standard input; `begin` in it notes the run
# in $work/runs, `held` waits for $work/go.
script() {
	{
		cat <<'END'
#!/bin/sh
begin() { echo run >>"$work/runs"; }
held() { while [ ! -e "$work/go" ]; do sleep 0.02; done; }
END
		cat
	} >"$work/$1"
	chmod +x "$work/$1"
}

reset() {
	rm -f "$work/runs" "$work/go"
	: >"$work/runs"
}
