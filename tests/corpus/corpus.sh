#!/bin/sh
# corpus.sh [--smoke] - some 200 files of many kinds, of this system and made on the spot,
# through corpus.c. With --smoke a few small ones.
set -eu
smoke=no
[ "${1:-}" = --smoke ] && smoke=yes
work=$(mktemp -d "${TMPDIR:-/tmp}/streamcache-corpus.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM
files=$work/files
list=$work/list
mkdir "$files"

# some DIR PATTERN COUNT - of what matches, evenly by name; none if there is no such DIR.
some() {
	find "$1" -type f -size +0 -name "$2" ! -name "*'*" 2>/dev/null | LC_ALL=C sort |
		awk -v count="$3" '{ all[NR] = $0 }
		END { step = NR > count ? NR / count : 1
		      for (at = 1; at <= NR; at += step) print all[int(at)] }'
}

# cut_at BYTES - the text, as often as need be, to that length.
cut_at() {
	while :; do cat "$TOP_SRCDIR/README" "$TOP_SRCDIR/doc/design.md"; done 2>/dev/null |
		head -c "$1"
}

sizes='0 1 2 100 4096 16383 16384 16385 65536 262143 262144 262145 524287 524288 524289
	786432 2097151 2097152 2097153'
[ $smoke = yes ] && sizes='0 1 16385 262143 262144 262145 524289'
for size in $sizes; do
	cut_at "$size" >"$files/text-$size"
	head -c "$size" /dev/urandom >"$files/random-$size"
	[ $smoke = yes ] || head -c "$size" /dev/zero >"$files/zeros-$size"
done
tar -C "$TOP_SRCDIR" -cf "$files/source.tar" lib doc
if [ $smoke = no ]; then
	gzip -kc "$files/source.tar" >"$files/source.tar.gz"
	lz4 -qc "$files/source.tar" >"$files/source.tar.lz4" 2>/dev/null || rm -f "$files/source.tar.lz4"
	# Halves of each kind: what is judged by its beginning is something else behind it.
	cat "$files/random-2097152" "$files/source.tar" >"$files/random-then-text"
	cat "$files/source.tar" "$files/random-2097152" >"$files/text-then-random"
	# Of 5 GiB, nearly all of it a hole, with islands of text and of noise.
	truncate -s 5G "$files/sparse"
	for gib in 0 1 2 3 4; do
		dd if="$files/text-then-random" of="$files/sparse" conv=notrunc bs=1M \
			seek=$((gib * 1024 + gib * 77 + 3)) status=none
	done
fi
find "$files" -type f | LC_ALL=C sort >"$list"
if [ $smoke = no ]; then
	{
		some /usr/include '*.h' 30
		some /usr/share/doc '*' 15
		some /usr/bin '*' 30
		some /usr/lib '*.so*' 20
		some /usr/lib/python3 '*.py' 15
		some /usr/share '*.gz' 10
		some "$TOP_SRCDIR" '*.c' 10
		some "$TOP_BUILDDIR" '*.o' 10
		some "$TOP_SRCDIR/.git" '*.pack' 3
		some "$TOP_SRCDIR/.git/objects" '[0-9a-f]*' 5
		some /etc '*.conf' 10
	} >>"$list"
fi
# None of the names has a blank: those of the system that do are left out.
grep -v '[[:blank:]]' "$list" >"$list.plain"
ranges=1000
[ $smoke = yes ] && ranges=100
xargs "$TOP_BUILDDIR/tests/corpus/corpus" "$work" "$TOP_BUILDDIR/streamcache" "$ranges" <"$list.plain"
