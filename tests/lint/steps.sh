#!/bin/sh
# steps.sh - each STEP("label") has its comment, no label stands at two places,
# and doc/crash.md says the same. That each of them is a place where a process
# was killed is found by tests/crash/check_steps.
set -eu
cd "${TOP_SRCDIR:-.}"
bad=0

twice=$(grep -rho --include='*.c' 'STEP("[^"]*")' lib | sort | uniq -d)
if [ -n "$twice" ]; then
	printf 'at two places:\n%s\n' "$twice"
	bad=1
fi

# A step in a header would be many.
if grep -rn --include='*.h' 'STEP("' lib; then
	echo "a STEP in a header"
	bad=1
fi

odd=$(grep -rho --include='*.c' 'STEP("[^"]*")' lib | cut -d'"' -f2 |
	grep -vxE '[a-z]+(-[a-z]+)*' || :)
if [ -n "$odd" ]; then
	printf 'not lower-case words joined by -:\n%s\n' "$odd"
	bad=1
fi

scripts/crash_doc.sh --check || bad=1
exit "$bad"
