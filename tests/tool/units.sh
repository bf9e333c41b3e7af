#!/bin/sh
# units.sh - the units for systemd are installed, systemd understands them, and what they
# run does what they say.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# What an outer make has to say is not for this one.
unset MAKEFLAGS MFLAGS MAKELEVEL
root=$work/root
if ! make -C "${TOP_BUILDDIR:-$(dirname "$sc")}" install-systemdsystemunitDATA \
	DESTDIR="$root" >"$work/made" 2>&1; then
	echo "built without units, or there is no make"
	exit 77
fi
units=$(dirname "$(find "$root" -name 'streamcache-sweep@.timer')")
[ -d "$units" ] || fail "no units were installed"

# command UNIT - its ExecStart line for our cache and our tool
command_of() {
	line=$(sed -n 's/^ExecStart=//p' "$units/$1")
	case $line in
	/*/streamcache\ *) ;;
	*) fail "$1 does not run streamcache by its path: $line" ;;
	esac
	echo "$sc ${line#* }" | sed "s|%f|$STREAMCACHE_DIR|g"
}

# Their condition: a cache is there.
is_for_caches() {
	sed -n 's/^ConditionPathIsDirectory=//p' "$units/$1" | sed "s|%f|$STREAMCACHE_DIR|" |
		xargs test -d || fail "$1 would not be started"
}

printf old | "$sc" put --max-age=0 old || fail "put"

case_is "the timer's service sweeps"
is_for_caches streamcache-sweep@.service
# shellcheck disable=SC2046 # it is a command line
run $(command_of streamcache-sweep@.service)
want_status 0
grep -q '^removed 1 entry (3 B)' "$work/out" || fail "nothing was swept"

case_is "the other one watches, and ends when it is told to"
is_for_caches streamcache-watch@.service
printf old | "$sc" put --max-age=0 old || fail "put"
# shellcheck disable=SC2046
set -- $(command_of streamcache-watch@.service)
"$@" >"$work/lines" 2>&1 &
watcher=$!
pids="$pids $watcher"
await has_line '^removed 1 entry (3 B)' "$work/lines"
kill -TERM "$watcher"
wait_for "$watcher"
want_status 0

case_is "systemd takes them"
if command -v systemd-analyze >/dev/null; then
	for unit in "$units"/*.service; do
		sed -i "s|^ExecStart=[^ ]*|ExecStart=/bin/true|" "$unit"
	done
	run systemd-analyze verify --man=no "$units/streamcache-sweep@var-cache.timer" \
		"$units/streamcache-sweep@var-cache.service" "$units/streamcache-watch@var-cache.service"
	want_status 0
	[ "$(grep -c streamcache "$work/err")" -eq 0 ] || fail "it has something to say"
fi
