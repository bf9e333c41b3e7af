#!/bin/sh
# orders.sh - every memory-order comment has its partner: `ORDER name, how:`
# stands at two places at least, and not only on the releasing or only on the
# acquiring side.
set -eu
cd "${TOP_SRCDIR:-.}"

find lib -name '*.[ch]' -exec grep -Hn 'ORDER [a-z]' {} + | awk '
{
	match($0, /^[^:]*:[0-9]+:/)
	where = substr($0, 1, RLENGTH)
	if (!match($0, /ORDER [a-z][a-z0-9-]*, (release|acquire|acq_rel|seq_cst):/)) {
		printf "%s not of the form \"ORDER name, release|acquire|acq_rel|seq_cst:\"\n", where
		bad = 1
		next
	}
	tag = substr($0, RSTART + 6, RLENGTH - 7)
	split(tag, word, ", ")
	sites[word[1]]++
	places[word[1]] = places[word[1]] "\n  " where " " word[2]
	if (word[2] != "acquire")
		gives[word[1]] = 1
	if (word[2] != "release")
		takes[word[1]] = 1
}
END {
	for (name in sites) {
		if (sites[name] < 2 || !gives[name] || !takes[name]) {
			printf "ORDER %s has no partner:%s\n", name, places[name]
			bad = 1
		}
	}
	exit bad
}'
