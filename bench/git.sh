#!/usr/bin/env bash
# git.sh - what the git hook costs and what it saves: sixteen clones at once of
# one repository over file://, with the hook and without it, in alternating
# rounds; then the start-up of the hook, request by request.
#
#   bench/git.sh [--rounds=5] [--clones=16] [--starts=200] [--keep=DIR]
#                [--json=FILE] [--smoke]
#
# --json and --smoke are those of the other programs, see bench/measure.h.
#
# The repository is made of files of this machine ($SOURCES), some 250 MB in 40
# pushes. It is measured twice: as pushed (a pack for each push, so that deltas
# between them are looked for) and repacked (what a well-kept server has: little
# is left to do but to copy). --keep=DIR makes it there, or takes it from there.
#
# Wall time is until the last client has its clone. CPU time is user and system
# of everything, servers, clients and the process that holds the run, by a
# control group if one can be made; otherwise of the whole machine, so leave it
# alone meanwhile. $STREAMCACHE is the tool, build/streamcache if not set. Exit
# status 77 without git.
set -euo pipefail

rounds=5 clones=16 starts=200 keep='' json='' bytes=250000000 pushes=40
for arg; do
	case $arg in
	--rounds=*) rounds=${arg#*=} ;;
	--clones=*) clones=${arg#*=} ;;
	--starts=*) starts=${arg#*=} ;;
	--keep=*) keep=${arg#*=} ;;
	--json=*) json=$(realpath "${arg#*=}") ;;
	--smoke) rounds=1 clones=2 starts=2 bytes=2000000 pushes=4 ;;
	*)
		sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
		exit 2
		;;
	esac
done
if ! command -v git >/dev/null; then
	echo "git is not installed"
	exit 77
fi
SOURCES=${SOURCES:-/usr/include /usr/share/doc /usr/share/perl /usr/share/vim /usr/lib/python3}

work=$(mktemp -d "${TMPDIR:-/tmp}/streamcache-bench.XXXXXX")
group=
tool=false

leave_group() {
	[ -n "$group" ] || return 0
	while read -r pid; do
		{ echo "$pid" >"${group%/*}/cgroup.procs"; } 2>/dev/null || :
	done <"$group/cgroup.procs"
	rmdir "$group" 2>/dev/null || :
	group=
}

tidy() {
	leave_group
	"$tool" --cache="$work/cache" destroy >/dev/null 2>&1 || :
	rm -rf "$work"
}
trap tidy EXIT

tool=$(realpath "${STREAMCACHE:-$(dirname "$0")/../build/streamcache}")
built=$(dirname "$tool")
if [ -x "$built/.libs/streamcache" ]; then # not libtool's script, which costs more
	cp "$built/.libs/streamcache" "$built/.libs/libstreamcache.so.0" "$work"
	tool=$work/streamcache
	export LD_LIBRARY_PATH=$work
fi
while read -r name; do
	unset "$name"
done < <(compgen -e GIT_ || :)
export HOME=$work GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=$work/plain
unset XDG_CONFIG_HOME STREAMCACHE_DISABLE
cat >"$work/plain" <<END
[user]
	name = Nobody
	email = nobody@example.org
[init]
	defaultBranch = main
END
cp "$work/plain" "$work/hooked"
git config -f "$work/hooked" uploadpack.packObjectsHook \
	"'$tool' git-pack-objects --cache='$work/cache'"

# ------------------------------------------------------------- repository

make_repository() {
	local tree=$1/tree list=$1/list n
	mkdir -p "$tree"
	# shellcheck disable=SC2086 # a list of directories
	{ find $SOURCES -xdev -type f -size -2M -printf '%s %p\n' 2>/dev/null || :; } |
		sort -k2 >"$list.all"
	awk -v bytes="$bytes" '(sum += $1) < bytes { sub(/^[0-9]+ /, ""); print }' "$list.all" >"$list"
	git init -q --bare "$1/pushed.git"
	git -C "$1/pushed.git" config receive.unpackLimit 1
	git -C "$1/pushed.git" config receive.autogc false
	git -C "$1/pushed.git" config gc.auto 0
	git init -q "$tree"
	git -C "$tree" config gc.auto 0
	for ((n = 0; n < pushes; n++)); do
		awk -v n="$n" -v of="$pushes" 'NR % of == n' "$list" |
			xargs -d '\n' cp --parents -t "$tree" 2>/dev/null || :
		# and each push changes some of what the one before brought
		awk -v n="$n" -v of="$pushes" 'NR % of == (n + of - 1) % of && NR % 7 == 0' "$list" |
			while read -r file; do
				[ ! -w "$tree$file" ] || echo "changed in $n" >>"$tree$file"
			done
		git -C "$tree" add -A
		git -C "$tree" commit -q -m "push $n"
		git -C "$tree" push -q "$1/pushed.git" main
	done
	rm -rf "$tree"
	cp -a "$1/pushed.git" "$1/repacked.git"
	git -C "$1/repacked.git" gc -q
}

place=${keep:-$work}
[ -d "$place/repacked.git" ] || make_repository "$place"

# ----------------------------------------------------------------- clocks

# Into $now: a substitution would fork.
now_us() {
	now=${EPOCHREALTIME/[.,]/}
}

enter_group() {
	local dir
	for dir in /sys/fs/cgroup /sys/fs/cgroup/cpuacct; do
		[ -e "$dir/cpuacct.usage" ] || [ -e "$dir/cgroup.controllers" ] || continue
		if mkdir "$dir/streamcache-bench.$$" 2>/dev/null; then
			group=$dir/streamcache-bench.$$
			{ echo $$ >"$group/cgroup.procs"; } 2>/dev/null && return
			rmdir "$group"
			group=
		fi
	done
	whose_cpu="of the whole machine: no control group"
}

cpu_us() {
	if [ -z "$group" ]; then
		awk -v hz="$(getconf CLK_TCK)" \
			'/^cpu / { print int(($2 + $3 + $4 + $7 + $8) * 1e6 / hz) }' /proc/stat
	elif [ -e "$group/cpuacct.usage" ]; then
		awk '{ print int($1 / 1000) }' "$group/cpuacct.usage"
	else
		awk '/^usage_usec/ { print $2 }' "$group/cpu.stat"
	fi
}

# --------------------------------------------------------------- contests

# clone_all MODE REPOSITORY - prints wall and CPU time in microseconds
clone_all() {
	local i pid wall cpu pids=()
	rm -rf "$work/clones"
	mkdir "$work/clones"
	"$tool" --cache="$work/cache" rm --all >/dev/null 2>&1 || :
	"$tool" --cache="$work/cache" sweep >/dev/null 2>&1 || :
	sync
	cpu=$(cpu_us)
	now_us
	wall=$now
	for ((i = 0; i < clones; i++)); do
		GIT_CONFIG_SYSTEM=$work/$1 git clone -q --bare "file://$2" "$work/clones/$i" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid"
	done
	now_us
	wall=$((now - wall))
	# the process that holds the run may have a moment to go
	while [ "$1" = hooked ] && [ "$("$tool" --cache="$work/cache" stat --json |
		sed -n 's/^ *"peers": \([0-9]*\),*/\1/p' | head -n 1)" -gt 1 ]; do
		sleep 0.01
	done
	cpu=$(($(cpu_us) - cpu))
	echo "$wall $cpu"
}

# answer QUESTION WHERE NAME... - standard input has a line "N MICROSECONDS" for each round
# of each contestant, N is the number of its NAME, and 1 is ours. Prints, and appends to
# $json, what ask() of bench/measure.c does.
answer() {
	local question=$1 where=$2
	shift 2
	printf '%s\n' "$@" >"$work/names"
	awk -v question="$question" -v where="$where" -v json="${json:-/dev/null}" '
	function sort_them(v, n,   i, j, x) {
		for (i = 2; i <= n; i++) {
			x = v[i]
			for (j = i - 1; j > 0 && v[j] > x; j--)
				v[j + 1] = v[j]
			v[j + 1] = x
		}
	}
	function low(v, n) { return v[int(n / 4) + 1] }
	function median(v, n) { return v[int(n / 2) + 1] }
	function high(v, n) { return v[n - int(n / 4)] }
	function as_json(v, n) {
		return sprintf("{\"median\":%.17g,\"q1\":%.17g,\"q3\":%.17g}", median(v, n),
			       low(v, n), high(v, n))
	}
	function row(c,   i, v, list, text) {
		for (i = 1; i <= rounds; i++) {
			v[i] = figure[c, i]
			list = list (i > 1 ? "," : "") sprintf("%.17g", v[i])
		}
		sort_them(v, rounds)
		printf "  %-34s %11.5g (%.5g to %.5g)", name[c], median(v, rounds), low(v, rounds),
		       high(v, rounds)
		text = sprintf("{\"name\":\"%s\",\"figure\":%s,\"figures\":[%s]", name[c],
			       as_json(v, rounds), list)
		for (i = 1; i <= rounds; i++)
			v[i] = figure[1, i] / figure[c, i]
		sort_them(v, rounds)
		if (c > 1) {
			printf "   ours: %.3g x (%.3g to %.3g)", median(v, rounds), low(v, rounds),
			       high(v, rounds)
			text = text ",\"ratio\":" as_json(v, rounds)
		}
		printf "\n"
		return text "}"
	}
	NR == FNR { name[++names] = $0; next }
	{ figure[$1, ++count[$1]] = $2 / 1000 }
	END {
		rounds = count[1]
		printf "%s  [ms; %s]\n", question, where
		line = sprintf("{\"question\":\"%s\",\"unit\":\"ms\",\"is_time\":true,", question)
		line = line sprintf("\"where\":\"%s\",\"rounds\":%d,\"contestants\":[", where, rounds)
		for (c = 1; c <= names; c++)
			line = line (c > 1 ? "," : "") row(c)
		print line "]}" >>json
	}' "$work/names" -
}

# contest STATE - of the repository
contest() {
	local round mode n wall cpu repository=$place/$1.git where
	: >"$work/wall"
	: >"$work/cpu"
	clone_all plain "$repository" >/dev/null # warm
	for ((round = 0; round < rounds; round++)); do
		for ((n = 0; n < 2; n++)); do
			mode=$(((n + round) % 2 + 1)) # one is first by turns
			read -r wall cpu < <(clone_all "${modes[mode]}" "$repository")
			echo "$mode $wall" >>"$work/wall"
			echo "$mode $cpu" >>"$work/cpu"
		done
	done
	where="$(find "$repository/objects/pack" -name '*.pack' | wc -l) packs, \
$(du -sm "$repository/objects" | cut -f1) MB"
	answer "git: $clones clones at once, $1, wall" "$where; until the last has its clone" \
		"with the hook" "without" <"$work/wall"
	answer "git: $clones clones at once, $1, CPU" "$where; $whose_cpu" \
		"with the hook" "without" <"$work/cpu"
}

modes=('' hooked plain)
whose_cpu="servers, clients and the process that holds the run"
enter_group
printf '%s, %s CPUs, load %s\n' "$(git --version)" "$(nproc)" "$(cut -d' ' -f1 /proc/loadavg)"
contest pushed
contest repacked

# --------------------------------------------------------------- start-up

git init -q --bare "$work/tiny.git"
cd "$work/tiny.git"
tree=$(git hash-object -w -t tree /dev/null)
{
	git commit-tree -m tiny "$tree"
	printf -- '--not\n\n'
} >"$work/request"
export GIT_DIR=.
PATH=$(git --exec-path):$PATH # as git upload-pack makes it

start_true() { /bin/true; }
start_plain() { git pack-objects --revs --thin --stdout -q; }
start_hit() {
	"$tool" git-pack-objects --cache="$work/cache" git pack-objects --revs --thin --stdout -q
}
start_miss() {
	"$tool" git-pack-objects --cache="$work/cache" --max-age=1ns \
		git pack-objects --revs --stdout -q
}

requests=(start_hit start_miss start_plain start_true)
for ((i = 0; i < starts; i++)); do
	for ((n = 0; n < ${#requests[@]}; n++)); do
		what=$(((n + i) % ${#requests[@]}))
		now_us
		began=$now
		"${requests[what]}" <"$work/request" >"$work/pack"
		now_us
		echo "$what $((now - began))"
	done
done >"$work/took"

# rivals OURS - the figures of one of the first two, and of the others
rivals() {
	awk -v ours="$1" '$1 == ours { print 1, $2 } $1 > 1 { print $1, $2 }' "$work/took"
}
where="each request, for a pack of one commit"
rivals 0 | answer "git: a request, a hit" "$where" "hook, stored before" \
	"git pack-objects alone" "true"
rivals 1 | answer "git: a request, a miss" "$where" "hook, not there yet" \
	"git pack-objects alone" "true"
