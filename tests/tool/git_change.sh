#!/bin/sh
# git_change.sh - the git hook while the repository changes, pack-objects fails,
# and clients and producers are interrupted and killed.
# shellcheck source=git_lib.sh
. "$(dirname "$0")/git_lib.sh"

repository=$work/repo.git
url=file://$repository
clone1='' clone2='' clone16=''
make_repository "$repository" 40 8000000
git clone -q "$url" "$work/tree"

# push NAME - a new commit from $work/tree
push() {
	echo "$1" >"$work/tree/$1"
	git -C "$work/tree" add "$1"
	git -C "$work/tree" commit -q -m "$1"
	git -C "$work/tree" push -q -f origin HEAD:main 2>"$work/err" || fail "cannot push"
}

# has_main DIR REVISION
has_main() {
	is_sound "$1"
	[ "$(git -C "$1" rev-parse main)" = "$2" ] || fail "$1 is not at $2"
}

main() {
	git -C "$repository" rev-parse main
}

# received N - clone N has got some of its pack
received() {
	[ -n "$(find "$work/clone.$1/objects/pack" -name 'tmp_pack_*' -size +100k)" ]
}

# hold_four - clones of $url that all have a part of the one pack
hold_four() {
	"$sc" rm --all
	reset
	touch "$work/hold"
	clones 4 "$url"
	await number_is readers 4
	for i in 1 2 3 4; do
		await received "$i"
	done
}

producer() {
	"$sc" ls --json | sed -n 's/^ *"producer_pid": *\([0-9][0-9]*\),*$/\1/p'
}

case_is "pushed to: who asks then gets the new commits"
reset
clones 1 "$url"
want_clones 1 1 0
has_main "$work/clone.1" "$(main)"
before=$(main)
push one
[ "$before" != "$(main)" ] || fail "nothing was pushed"
clones 2 "$url"
want_clones 1 2 0
has_main "$work/clone.2" "$(main)"
runs_are 1 # the first was the work tree's

case_is "repacked, gc'ed: what is stored is as good as it was"
for change in "repack -q -a -d -f --depth=5" "gc -q --prune=now" "pack-refs --all"; do
	# shellcheck disable=SC2086 # words
	git -C "$repository" $change
	reset
	clones 1 "$url"
	want_clones 1 1 0
	has_main "$work/clone.1" "$(main)"
	"$sc" rm --all
	clones 1 "$url"
	want_clones 1 1 0
	has_main "$work/clone.1" "$(main)"
done

case_is "a history that was replaced and pruned is gone for who asks then"
gone=$(main)
git -C "$work/tree" reset -q --hard HEAD~10
push two
git -C "$repository" reflog expire --expire=now --all
git -C "$repository" gc -q --prune=now
! git -C "$repository" cat-file -e "$gone" 2>/dev/null || fail "it was not pruned"
clones 1 "$url"
want_clones 1 1 0
has_main "$work/clone.1" "$(main)"
! git -C "$work/clone.1" cat-file -e "$gone" 2>/dev/null || fail "it is in the clone"

case_is "changed while clones are under way: each gets what it asked for"
hold_four
before=$(main)
git -C "$work/tree" reset -q --hard HEAD~3
push three
git -C "$repository" reflog expire --expire=now --all
git -C "$repository" repack -q -a -d -f --depth=5
git -C "$repository" gc -q --prune=now
! git -C "$repository" cat-file -e "$before" 2>/dev/null || fail "it was not pruned"
rm "$work/hold"
run git clone -q --bare "$url" "$work/after.git"
want_status 0
has_main "$work/after.git" "$(main)"
touch "$work/go"
want_clones 1 4 0
for i in 1 2 3 4; do
	has_main "$work/clone.$i" "$before"
done
runs_are 2

count() {
	git -C "$1" rev-list --count main
}

case_is "pushed to and repacked all the time: no clone is stale or broken"
reset
first=$(count "$repository")
(
	n=0
	until [ -e "$work/enough" ]; do
		n=$((n + 1))
		push "again.$n"
		git -C "$repository" repack -q -a -d
		git -C "$repository" gc -q
	done
) >"$work/changes" 2>&1 &
changes=$!
pids="$pids $changes"
for i in 1 2 3 4 5 6; do
	least=$(count "$repository")
	clones 4 "$url"
	want_clones 1 4 0
	for n in 1 2 3 4; do
		is_sound "$work/clone.$n"
		[ "$(count "$work/clone.$n")" -ge "$least" ] || fail "a clone is stale"
	done
done
touch "$work/enough"
wait_for "$changes"
[ "$status" -eq 0 ] || { cat "$work/changes"; fail "the changes failed"; }
[ "$(count "$repository")" -gt "$first" ] || fail "nothing changed"

case_is "removed, and made again under the same name: another repository"
reset
run git clone -q --bare --depth=2 "$url" "$work/depth.git"
runs_are 1
cp -a "$repository" "$work/saved.git"
rm -rf "$repository"
mv "$work/saved.git" "$repository"
rm -rf "$work/depth.git"
run git clone -q --bare --depth=2 "$url" "$work/depth.git"
want_status 0
runs_are 2

for way in fail kill; do
	case_is "pack-objects: $way: all who wait are told, and the next request tries again"
	"$sc" rm --all
	reset
	touch "$work/$way" "$work/hold"
	clones 4 "$url"
	await number_is readers 4
	touch "$work/go"
	want_clones 1 4 128
	runs_are 1
	[ "$way" = kill ] ||
		[ "$(grep -l "this is why it failed" "$work"/err.[1-4] | wc -l)" -eq 4 ] ||
		fail "not all were told why"
	[ "$(number entries_finished)" -eq 0 ] || fail "that was stored"
	reset
	clones 4 "$url"
	want_clones 1 4 0
	has_main "$work/clone.4" "$(main)"
	runs_are 1
done

case_is "the producer is killed in mid-stream: the same"
hold_four
kill -KILL "$(producer)"
want_clones 1 4 128
! grep -q -e streamcache -e "$repository" "$work/err.1" || fail "a client was told too much"
reset
clones 4 "$url"
want_clones 1 4 0
has_main "$work/clone.4" "$(main)"
runs_are 1

for signal in INT KILL; do # Ctrl-C, and worse
	case_is "SIG$signal to the first client in mid-clone leaves the other fifteen untouched"
	"$sc" rm --all
	reset
	touch "$work/hold"
	start_clone 16 "$url"
	await received 16
	clones 15 "$url"
	await number_is readers 16
	kill "-$signal" "-$clone16"
	wait_for "$clone16"
	[ "$status" -gt 0 ] || fail "the first client was not hurt"
	await number_is readers 15
	touch "$work/go"
	want_clones 1 15 0
	runs_are 1
	i=0
	while [ "$i" -lt 15 ]; do
		i=$((i + 1))
		has_main "$work/clone.$i" "$(main)"
		rm -rf "$work/clone.$i"
	done
done

case_is "when the last client has gone pack-objects ends, and nothing is stored"
"$sc" rm --all
reset
touch "$work/hold"
clones 2 "$url"
await number_is readers 2
kill -INT "-$clone1" "-$clone2"
await number_is entries_filling 0
[ "$(number entries_finished)" -eq 0 ] || fail "half a pack was stored"
rm "$work/hold"
clones 1 "$url"
want_clones 1 1 0
has_main "$work/clone.1" "$(main)"

case_is "nobody is left, and the cache is sound"
await number_is peers 1
await number_is readers 0
run "$sc" check
want_status 0
