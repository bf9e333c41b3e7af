#!/bin/sh
# git_clone.sh - clones and fetches by the git hook: one pack-objects for each
# distinct request, and what arrives is what plain git sends.
# shellcheck source=git_lib.sh
. "$(dirname "$0")/git_lib.sh"

repository=$work/repo.git
url=file://$repository
make_repository "$repository" 100 54000000
reset
GIT_CONFIG_SYSTEM=$work/plain git clone -q --bare "$url" "$work/plain.git"
runs_are 1
[ "$(wc -c <"$(pack_of "$work/plain.git")")" -ge 52428800 ] || fail "less than 50 MB"

case_is "sixteen clones at once share one pack-objects and are sound, byte for byte"
share_sixteen "$url"

case_is "a later clone is a hit, with or without progress"
reset
run git clone -q --bare "$url" "$work/late.git"
want_status 0
want_no_err
want_same "$(pack_of "$work/plain.git")" "$(pack_of "$work/late.git")"
rm -rf "$work/late.git"
run git clone --progress --bare "$url" "$work/late.git"
want_status 0
want_same "$(pack_of "$work/plain.git")" "$(pack_of "$work/late.git")"
runs_are 0
outcomes_are hit 2

# twice NAME OPTION... - the first of two equal clones makes a pack, the second none
twice() {
	name=$1
	shift
	reset
	for i in 1 2; do
		rm -rf "$work/$name.$i"
		run git clone -q --bare "$@" "$url" "$work/$name.$i"
		want_status 0
		want_no_err
		is_sound "$work/$name.$i"
		runs_are 1
	done
	outcomes_are created 1
	outcomes_are hit 1
}

case_is "a shallow clone is an entry of its own"
twice shallow --depth=3
[ "$(git -C "$work/shallow.2" rev-list --count HEAD)" -eq 3 ] || fail "wrong depth"
twice shallow --depth=4

case_is "a partial clone is an entry of its own"
twice partial --filter=blob:none
git -C "$work/partial.2" rev-list --objects --missing=print HEAD >"$work/objects"
[ "$(grep -c '^?' "$work/objects")" -ge 200 ] || fail "there are blobs"
twice partial --filter=blob:limit=30k
twice partial --filter=combine:blob:limit=30k+tree:3

case_is "one branch of several, another protocol: entries of their own"
git -C "$repository" branch old main~50
twice branch --single-branch --branch=old
[ "$(git -C "$work/branch.2" rev-list --count HEAD)" -eq 50 ] || fail "wrong branch"
reset
for i in 1 2; do
	rm -rf "$work/zero.git"
	run git -c protocol.version=0 clone -q --bare "$url" "$work/zero.git"
	want_status 0
	runs_are 1
done
is_sound "$work/zero.git"

case_is "a fetch with haves is an entry of its own"
reset
for i in 1 2; do
	run git -C "$work/branch.$i" fetch -q "$url" main:main
	want_status 0
	want_no_err
	is_sound "$work/branch.$i"
	runs_are 1
done
outcomes_are created 1
outcomes_are hit 1
[ "$(git -C "$work/branch.2" rev-parse main)" = "$(git -C "$repository" rev-parse main)" ] ||
	fail "the fetch did not get it all"

case_is "deepening and completing a shallow clone"
reset
for i in 1 2; do
	run git -C "$work/shallow.$i" fetch -q --unshallow
	want_status 0
	is_sound "$work/shallow.$i"
	runs_are 1
done
[ "$(git -C "$work/shallow.2" rev-list --count HEAD)" -eq 100 ] || fail "it is still shallow"

case_is "nobody is left, and the cache is sound"
await number_is peers 1
await number_is readers 0
run "$sc" check
want_status 0
