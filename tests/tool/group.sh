#!/bin/sh
# group - two users of one group share a cache if both of them say so.
# shellcheck source=tests/tool/lib.sh
. "$(dirname "$0")/lib.sh"

if [ "$(id -u)" -ne 0 ] || ! command -v setpriv >/dev/null; then
	echo "needs root and setpriv to act as two users"
	exit 77
fi

# A place that both may enter, with a copy of the tool that both may run.
common=$(mktemp -d /tmp/streamcache-group.XXXXXX) || exit 1
trap 'rm -rf "$common"; tidy' EXIT
chmod 755 "$common"
built=$(dirname "$sc")
if [ -d "$built/.libs" ]; then
	cp "$built/.libs/streamcache" "$built"/.libs/libstreamcache.so.0 "$common"
else
	cp "$sc" "$common"
fi
mkdir "$common/segments" "$common/cache"
chmod 1777 "$common/segments"
chown 54001:54321 "$common/cache"
chmod 2770 "$common/cache"

# as USER GROUP ARGUMENT... - the tool, run by that user
as() {
	user=$1 group=$2
	shift 2
	setpriv --reuid="$user" --regid="$group" --groups=54321 env \
		LD_LIBRARY_PATH="$common" STREAMCACHE_SEGMENT_DIR="$common/segments" \
		STREAMCACHE_DIR="$common/cache" "$common/streamcache" "$@"
}

case_is "without a word a directory of a group is refused"
run as 54001 54001 put key
want_status 125
want_err 'group'

case_is "what one puts the other gets"
echo blob >"$work/blob"
run as 54001 54001 --group put key <"$work/blob"
want_status 0
run as 54002 54002 get --group key
want_status 0
want_out blob

case_is "and removes, and destroys"
run as 54002 54002 rm --group key
want_status 0
run as 54001 54001 get --group key
want_status 1

case_is "who is not of the group is refused"
run setpriv --reuid=54003 --regid=54003 --clear-groups env LD_LIBRARY_PATH="$common" \
	"$common/streamcache" --cache="$common/cache" ls --group
want_status 125

run as 54001 54001 destroy
want_status 0
