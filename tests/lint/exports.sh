#!/bin/sh
# exports.sh - the functions marked SCACHE_API, the symbol map, and what the
# built library exports are the same set.
set -eu
header=${TOP_SRCDIR:-.}/lib/streamcache.h
map=${TOP_SRCDIR:-.}/lib/streamcache.map
lib=${TOP_BUILDDIR:-.}/.libs/libstreamcache.so
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

# same A B: two sorted lists, named by what they were read from
same() {
	if ! diff -u "$work/$1" "$work/$2"; then
		echo "$1 and $2 disagree"
		bad=1
	fi
}

tr '\n' ' ' <"$header" | grep -o 'SCACHE_API [^();]*(' |
	grep -o 'scache_[a-z0-9_]*(' | tr -d '(' | sort >"$work/header"
sed -n 's/^[[:space:]]*\(scache_[a-z0-9_]*\);.*/\1/p' "$map" | sort >"$work/map"
same header map

if [ -e "$lib" ]; then
	# The version nodes themselves are absolute symbols (A).
	# shellcheck disable=SC2086 # configure may find "nm -B"
	${NM:-nm} -D --defined-only "$lib" |
		awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort >"$work/library"
	same map library
fi
exit "$bad"
