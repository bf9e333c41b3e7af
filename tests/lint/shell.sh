#!/bin/sh
# shell.sh - shellcheck has nothing to say about any script.
set -eu
cd "${TOP_SRCDIR:-.}"

if ! command -v shellcheck >/dev/null 2>&1; then
	echo "shellcheck is not installed"
	exit 77
fi
find .ci scripts tests bench examples -type f \
	\( -name '*.sh' -o -path '.ci/*' -o -path bench/run \) \
	-exec shellcheck -x -P SCRIPTDIR {} +
