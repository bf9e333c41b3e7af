#!/bin/sh
# check_power.sh - after a few hundred power cuts nothing wrong is served and nothing
# that was promised is missing; and where it is known to be otherwise, that is found.
# The seed is another one each time; the log has it, for --seed.
set -eu

case ${SANITIZE:-} in
*thread*)
	echo "processes, not threads: nothing to see for ThreadSanitizer"
	exit 77
	;;
esac

# Thousands of directories are made and removed: in memory, if there is room for them.
if [ "$(df -Pk /dev/shm 2>/dev/null | awk 'END { print $4 + 0 }')" -gt 262144 ]; then
	TMPDIR=/dev/shm
	export TMPDIR
fi
power=$TOP_BUILDDIR/tests/power/power
seed=$(date +%s)
"$power" --cuts=200 --seed="$seed"

# finds WHAT OPTION... - with these options that must be found
finds() {
	what=$1
	shift
	status=0
	"$power" --seed="$seed" "$@" >power.found || status=$?
	tail -n 1 power.found
	if [ "$status" -ne 1 ] || ! grep -q "$what [1-9]" power.found; then
		echo "$*: nothing was $what"
		exit 1
	fi
}

cd "${TMPDIR:-/tmp}"
finds wrong --cuts=200 --durability=none --verify=never
finds lost --cuts=200 --durability=data --no-sync
finds lost --cuts=200 --durability=full --no-sync
