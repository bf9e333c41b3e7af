#!/bin/sh
# run.sh - let spin look at every interleaving of the models in this directory.
#
# Each model must be without errors, and its search complete; the sizes it is
# run at must together reach every statement. Each bug planted in it must be
# found: a model that cannot fail proves nothing. SPIN and CC may be set.
set -u

here=$(cd "$(dirname -- "$0")" && pwd) || exit 1
: "${SPIN:=spin}" "${CC:=gcc}"
MEGABYTES=3900
DEPTH=100000

if ! command -v "$SPIN" >/dev/null 2>&1; then
	echo "spin is not installed"
	exit 77
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/streamcache-model.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM
cd "$work" || exit 1
failures=0

wrong() {
	echo "WRONG: $*"
	failures=$((failures + 1))
}

# search MODEL DEFINE... - all states of a model; what pan says is in ./out
search() {
	rm -f pan* ./*.trail out
	model=$here/$1.pml
	shift
	"$SPIN" -a "$@" "$model" >out 2>&1 &&
		"$CC" -O2 -w -DSAFETY -DCOLLAPSE -DMEMLIM="$MEGABYTES" -o pan pan.c >>out 2>&1 ||
		return 1
	# Its exit status says nothing of a search cut short: look at what it prints.
	./pan -m"$DEPTH" -w24 >out 2>&1
	grep -q 'errors: ' out && grep -q '^pan: elapsed time' out
}

figures() {
	awk '/depth reached/ { sub(/,/, "", $6); depth = $6 }
	     /states, stored/ { states = $1 }
	     /^pan: elapsed time/ { seconds = $4 }
	     /total actual memory/ { megabytes = $1 }
	     END { printf "%d states, depth %d, %.1f s, %d MB", states, depth, seconds, megabytes }' out
}

# clean MODEL DEFINE... - it must be without errors
clean() {
	name=$*
	if ! search "$@"; then
		cat out
		wrong "$name: no result"
		return
	fi
	# The statements that this size does not reach.
	sed -n 's/^.*\.pml:\([0-9]*\), state [0-9]*, "\(.*\)"$/\1 \2/p' out | sort -u >missed
	if [ -f reached ]; then
		comm -12 unreached missed >both
		mv both unreached
	else
		mv missed unreached
		: >reached
	fi
	if grep -qi 'max search depth too small\|out of memory\|search not completed\|memlim' out; then
		wrong "$name: the search was cut short: $(figures)"
	elif grep -q 'errors: 0$' out; then
		echo "$name: no errors, $(figures)"
	else
		wrong "$name: $(grep '^pan:[0-9]' out)"
		"$SPIN" -t -p "$@" "$model" 2>/dev/null | tail -n 100
	fi
}

# all_reached MODEL - no statement was missed by all sizes
all_reached() {
	if [ -s unreached ]; then
		cat unreached
		wrong "$1: never reached at any size"
	fi
	rm -f reached unreached
}

# bug MODEL BUG DEFINE... - it must be found, by an assertion
bug() {
	if search "$1" "-D$2" ${3+"$3"} ${4+"$4"} && grep -q '^pan:1: assertion violated' out; then
		echo "$1 $2: found, $(figures)"
	else
		cat out
		wrong "$1 $2: not found"
	fi
}

clean index -DOPS_FIRST=3 -DOPS=2
clean index -DOPS_FIRST=2 -DOPS=1 -DSLOTS=3
clean index -DOPS_FIRST=2 -DOPS=1 -DPROCS=3 -DKEYS=1
all_reached index
for planted in OWN_GEN HEAD_GEN RETIRE_GEN NO_MARK NO_RECHECK MARK_ONLY; do
	bug index BUG_$planted
done

clean epoch
clean epoch -DPROCS=3 -DJOINS=1 -DSWEEPS=1 -DADVANCES=0
all_reached epoch
for planted in PUBLISH_LATE HIDE_LATE PIN_LATE ONE_EPOCH RETIRE_EARLY; do
	bug epoch BUG_$planted
done

clean reap -DPROCS=2 -DDEATHS=2
all_reached reap
clean reap -DKINDS=PINS -DDEATHS=1 # of one kind, so it cannot reach all
rm -f reached unreached
for planted in NO_BYTE DROP_EARLY CLOSE_FIRST ONE_LOOK; do
	bug reap BUG_$planted -DKINDS=PINS
done
bug reap BUG_FREE_FIRST -DPROCS=2 -DKINDS=PINS
bug reap BUG_OWNER_FIRST -DKINDS=BLOCKS
bug reap BUG_PLAIN_FAIL -DKINDS=ENTRIES

if [ "$failures" -ne 0 ]; then
	echo "$failures wrong"
	exit 1
fi
echo "all as it should be"
