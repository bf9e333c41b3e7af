#!/bin/sh
# crash_doc.sh [--check] - make doc/crash.md out of the STEP comments in lib/;
# --check only tells whether it is up to date. A comment reads
#   STEP label: what others see by then. Die here: who mends it.
# and stands right above its STEP("label").
set -eu
LC_ALL=C
export LC_ALL
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"

table() {
	find lib -name '*.c' | sort | while read -r file; do
		awk -v file="${file#lib/}" '
		# The name of the function we are in: what stood before the last "(" at column 0.
		/^[a-z].*\(/ && !/;$/ {
			name = $0
			sub(/\(.*/, "", name)
			sub(/.*[ *]/, "", name)
		}
		/\/\*/ { comment = ""; within = 1 }
		within {
			line = $0
			gsub(/^[ \t]*\/?\*+ ?|[ \t]*\*\/[ \t]*$/, "", line)
			comment = comment (comment == "" || line == "" ? "" : " ") line
		}
		/\*\// { within = 0 }
		/STEP\("/ {
			label = $0
			sub(/.*STEP\("/, "", label)
			sub(/".*/, "", label)
			start = "STEP " label ": "
			at = index(comment, " Die here: ")
			if (index(comment, start) != 1 || at == 0) {
				printf "%s:%d: STEP %s needs a comment \"%s... Die here: ...\"\n",
					FILENAME, FNR, label, start >"/dev/stderr"
				bad = 1
			}
			printf "| `%s` | `%s` `%s` | %s | %s |\n", label, file, name,
				substr(comment, length(start) + 1, at - length(start) - 1),
				substr(comment, at + 11)
			comment = ""
		}
		END { exit bad }' "$file" || return 1
	done
}

page() {
	cat <<'END'
# Where a process may die, and what happens then

Made by `scripts/crash_doc.sh` out of the comments in `lib/`; change those.

Between every two stores or system calls that others can see stands a `STEP("label")`.
`tests/crash/check_steps` kills a process at each of them, in every operation that
passes it, while others use the same cache. `tests/crash/check_pairs` then kills whoever
repairs what was left. `make check-crash` does so at every passage and in every pair,
and prints how many kills there were.

What holds at each of them: nobody waits longer than a tick for the dead one, the
key can be had again, no byte is wrong, and after one sweep every entry, ring, cursor, seat
and file is accounted for. *Reaper*: whoever repairs what a dead peer left
(`index/repair.h`). *Sweep*: whoever takes entries apart (`store/sweep.h`).

| label | where | what others see by then | if we die here |
|---|---|---|---|
END
	table
}

new=$(page)
case ${1:-} in
--check)
	if [ "$new" != "$(cat doc/crash.md 2>/dev/null)" ]; then
		echo "doc/crash.md is out of date: run scripts/crash_doc.sh"
		exit 1
	fi
	;;
'') printf '%s\n' "$new" >doc/crash.md ;;
*)
	echo "usage: scripts/crash_doc.sh [--check]" >&2
	exit 2
	;;
esac
