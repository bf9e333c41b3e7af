#!/bin/sh
# check_explore.sh - the explorer finds each of the bugs that were planted for
# it, twice the same way, and nothing in the library as it is.
set -eu
bin=$TOP_BUILDDIR/tests/explore

case ${SANITIZE:-} in
*thread*)
	echo "coroutines of one thread: nothing to see for ThreadSanitizer"
	exit 77
	;;
*address*)
	seconds=20
	;;
*)
	seconds=0
	;;
esac

# find BUG PAIRS - with time enough, but it takes a second or two.
find_bug() {
	status=0
	timeout 60 "$bin/$1" --seconds=0 --pair="$2" >"$TMPDIR/$1" || status=$?
	sed "s/^/$1: /" "$TMPDIR/$1"
	if [ "$status" -ne 1 ]; then
		echo "$1: exit status $status: the planted bug was not found"
		exit 1
	fi
	schedule=$(sed -n "s/^ *--replay='\\(.*\\)'\$/\\1/p" "$TMPDIR/$1")
	status=0
	"$bin/$1" --replay="$schedule" >"$TMPDIR/$1" || status=$?
	if [ "$status" -ne 1 ]; then
		echo "$1: exit status $status: --replay='$schedule' does not find it again"
		exit 1
	fi
	"$bin/explore" --replay="$schedule" >/dev/null
}

find_bug early_look 'close+*/seldom-filling'
find_bug charged_last 'reserve+reserve/absent'
find_bug flushed_first 'stream+packed/packed'
find_bug no_clamp 'mixed+peek/filling'
find_bug no_done '*+packed-wrap/packed'
find_bug no_election 'resume+*/orphan'
find_bug no_floor_back 'stream+large/filling'
find_bug no_recheck '*/sealed'
find_bug no_second_floor '*+wrap/filling'
find_bug no_second_hide 'remove+resume/orphan'
find_bug no_second_look 'reserve+reserve/absent'
find_bug no_wake 'read+paced/filling'
find_bug written_first 'read+*/filling'
# What was once wrong here, a removal beside an adoption, shows with one preemption (whole, but
# where each access is slow).
"$bin/explore" --seconds=$seconds --preemptions=1 --pair='*/former'
"$bin/explore" --seconds=6
