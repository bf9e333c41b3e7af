#!/bin/sh
# bad_input.sh - a clear message, a documented status, nothing left behind.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# want_hint VERB - the message ends with where to look
want_hint() {
	want_no_out
	want_err "^Try 'streamcache ${1:+$1 }--help'\.\$"
}

want_nothing_made() {
	[ ! -e "$work/cache" ] || fail "a cache was made"
}

verbs="get put ls stat check rm sweep verify destroy"

case_is "unknown flags, commands and arguments"
run "$sc"
want_status 2
want_hint ""
run "$sc" fetch
want_status 2
want_err "unknown command 'fetch'"
run "$sc" --colour ls
want_status 2
want_hint ""
for verb in $verbs; do
	run "$sc" "$verb" --colour
	want_status 2
	want_err "^streamcache $verb: unrecognized option '--colour'"
	want_hint "$verb"
	run "$sc" "$verb" --cache
	want_status 2
	want_hint "$verb"
done
run "$sc" exec --colour -- true
want_status 125
want_hint exec
run "$sc" exec
want_status 125
want_hint exec
for verb in get put "get a b" "put a b" rm "rm --all a" verify "verify --all a" "stat x" "check x" "sweep x" "destroy x"; do
	# shellcheck disable=SC2086 # verb and arguments
	run "$sc" $verb
	want_status 2
	want_hint "${verb%% *}"
done
want_nothing_made

case_is "--help and --version"
run "$sc" --version
want_status 0
grep -q '^streamcache [0-9]*\.[0-9]*\.[0-9]*$' "$work/out" || fail "no version"
run "$sc" --help
want_status 0
for verb in $verbs exec; do
	grep -q "^  $verb " "$work/out" || fail "--help does not name $verb"
done
for verb in $verbs exec; do
	run "$sc" "$verb" --help
	want_status 0
	want_no_err
	grep -q "^Usage: streamcache $verb " "$work/out" || fail "$verb --help"
	grep -q "^Exit status: " "$work/out" || fail "$verb --help has no exit status"
done
want_nothing_made

case_is "sizes and durations"
for time in "" x 1x -1 " 1" 1.5h 99999999999999999999 1000000000000000d; do
	run "$sc" sweep --max-age="$time"
	want_status 2
	want_err "is no duration"
done
for size in "" x 1x 1T 0x10 99999999999G; do
	run "$sc" exec --window="$size" -- true
	want_status 125
	want_err "is no size"
done
want_nothing_made

case_is "impossible keys"
long=$(printf '%0256d' 0)
for key in "" "$long"; do
	for verb in get put rm ls verify; do
		run "$sc" "$verb" "$key" </dev/null
		want_status 2
		want_err "a KEY has 1 to 255 bytes, this one has ${#key}"
	done
	run "$sc" exec --key="$key" -- true
	want_status 125
	want_no_out
done
for key in "" 0 0g 0x00 "$long$long"; do
	run "$sc" get --hex "$key"
	want_status 2
done
run "$sc" exec --key-env= -- true
want_status 125
run "$sc" exec --key-env=A=B -- true
want_status 125
want_nothing_made

# unusable DIR - every verb says so, and exec runs CMD
unusable() {
	for verb in "put x" "get x" "ls" "stat" "check" "rm x" "sweep" "verify x" "destroy"; do
		# shellcheck disable=SC2086 # verb and argument
		run "$sc" --cache="$1" $verb </dev/null
		want_status 125
		want_no_out
		want_err "^streamcache: cache $1: ."
		want_err_lines 1
	done
	run "$sc" --cache="$1" exec -- echo yes
	want_status 0
	want_out yes
	want_err "^streamcache: cache $1: .*; running the command without it\$"
}

case_is "the cache directory is a file"
echo mine >"$work/file"
unusable "$work/file"
[ "$(cat "$work/file")" = mine ] || fail "the file was changed"

case_is "its parent is missing"
unusable "$work/missing/cache"
[ ! -e "$work/missing" ] || fail "something was made"

case_is "others can write to it"
mkdir "$work/open"
chmod 777 "$work/open"
unusable "$work/open"
[ -z "$(ls -A "$work/open")" ] || fail "something was made"

case_is "it belongs to another user"
if [ "$(id -u)" -eq 0 ]; then
	mkdir "$work/foreign"
	chown 12345 "$work/foreign"
	unusable "$work/foreign"
	[ -z "$(ls -A "$work/foreign")" ] || fail "something was made"
else
	unusable /usr
fi

case_is "symbolic links in place of its files"
mkdir -m 700 "$work/links" "$work/target"
: | "$sc" --cache="$work/plain" put x || fail "put"
(cd "$work/plain" && find . -type f) | while read -r file; do
	mkdir -p "$work/links/$(dirname "$file")"
	ln -s "$work/target/file" "$work/links/$file"
done
chmod -R go-w "$work/links"
run "$sc" --cache="$work/links" put x </dev/null
want_status 125
want_err "^streamcache: cache $work/links: "
[ -z "$(ls -A "$work/target")" ] || fail "a link was followed"
run "$sc" --cache="$work/plain" destroy
want_status 0

case_is "the default directory is made with its parents, for its user only"
(
	unset STREAMCACHE_DIR
	XDG_CACHE_HOME=$work/xdg/a/b
	export XDG_CACHE_HOME
	: | "$sc" put x || fail "put"
	[ "$(stat -c %a "$work/xdg/a/b/streamcache")" = 700 ] || fail "wrong mode"
	[ "$(stat -c %a "$work/xdg")" = 700 ] || fail "wrong mode of a parent"
	run "$sc" destroy
	want_status 0
	XDG_CACHE_HOME=relative HOME=$work/home
	export XDG_CACHE_HOME HOME
	: | "$sc" put x || fail "put"
	[ -d "$work/home/.cache/streamcache" ] || fail "not in the home directory"
	run "$sc" destroy
	want_status 0
	unset XDG_CACHE_HOME HOME
	run "$sc" ls
	want_status 125
	want_err "no cache directory"
) || exit 1

case_is "standard output is closed, or full"
printf 12345 | "$sc" put five || fail "put"
for verb in "get five" "ls" "stat" "check" "sweep" "verify --all" "exec -- echo yes" "--help" "ls --json"; do
	status=0
	# shellcheck disable=SC2086 # verb and argument
	"$sc" $verb >&- 2>"$work/err" || status=$?
	want_status 125
	want_err "^streamcache: standard output: "
	status=0
	# shellcheck disable=SC2086
	"$sc" $verb >/dev/full 2>"$work/err" || status=$?
	want_status 125
	want_err "^streamcache: standard output: "
	want_err_lines 1
done

case_is "a reader that goes away ends it quietly"
seq 1 1000000 | "$sc" put long || fail "put"
{
	status=0
	"$sc" get long 2>"$work/err" || status=$?
	echo "$status" >"$work/status"
} | head -n 1 >"$work/out"
status=$(cat "$work/status")
want_status 141
want_out 1
want_no_err

case_is "standard input is closed"
run "$sc" put closed <&-
want_status 125
want_err "^streamcache: standard input: "
has_no closed || fail "something was stored"
run "$sc" exec --stdin -- cat <&-
want_status 125
run "$sc" put directory </
want_status 125
has_no directory || fail "something was stored"

case_is "standard error is closed"
status=0
"$sc" get five >"$work/out" 2>&- || status=$?
want_status 0
[ "$(cat "$work/out")" = 12345 ] || fail "wrong output"
status=0
"$sc" exec -- sh -c 'echo yes; echo no >&2' >"$work/out" 2>&- || status=$?
want_status 0
want_out yes
status=0
"$sc" exec -- echo all three >"$work/three" <&- 2>&- || status=$?
want_status 0

case_is "after all this the cache is sound"
await number_is peers 1
run "$sc" check
want_status 0
