#!/bin/sh
# git_users.sh - the git hook of two users with two caches: nothing crosses.
# Root acts as two users; anybody else as one with two homes.
# shellcheck source=git_lib.sh
. "$(dirname "$0")/git_lib.sh"

# A place that all may enter, with a copy of the tool that all may run.
common=$(mktemp -d /tmp/streamcache-users.XXXXXX) || exit 1
trap 'rm -rf "$common"; tidy' EXIT
chmod 755 "$common"
built=$(dirname "$sc")
[ ! -d "$built/.libs" ] || built=$built/.libs
cp "$built/streamcache" "$common"
cp "$built/libstreamcache.so.0" "$common" 2>/dev/null
make_repository "$common/repo.git" 4 40000
chmod -R a+rX "$common/repo.git"
{
	git -C "$common/repo.git" rev-parse main
	printf -- '--not\n\n'
} >"$common/request"
upload="pack-objects --revs --thin --stdout --delta-base-offset -q"
sc=$common/streamcache
LD_LIBRARY_PATH=$common # for root's own calls, too
export LD_LIBRARY_PATH
as_other=
for user in ann bob eve; do
	mkdir "$common/$user"
done
if [ "$(id -u)" -eq 0 ]; then
	command -v setpriv >/dev/null || { echo "setpriv is not installed"; exit 77; }
	chown 54001:54001 "$common/ann"
	chown 54002:54002 "$common/bob"
	chown 54003:54003 "$common/eve"
	mkdir "$common/shared" "$common/segments"
	chown 54001:54321 "$common/shared"
	chmod 2770 "$common/shared"
	chmod 1777 "$common/segments"
	as_other=yes
fi

# as USER COMMAND... - with that user's home, and nothing else said about the cache
as() {
	user=$1
	shift
	set -- env -u STREAMCACHE_DIR -u STREAMCACHE_SEGMENT_DIR HOME="$common/$user" \
		PATH="$git_programs:$PATH" GIT_DIR=. GIT_EXEC_PATH="$git_programs" \
		GIT_CONFIG_SYSTEM=/dev/null GIT_CONFIG_COUNT=1 \
		GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' "$@"
	if [ "$as_other" ]; then
		case $user in
		ann) set -- setpriv --reuid=54001 --regid=54001 --groups=54321 "$@" ;;
		bob) set -- setpriv --reuid=54002 --regid=54002 --groups=54321 "$@" ;;
		eve) set -- setpriv --reuid=54003 --regid=54003 --clear-groups "$@" ;;
		esac
	fi
	(cd "$common/repo.git" && exec "$@")
}

# ask USER OPTION... - that user's request for the one pack, as the hook gets it
ask() {
	user=$1
	shift
	# shellcheck disable=SC2086 # words
	run as "$user" "$sc" git-pack-objects "--log=$common/$user/log" "$@" git $upload \
		<"$common/request"
	want_status 0
	want_no_err
	want_same "$work/expected" "$work/out"
}

# last USER WORD - how that user's last request ended
last() {
	tail -n 1 "$common/$1/log" | grep -q "outcome=$2 " || fail "$1's was no $2"
}

# shellcheck disable=SC2086 # words
as ann git $upload <"$common/request" >"$work/expected" || fail "plain git"

case_is "each has a cache of its own, and makes its own pack"
for user in ann bob; do
	ask "$user"
	last "$user" created
	ask "$user"
	last "$user" hit
	dir=$common/$user/.cache/streamcache
	[ "$(stat -c %a "$dir")" = 700 ] || fail "others may enter it"
	[ "$(as "$user" "$sc" ls --json | grep -c '"key"')" -eq 1 ] || fail "not one entry"
done

case_is "rm in one cache is nothing to the other"
as ann "$sc" rm --all
ask bob
last bob hit
ask ann
last ann created

if [ "$as_other" ]; then
	case_is "another's cache is refused: plain git, and not a word"
	for option in "" --group; do
		# shellcheck disable=SC2086 # nothing, or an option
		ask eve --cache="$common/ann/.cache/streamcache" $option
		last eve bypass
	done
	chmod 755 "$common/ann/.cache" "$common/ann/.cache/streamcache"
	ask eve --cache="$common/ann/.cache/streamcache"
	last eve bypass
	run as eve "$sc" --cache="$common/ann/.cache/streamcache" ls
	want_status 125

	case_is "--group: who is of the group shares, who is not does not"
	shared="--group --cache=$common/shared --segment-dir=$common/segments"
	# shellcheck disable=SC2086 # options
	for turn in "ann created" "bob hit" "ann hit" "eve bypass"; do
		ask "${turn% *}" $shared
		last "${turn% *}" "${turn#* }"
	done
	# shellcheck disable=SC2086 # options
	as ann "$sc" destroy $shared
fi
for user in ann bob; do
	as "$user" "$sc" destroy
done
