#!/bin/sh
# syscalls.sh - which system calls do a hit and a miss make? Runs each program that
# has --loop=N under strace with two N and prints the difference for one operation:
# what starting, opening and ending cost is in both.
#
#   bench/syscalls.sh [BUILD_DIR] [DIR]
#
# Exit status 77 without strace, or where it may not trace.
set -eu
LC_ALL=C
export LC_ALL

case ${1:-} in
-*)
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
	exit 2
	;;
esac
build=${1:-$(dirname -- "$0")/../build/bench}
dir=${2:-${TMPDIR:-/tmp}}
few=1000
many=3000
if ! strace -o /dev/null true 2>/dev/null; then
	echo "strace is not installed, or may not trace"
	exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# tell WHAT PROGRAM OPTION - children are not followed: they make and remove what is
# measured.
tell() {
	# Once for nothing: libtool's script links at its first run.
	"$build/bench/$2" "$3=1" "$dir"
	for n in "$few" "$many"; do
		strace -c -o "$work/raw" "$build/bench/$2" "$3=$n" "$dir"
		awk '$1 ~ /^[0-9.]+$/ && $NF != "total" { print $NF, $4 }' "$work/raw" >"$work/$n"
	done
	echo "$1: system calls of one operation"
	awk -v n=$((many - few)) -v few="$work/$few" '
	BEGIN { while ((getline <few) > 0) had[$1] = $2 }
	{ each = ($2 - had[$1]) / n }
	each >= 0.005 { printf "  %-20s %.2f\n", $1, each; any = 1 }
	END { if (!any) print "  none" }' "$work/$many"
}

tell "a hit, seen before" hit --loop
tell "a hit, first time" hit --first
tell "a miss" miss --loop
