#!/usr/bin/env bash
# git.sh - what the git hook costs and what it saves: sixteen clones at once of
# one repository over file://, with the hook and without it, in alternating
# rounds; then the start-up of the hook, request by request.
#
#   bench/git.sh [--rounds=5] [--clones=16] [--starts=200] [--keep=DIR]
#
# The repository is made of files of this machine ($SOURCES), some 250 MB in 40
# pushes. It is measured twice: as pushed (a pack for each push, so that deltas
# between them are looked for) and repacked (what a well-kept server has: little
# is left to do but to copy). --keep=DIR makes it there, or takes it from there.
#
# Wall time is until the last client has its clone. CPU time is user and system
# of everything, servers, clients and the process that holds the run, by a
# control group if one can be made; otherwise of the whole machine, so leave it
# alone meanwhile. $STREAMCACHE is the tool, build/streamcache if not set.
set -euo pipefail

rounds=5 clones=16 starts=200 keep=
for arg; do
	case $arg in
	--rounds=*) rounds=${arg#*=} ;;
	--clones=*) clones=${arg#*=} ;;
	--starts=*) starts=${arg#*=} ;;
	--keep=*) keep=${arg#*=} ;;
	*)
		sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
		exit 2
		;;
	esac
done
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
	awk '(sum += $1) < 250e6 { sub(/^[0-9]+ /, ""); print }' "$list.all" >"$list"
	git init -q --bare "$1/pushed.git"
	git -C "$1/pushed.git" config receive.unpackLimit 1
	git -C "$1/pushed.git" config receive.autogc false
	git -C "$1/pushed.git" config gc.auto 0
	git init -q "$tree"
	git -C "$tree" config gc.auto 0
	for n in $(seq 0 39); do
		awk -v n="$n" 'NR % 40 == n' "$list" |
			xargs -d '\n' cp --parents -t "$tree" 2>/dev/null || :
		# and each push changes some of what the one before brought
		awk -v n="$n" 'NR % 40 == (n + 39) % 40 && NR % 7 == 0' "$list" |
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
	echo "no control group: CPU time is that of the whole machine"
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

# summary UNIT - of lines "NAME VALUE": median and quartiles of each name
summary() {
	sort -k1,1 -k2n | awk -v unit="$1" '
	function at(share,   i) {
		i = 1 + (n - 1) * share
		return v[int(i)] + (v[int(i) + (i > int(i))] - v[int(i)]) * (i - int(i))
	}
	function tell() {
		if (n)
			printf "  %-24s %9.2f %s   (%.2f to %.2f, %d rounds)\n", name, at(0.5), unit,
			       at(0.25), at(0.75), n
	}
	$1 != name { tell(); n = 0; name = $1 }
	{ v[++n] = $2 }
	END { tell() }'
}

contest() {
	local round mode wall cpu w c
	: >"$work/times"
	: >"$work/ratios"
	clone_all plain "$1" >/dev/null # warm
	for ((round = 0; round < rounds; round++)); do
		for mode in plain hooked; do
			read -r wall cpu < <(clone_all "$mode" "$1")
			echo "$mode:wall $((wall / 1000)).$(printf %03d $((wall % 1000)))" >>"$work/times"
			echo "$mode:cpu $((cpu / 1000)).$(printf %03d $((cpu % 1000)))" >>"$work/times"
			[ "$mode" = plain ] && w=$wall c=$cpu
		done
		awk -v a="$wall" -v b="$w" -v c="$cpu" -v d="$c" \
			'BEGIN { print "hooked/plain:wall", a / b; print "hooked/plain:cpu", c / d }' \
			>>"$work/ratios"
	done
	summary ms <"$work/times"
	summary "" <"$work/ratios"
}

enter_group
printf '%d clones at once, %s, %s CPUs, load %s\n' "$clones" "$(git --version)" "$(nproc)" \
	"$(cut -d' ' -f1 /proc/loadavg)"
for state in pushed repacked; do
	printf '%s: %d packs, %d MB\n' "$state" \
		"$(find "$place/$state.git/objects/pack" -name '*.pack' | wc -l)" \
		"$(du -sm "$place/$state.git/objects" | cut -f1)"
	contest "$place/$state.git"
done

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

echo "one request for a pack of one commit:"
for ((i = 0; i < starts; i++)); do
	for what in true plain hit miss; do
		now_us
		began=$now
		"start_$what" <"$work/request" >"$work/pack"
		now_us
		took=$((now - began))
		echo "$what $((took / 1000)).$(printf %03d $((took % 1000)))"
	done
done | summary ms
