#!/bin/sh
# exec_input.sh - what goes into the default key, and CMD's standard input.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

script copy <<'END'
begin
cat
END
script colour <<'END'
begin
echo "${COLOUR-unset}"
END

case_is "without --stdin CMD reads nothing"
reset
echo text >"$work/in"
run "$sc" exec -- "$work/copy" <"$work/in"
want_status 0
want_no_out

case_is "--stdin is CMD's input and part of the key"
reset
run "$sc" exec --stdin -- "$work/copy" <"$work/in"
want_out text
run "$sc" exec --stdin -- "$work/copy" <"$work/in"
want_out text
runs_are 1
echo other >"$work/in"
run "$sc" exec --stdin -- "$work/copy" <"$work/in"
want_out other
runs_are 2

case_is "--stdin takes a pipe of any length, and nothing at all"
seq 1 500000 >"$work/expected"
status=0
seq 1 500000 | "$sc" exec --stdin -- "$work/copy" >"$work/out" || status=$?
want_status 0
want_same "$work/expected" "$work/out"
run "$sc" exec --stdin -- "$work/copy" </dev/null
want_status 0
want_no_out

case_is "--stdin leaves nothing behind, and says if it has no room"
mkdir "$work/tmp"
run env TMPDIR="$work/tmp" "$sc" exec --stdin -- "$work/copy" <"$work/in"
want_out other
[ -z "$(ls "$work/tmp")" ] || fail "a file was left in TMPDIR"
run env TMPDIR="$work/missing" "$sc" exec --stdin -- "$work/copy" <"$work/in"
want_status 125
want_err "^streamcache: no temporary file in $work/missing: "

case_is "--stdin goes to CMD when the cache cannot be used"
run "$sc" --cache="$work/in" exec --stdin -- "$work/copy" <"$work/in"
want_status 0
want_out other
run "$sc" exec --no-cache --stdin -- "$work/copy" <"$work/in"
want_out other
run "$sc" exec --no-cache -- "$work/copy" <"$work/in"
want_no_out

case_is "--key-env: the value counts, and whether there is one"
reset
unset COLOUR
run "$sc" exec --key-env=COLOUR -- "$work/colour"
want_out unset
run env COLOUR= "$sc" exec --key-env=COLOUR -- "$work/colour"
want_out ""
run env COLOUR=red "$sc" exec --key-env=COLOUR -- "$work/colour"
want_out red
run env COLOUR=blue "$sc" exec --key-env=COLOUR -- "$work/colour"
want_out blue
run env COLOUR=red "$sc" exec --key-env=COLOUR -- "$work/colour"
want_out red
runs_are 4

case_is "a variable that is not named does not count"
run "$sc" exec -- "$work/colour"
want_out unset
run env COLOUR=red "$sc" exec -- "$work/colour"
want_out unset

case_is "--key-file: the contents count"
reset
script show <<'END'
begin
cat "$work/one" "$work/two"
END
printf 1 >"$work/one"
printf 2 >"$work/two"
run "$sc" exec --key-file="$work/one" --key-file="$work/two" -- "$work/show"
[ "$(cat "$work/out")" = 12 ] || fail "wrong output"
printf 12 >"$work/one"
: >"$work/two"
run "$sc" exec --key-file="$work/one" --key-file="$work/two" -- "$work/show"
runs_are 2
touch "$work/one"
run "$sc" exec --key-file="$work/one" --key-file="$work/two" -- "$work/show"
runs_are 2

case_is "--key-file of a file that is not there is our failure"
run "$sc" exec --key-file="$work/missing" -- "$work/show"
want_status 125
want_err "^streamcache: --key-file=$work/missing: "
runs_are 2

case_is "--key is the whole key"
reset
run "$sc" exec --key=mine -- "$work/colour"
want_out unset
run "$sc" exec --key=mine -- echo other
want_out unset
run "$sc" exec --hex --key=6d696e65 -- echo other
want_out unset
run "$sc" exec --key=mine --key-env=COLOUR -- "$work/colour"
want_status 125
