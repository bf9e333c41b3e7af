# shellcheck shell=sh
# common.sh - what the scripts beside it share. Sourced with `set -eu` on; asks
# for a POSIX shell and what every Debian has (coreutils, grep, sed, tar).
LC_ALL=C
export LC_ALL

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck disable=SC2034 # for those who source this
jobs=$(nproc 2>/dev/null || echo 2)

say() {
	printf '%s\n' "$*"
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# find_place - set src, a name of the tree that a makefile can bear, and builds,
# where the builds go. Automake refuses blanks and worse in paths; a tree with
# such a name is built by way of a symbolic link, outside of itself.
find_place() {
	case $root in
	*[!A-Za-z0-9_./+-]*) ;;
	*)
		src=$root
		builds=$root/build
		return
		;;
	esac
	tmp=${TMPDIR:-/tmp}
	case $tmp in
	/*[!A-Za-z0-9_./+-]* | [!/]*) tmp=/tmp ;;
	esac
	mine=$tmp/streamcache-build.$(id -u)
	(umask 077 && mkdir -p "$mine")
	# Anybody can make this name in /tmp; what we run must be ours.
	if [ -h "$mine" ] || [ -z "$(find "$mine" -prune -type d -user "$(id -u)")" ]; then
		die "$mine belongs to somebody else; set TMPDIR"
	fi
	mine=$mine/$(printf %s "$root" | sha256sum | cut -c1-16)
	mkdir -p "$mine"
	src=$mine/src
	builds=$mine/build
	[ "$(readlink "$src" || :)" = "$root" ] || ln -sfn "$root" "$src"
}

# bootstrap - make `configure`, if it is missing or older than its sources.
bootstrap() {
	if [ -f "$src/configure" ] && [ -z "$(cd "$src" &&
		find configure.ac Makefile.am ./*/Makemodule.am -newer configure)" ]; then
		return
	fi
	say "== autoreconf"
	mkdir -p "$builds"
	(cd "$src" && autoreconf -fi) >"$builds/autoreconf.log" 2>&1 || {
		cat "$builds/autoreconf.log" >&2
		die "autoreconf failed"
	}
}

# configure_build VARIANT [ARG...] - configure in $builds/VARIANT, unless that
# was done with the same arguments for the same tree.
configure_build() {
	dir=$builds/$1
	log=$builds/$1.log
	shift
	mkdir -p "$dir"
	wish="$src $*"
	[ -f "$dir/configured" ] && [ "$(cat "$dir/configured")" = "$wish" ] && return
	# A failed distcheck leaves folders without the right to write.
	chmod -R u+w "$dir"
	rm -rf "$dir"
	mkdir -p "$dir"
	if ! (cd "$dir" && "$src/configure" "$@") >"$log" 2>&1; then
		tail -n 40 "$log" >&2
		return 1
	fi
	printf '%s' "$wish" >"$dir/configured"
}
