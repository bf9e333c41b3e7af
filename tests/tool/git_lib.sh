# shellcheck shell=sh
# git_lib.sh - what the tests of the git hook share; sourced instead of lib.sh.
#
# git runs as nobody in particular: no configuration but $work/gitconfig, a home
# of its own. A wrapper stands where git looks for git, and notes in $work/runs
# each pack that is made for a client. It looks for files in $work:
#
#  hold   the pack stops after its first MB until there is $work/go
#  fail   then a message and exit status 1, instead of the rest
#  kill   then SIGKILL
#
# $work/plain is a configuration without the hook.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

command -v git >/dev/null || { echo "git is not installed"; exit 77; }
for name in $(env | sed -n 's/^\(GIT_[A-Z0-9_]*\)=.*/\1/p'); do
	unset "$name"
done
HOME=$work/home
GIT_CONFIG_SYSTEM=$work/gitconfig
GIT_CONFIG_GLOBAL=$work/no-such-file
GIT_TERMINAL_PROMPT=0
mkdir "$HOME"
git_programs=$(git --exec-path) || exit 1
GIT_EXEC_PATH=$work/git-core
export HOME GIT_CONFIG_SYSTEM GIT_CONFIG_GLOBAL GIT_TERMINAL_PROMPT GIT_EXEC_PATH
unset XDG_CONFIG_HOME

mkdir "$GIT_EXEC_PATH"
ln -s "$git_programs"/* "$GIT_EXEC_PATH"
rm "$GIT_EXEC_PATH/git"
cat >"$GIT_EXEC_PATH/git" <<END
#!/bin/sh
work='$work' git='$git_programs/git'
END
cat >>"$GIT_EXEC_PATH/git" <<'END'
case " $* " in
*" --all-progress"*) exec "$git" "$@" ;; # a client that pushes
*" pack-objects "*" --stdout "*) echo "$*" >>"$work/runs" ;;
*) exec "$git" "$@" ;;
esac
await_go() {
	while [ -e "$work/hold" ] && [ ! -e "$work/go" ]; do sleep 0.02; done
}
if [ -e "$work/fail" ]; then
	"$git" "$@" | head -c 1000000
	await_go
	echo "this is why it failed" >&2
	exit 1
elif [ -e "$work/kill" ]; then
	"$git" "$@" | head -c 1000000
	await_go
	kill -KILL $$
elif [ -e "$work/hold" ]; then
	"$git" "$@" | {
		head -c 1000000
		await_go
		cat
	}
else
	exec "$git" "$@"
fi
END
chmod +x "$GIT_EXEC_PATH/git"

# hook OPTION... - what packs are made by from now on
hook() {
	git config -f "$work/gitconfig" uploadpack.packObjectsHook \
		"'$sc' git-pack-objects --cache='$work/cache' --segment-dir='$work' \
--log='$work/log' $*"
}

# One thread, or two runs of the same request need not be the same bytes.
for file in gitconfig plain; do
	cat >"$work/$file" <<END
[pack]
	threads = 1
[uploadpack]
	allowFilter = true
	allowAnySHA1InWant = true
[user]
	name = Nobody
	email = nobody@example.org
[init]
	defaultBranch = main
[protocol]
	version = 2
[advice]
	detachedHead = false
END
done
hook ""

reset() {
	rm -f "$work/runs" "$work/go" "$work/hold" "$work/fail" "$work/kill" "$work/log"
	: >"$work/runs"
	: >"$work/log"
}

# commit N BYTES - one for fast-import: so many random bytes, and some text
commit() {
	printf 'blob\nmark :%d\ndata %d\n' "$((2 * $1 - 1))" "$2"
	head -c "$2" /dev/urandom
	printf '\nblob\nmark :%d\ndata %d\n' "$((2 * $1))" 20000
	awk -v n="$1" 'BEGIN { for (i = 0; i < 1000; i++) printf "line %5d of %5d\n", i, n }' |
		head -c 20000
	printf '\ncommit refs/heads/main\n'
	printf 'committer Nobody <nobody@example.org> %d +0000\n' "$((1000000000 + $1))"
	printf 'data 10\ncommit %03d\n' "$1"
	printf 'M 100644 :%d random/%d\nM 100644 :%d text\n\n' \
		"$((2 * $1 - 1))" "$1" "$((2 * $1))"
}

# make_repository DIR COMMITS BYTES - a bare one, with so much that is random
make_repository() {
	git init -q --bare "$1" || fail "no repository"
	i=0
	while [ "$i" -lt "$2" ]; do
		i=$((i + 1))
		commit "$i" "$(($3 / $2))"
	done | git -C "$1" fast-import --quiet --force || fail "fast-import"
	git -C "$1" tag -a -m tag v1 main
}

# start_clone N URL [OPTION...] - into $work/clone.N, in the background, as from a
# terminal of its own
start_clone() {
	n=$1 url=$2
	shift 2
	rm -rf "$work/clone.$n"
	setsid env --default-signal=INT,QUIT \
		git clone -q --bare "$@" "$url" "$work/clone.$n" 2>"$work/err.$n" &
	eval "clone$n=$!"
	pids="$pids $!"
}

# clones N URL [OPTION...] - so many at once, from 1 on
clones() {
	i=0 count=$1
	shift
	while [ "$i" -lt "$count" ]; do
		i=$((i + 1))
		start_clone "$i" "$@"
	done
}

# want_clones FIRST LAST STATUS
want_clones() {
	i=$1
	while [ "$i" -le "$2" ]; do
		eval "wait_for \$clone$i"
		[ "$status" -eq "$3" ] || {
			cat "$work/err.$i"
			fail "clone $i has exit status $status instead of $3"
		}
		i=$((i + 1))
	done
}

is_sound() {
	git -C "$1" fsck --full >"$work/out" 2>"$work/err" || fail "$1 is not sound"
	want_no_err
}

pack_of() {
	set -- "$1"/objects/pack/pack-*.pack
	[ $# -eq 1 ] || fail "there should be one pack: $*"
	echo "$1"
}

# outcomes_are WORD N - so many requests ended in that way; waits for the log
outcomes_are() {
	await outcomes_reach "$1" "$2"
	[ "$(grep -c "outcome=$1 " "$work/log")" -eq "$2" ] || {
		cat "$work/log"
		fail "not $2 requests were of the kind $1"
	}
}

outcomes_reach() {
	[ "$(grep -c "outcome=$1 " "$work/log")" -ge "$2" ]
}

# share_sixteen URL - so many clones at once: one pack is made, that of $work/plain.git
share_sixteen() {
	reset
	"$sc" rm --all >/dev/null 2>&1
	touch "$work/hold"
	clones 16 "$1"
	await number_is readers 16
	touch "$work/go"
	want_clones 1 16 0
	runs_are 1
	outcomes_are created 1
	outcomes_are join 15
	for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
		is_sound "$work/clone.$i"
		want_same "$(pack_of "$work/plain.git")" "$(pack_of "$work/clone.$i")"
		rm -rf "$work/clone.$i"
	done
}
