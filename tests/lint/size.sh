#!/bin/sh
# size.sh - no source file is longer than 500 lines: one that is has two jobs.
# But the public header is one file, whatever it has to say.
set -eu
cd "${TOP_SRCDIR:-.}"

find lib tools bench -name '*.[ch]' ! -name streamcache.h -exec wc -l {} \; | awk '
$1 > 500 { printf "%s: %d lines\n", $2, $1; bad = 1 }
END { exit bad }'
