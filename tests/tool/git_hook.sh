#!/bin/sh
# git_hook.sh - the git hook by itself: which requests are the same, which are
# left to plain git, and what it says to whom.
# shellcheck disable=SC2086 # $upload is a list of words
# shellcheck source=git_lib.sh
. "$(dirname "$0")/git_lib.sh"

repository=$work/repo.git
make_repository "$repository" 4 40000
git -C "$repository" branch old main~2
{
	git -C "$repository" rev-parse main
	printf -- '--not\n\n'
} >"$work/request"
upload="pack-objects --revs --thin --stdout --delta-base-offset"
PATH=$GIT_EXEC_PATH:$PATH # as git upload-pack makes it

# ask WORD ARGUMENT... - as git upload-pack does; WORD is the outcome
ask() {
	word=$1
	shift
	: >"$work/log"
	run env -C "$repository" GIT_DIR=. "$sc" git-pack-objects --log="$work/log" \
		git "$@" <"$work/request"
	grep -q "outcome=$word " "$work/log" || {
		rm "$work/out" # it is binary
		fail "not a $word: $* $(cat "$work/log")"
	}
}

# ask_good WORD [ARGUMENT...] - and it is a pack
ask_good() {
	word=$1
	shift
	ask "$word" $upload "$@"
	want_status 0
	git -C "$work/repo.git" index-pack --stdin --fix-thin -o "$work/index" "$work/pack" <"$work/out" >/dev/null ||
		fail "that is no pack"
	rm -f "$work/pack" "$work/index" "$work"/*.rev
}

case_is "what is only told meanwhile does not count; a hit says nothing"
reset
ask_good created --progress
want_err "^Enumerating objects"
for quiet in "" --progress --no-progress -q --quiet --all-progress --all-progress-implied; do
	ask_good hit $quiet
	want_no_err
done
runs_are 1

case_is "arguments count, and the order and end of the input"
ask_good created --include-tag
ask created pack-objects --revs --stdout
ask created --shallow-file "" pack-objects --revs --stdout
ask hit --shallow-file "" pack-objects --revs --stdout
cp "$work/request" "$work/saved"
echo >>"$work/request"
ask_good created
{
	git -C "$repository" rev-parse old
	cat "$work/saved"
} >"$work/request"
ask_good created
cp "$work/saved" "$work/request"
ask_good hit

case_is "git's environment counts, but not who asks"
for name in GIT_PROTOCOL=version=2 GIT_NAMESPACE=other GIT_NO_REPLACE_OBJECTS=1 \
	GIT_FUTURE_VARIABLE=1 "GIT_CONFIG_PARAMETERS='pack.window=20'"; do
	export "${name?}"
	ask_good created
	ask_good hit
	unset "${name%%=*}"
done
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=pack.depth
for depth in 10 20; do
	export GIT_CONFIG_VALUE_0=$depth
	ask_good created
done
unset GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0
for name in GIT_COMMITTER_EMAIL=x@http.127.0.0.1 GIT_COMMITTER_NAME=x GIT_HTTP_EXPORT_ALL=1 \
	GIT_TRACE2_PARENT_SID=x GIT_PROJECT_ROOT=/ REMOTE_ADDR=127.0.0.2 LANG=C; do
	export "${name?}"
	ask_good hit
	unset "${name%%=*}"
done

case_is "configuration counts, wherever git reads it"
for file in "$repository/config" "$GIT_CONFIG_SYSTEM"; do
	cp "$file" "$work/saved.config"
	git config -f "$file" pack.compression 1
	ask_good created
	cp "$work/saved.config" "$file"
	ask_good hit
done
unset GIT_CONFIG_GLOBAL
ask_good hit
printf '[pack]\n\tdepth = 7\n' >"$HOME/.gitconfig"
ask_good created
rm "$HOME/.gitconfig"
mkdir -p "$HOME/.config/git"
printf '[pack]\n\tdepth = 8\n' >"$HOME/.config/git/config"
ask_good created
rm -r "$HOME/.config"
export GIT_CONFIG_GLOBAL="$work/no-such-file"
ask_good hit

case_is "the repository counts: which one it is, whatever it is called"
ln -s repo.git "$work/link.git"
repository=$work/link.git
ask_good hit
cp -a "$work/repo.git" "$work/copy.git"
repository=$work/copy.git
ask_good created
ask_good hit
mv "$work/copy.git" "$work/away.git"
repository=$work/away.git
ask_good created
cp -a "$work/repo.git" "$work/copy.git"
repository=$work/copy.git
ask_good created
mv "$work/copy.git/objects" "$work/copy.git/old"
cp -a "$work/copy.git/old" "$work/copy.git/objects"
ask_good created
echo "$work/repo.git/objects" >"$work/copy.git/objects/info/alternates"
ask_good created
git -C "$work/repo.git" rev-parse main >"$work/copy.git/info/grafts"
ask created "pack-objects" --revs --stdout
rm "$work/copy.git/info/grafts"
git -C "$work/repo.git" rev-parse main >"$work/copy.git/shallow"
ask created "pack-objects" --revs --stdout
rm "$work/copy.git/shallow"
git -C "$work/copy.git" worktree add -q "$work/tree" main
repository=$work/tree/.git
repository=$(sed -n 's/^gitdir: //p' "$repository")
ask_good created
ask_good hit
git config -f "$work/copy.git/config" pack.compression 3
ask_good created
repository=$work/repo.git
ask_good hit

case_is "tags count if they are asked for, however they are kept"
ask_good hit --include-tag
git -C "$repository" branch another old
ask_good hit --include-tag
git -C "$repository" tag -a -m tag v2 old
ask_good created --include-tag
git -C "$repository" tag -a -m tag deep/down/v3 old
ask_good created --include-tag
git -C "$repository" tag -f -a -m moved deep/down/v3 main >/dev/null
ask_good created --include-tag
git -C "$repository" pack-refs --all
ask_good created --include-tag
git -C "$repository" tag -d v2 >/dev/null
ask_good created --include-tag
ask_good hit --include-tag
grep -v deep/down "$repository/packed-refs" >"$work/packed-refs"
mv "$work/packed-refs" "$repository/packed-refs"
ask_good created --include-tag
mkdir "$repository/reftable"
echo x >"$repository/reftable/tables.list"
ask_good created --include-tag
rm -r "$repository/reftable"
ask_good hit

case_is "another git counts"
sleep_less=$(stat -c %Y "$GIT_EXEC_PATH/git")
touch -d "@$((sleep_less - 10))" "$GIT_EXEC_PATH/git"
ask_good created
touch -d "@$((sleep_less - 20))" "$GIT_EXEC_PATH/git"
ask_good created

# like_plain COMMAND... - by the hook and without it: the same in every respect
like_plain() {
	env -C "$repository" GIT_DIR=. "$@" <"$work/request" >"$work/plain.out" \
		2>"$work/plain.err"
	plain_status=$?
	: >"$work/log"
	run env -C "$repository" GIT_DIR=. "$sc" git-pack-objects --log="$work/log" "$@" \
		<"$work/request"
	want_status "$plain_status"
	want_same "$work/plain.out" "$work/out"
	want_same "$work/plain.err" "$work/err"
	grep -q "outcome=bypass .*why=\".\+\"" "$work/log" || fail "not a bypass: $*"
}

case_is "what cannot be shared is plain git's"
entries=$(number entries)
for more in --filter=sparse:oid=main:text --filter=combine:sparse:oid=main:text+blob:none \
	--filter=combine:sparse%3aoid=main:text --filter= --filter=blob:limit= --filter=nonsense \
	--uri-protocol=https --missing=allow-any --honor-pack-keep --window=20 --all nonsense; do
	like_plain git $upload -q "$more"
done
like_plain git version
like_plain git
like_plain git nonsense
like_plain git -c pack.depth=3 pack-objects --revs --stdout -q
like_plain git pack-objects -q --stdout
like_plain git pack-objects -q --revs
like_plain git pack-objects -q --revs "$work/pack"
rm -f "$work"/pack-*
like_plain cat
like_plain sh -c 'cat >/dev/null; exit 9'
[ "$(number entries)" -eq "$entries" ] || fail "one of them was stored"
run env -C "$repository" -u GIT_DIR "$sc" git-pack-objects git $upload -q <"$work/request"
want_status 0
want_no_err
[ "$(number entries)" -eq "$entries" ] || fail "that was stored"

case_is "a cache that cannot be used: plain git, the same status, and not a word"
: >"$work/file"
mkdir "$work/open"
chmod 777 "$work/open"
for dir in "$work/file" "$work/open" "$work/missing/cache" /proc/1; do
	for more in -q --keep-going; do
		STREAMCACHE_DIR=$dir
		like_plain git $upload $more
	done
done
unset STREAMCACHE_DIR
saved=$HOME
unset HOME
like_plain git $upload -q
export HOME="$work/file"
like_plain git $upload -q
export HOME="$saved" STREAMCACHE_DIR="$work/cache"
export STREAMCACHE_DISABLE=1
like_plain git $upload -q
unset STREAMCACHE_DISABLE
ask_good hit

case_is "a cache that cannot store: plain git, after the input was taken"
mkdir -p "$work/odd/blobs"
chmod 700 "$work/odd" "$work/odd/blobs"
(cd "$work/odd/blobs" && for digit in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do
	for more in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do
		: >"$digit$more"
	done
done)
STREAMCACHE_DIR=$work/odd
like_plain git $upload -q
like_plain git $upload -q --filter=blob:none
rm -r "$work/odd/blobs"
"$sc" destroy >/dev/null
STREAMCACHE_DIR=$work/cache

case_is "no git at all: as a shell says it"
for name in "$work/missing/git:127" "$work/open/git:126"; do
	: >"$work/open/git"
	: >"$work/log"
	run env -C "$repository" GIT_DIR=. "$sc" git-pack-objects --log="$work/log" \
		"${name%:*}" pack-objects --revs --stdout <"$work/request"
	want_status "${name#*:}"
	want_no_out
	want_no_err
	grep -q "outcome=bypass " "$work/log" || fail "the log does not tell"
done

case_is "a mistyped option is told at once, to the administrator who tries it"
for option in --cahce=x --max-age=soon --window=1T --log; do
	run "$sc" git-pack-objects "$option"
	want_status 125
	want_no_out
	want_err "^Try 'streamcache git-pack-objects --help'"
done
run "$sc" git-pack-objects
want_status 125
run "$sc" git-pack-objects --help
want_status 0
grep -q "^Usage: streamcache git-pack-objects " "$work/out" || fail "no help"
run "$sc" --help
grep -q "^  git-pack-objects " "$work/out" || fail "--help does not name it"

case_is "--max-age: five minutes if nothing else is said"
"$sc" rm --all
ask_good created
left=$("$sc" ls --json | sed -n 's/^ *"expires_in_ns": *\([0-9]*\),*$/\1/p')
[ "$left" -gt 200000000000 ] || fail "it expires too soon"
[ "$left" -le 300000000000 ] || fail "it expires too late"
reset
for i in 1 2; do
	run env -C "$repository" GIT_DIR=. "$sc" git-pack-objects --max-age=1ns --window=64K \
		git $upload -q <"$work/request"
	want_status 0
	want_no_err
	runs_are "$i"
done

case_is "--log: a line a request; ls shows whose pack it is"
: >"$work/log"
ask_good created
stamp='[0-9-]*T[0-9:]*Z'
grep -qx "$stamp pid=[0-9]* outcome=created status=0 bytes=[1-9][0-9]* ms=[0-9]* \
repository=\"$repository\" why=\"\"" "$work/log" || fail "not the line it should be"
ask bypass nonsense
grep -qx "$stamp pid=[0-9]* outcome=bypass status=- bytes=0 ms=[0-9]* \
repository=\"$repository\" why=\"not shared: 'nonsense'\"" "$work/log" || fail "not the line"
"$sc" ls | grep -q "git:[0-9a-f]\{64\} $repository\$" || fail "ls does not tell"
run env -C "$repository" GIT_DIR=. "$sc" git-pack-objects --log="$work/missing/log" \
	git $upload -q <"$work/request"
want_status 0
want_no_err

case_is "a request that fails: git's status and message, and nothing is stored"
echo 0000000000000000000000000000000000000001 >"$work/request"
for i in 1 2; do
	ask created $upload -q
	want_status 128
	want_err "^fatal: "
done
