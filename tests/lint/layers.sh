#!/bin/sh
# layers.sh - no include points upwards: a room of lib/ includes itself and the
# rooms below it, and whatever is outside lib/ sees streamcache.h only.
set -eu
cd "${TOP_SRCDIR:-.}"

# The public header is vocabulary (codes, flags, types): every room may use it.
files=$(find lib tools bench examples -name '*.[ch]' | sort)
[ -n "$files" ] || exit 0

# shellcheck disable=SC2086 # our file names have no blanks
awk '
function exists(path,   line, rc) {
	rc = (getline line < path)
	close(path)
	return rc >= 0
}
function complain(why) {
	printf "%s:%d: %s: %s\n", FILENAME, FNR, why, $0
	bad = 1
}
BEGIN {
	n = split("base shm index store stream api", rooms, " ")
	for (i = 1; i <= n; i++)
		level[rooms[i]] = i
}
FNR == 1 {
	split(FILENAME, part, "/")
	dir = FILENAME
	sub(/\/[^\/]*$/, "", dir)
}
# <...> is for what is installed; our own headers may not come in by that door.
/^[ \t]*#[ \t]*include[ \t]*</ {
	path = $0
	sub(/^[^<]*</, "", path)
	sub(/>.*/, "", path)
	split(path, to, "/")
	if ((to[1] in level) || path ~ /\.\./ || (part[1] == "lib" && path == "streamcache.h"))
		complain("our own header in <>")
}
/^[ \t]*#[ \t]*include[ \t]*"/ {
	path = $0
	sub(/^[^"]*"/, "", path)
	sub(/".*/, "", path)
	if (path == "streamcache.h")
		next
	if (path ~ /\.\./) {
		complain("path goes up")
	} else if (part[1] != "lib") {
		if (path ~ /\// || !exists(dir "/" path))
			complain("only streamcache.h and headers of " dir "/ are known here")
	} else if (split(path, to, "/") == 1) {
		if (!exists(dir "/" path))
			complain("no such header in " dir "/")
	} else if (!(to[1] in level)) {
		complain("no such room")
	} else if (!(part[2] in level) || level[to[1]] > level[part[2]]) {
		complain(part[2] "/ stands below " to[1] "/")
	}
}
END { exit bad }
' $files
