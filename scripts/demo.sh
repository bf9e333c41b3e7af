#!/bin/sh
# demo.sh - build the tool and show what it does: eight processes, one blob,
# one production.
set -eu
# shellcheck source=scripts/common.sh
. "$(dirname -- "$0")/common.sh"

"$root/scripts/setup.sh" --build
find_place
bootstrap
say "== building: log in $builds/demo.log"
configure_build demo || die "configure failed"
make -C "$dir" -j"$jobs" all >"$log" 2>&1 || {
	tail -n 60 "$log" >&2
	die "the build failed"
}

# shellcheck source=scripts/demo_run.sh
. "$root/scripts/demo_run.sh"
demo "$dir/streamcache"
