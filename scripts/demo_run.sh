# shellcheck shell=sh
# demo_run.sh - the demonstration itself. Sourced by demo.sh; ends the
# script with a message and status 1 if one of the claims does not hold.
readers=8
key=demo/usr.tar.gz

tidy() {
	trap - EXIT
	# shellcheck disable=SC2086 # a list of process ids
	[ -z "$pids" ] || kill $pids 2>/dev/null || :
	wait
	destroy_cache || :
	rm -rf "$work"
}

# The last process may still be leaving, so try for a while.
destroy_cache() {
	for _ in 1 2 3 4 5; do
		[ -d "$work/cache" ] || return 0
		"$tool" --cache="$work/cache" destroy >"$work/destroy.log" 2>&1 && return 0
		sleep 1
	done
	return 1
}

# The expensive command: an archive of this machine's /usr, again and again
# until it is large enough. What takes the time is the compression.
write_producer() {
	cat >"$work/produce" <<'END'
#!/bin/sh
cd "$(dirname -- "$0")" || exit 1
echo "run by process $$" >>runs
date +%s%N >began
mkfifo produced
sha256sum <produced >produced.sum &
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C / -cf - usr
	[ $? -lt 128 ] || break # nobody takes more
done 2>/dev/null | gzip -n -6 2>/dev/null | head -c 210000000 | tee produced
wait
date +%s%N >ended
END
	chmod +x "$work/produce"
}

# start_reader N - a process of its own that asks for the blob; notes when its
# first byte came, and what all of them add up to
start_reader() {
	{
		status=0
		timeout 300 "$tool" --cache="$work/cache" exec --key="$key" -- "$work/produce" \
			</dev/null 2>"$work/stderr.$1" || status=$?
		echo "$status" >"$work/status.$1"
	} | {
		dd bs=1 count=1 2>/dev/null
		date +%s%N >"$work/first.$1"
		cat
	} | sha256sum >"$work/sum.$1" &
	pids="$pids $!"
}

# seconds FILE - from the start to the moment noted in FILE
seconds() {
	awk -v t="$(cat "$work/$1")" -v t0="$t0" 'BEGIN { printf "%.2f", (t - t0) / 1e9 }'
}

# demo TOOL
demo() {
	tool=$1
	unset STREAMCACHE_DISABLE
	work=$(mktemp -d "${TMPDIR:-/tmp}/streamcache-demo.XXXXXX")
	pids=
	trap tidy EXIT
	trap 'exit 130' HUP INT TERM
	[ "$(df -Pk "$work" | awk 'NR == 2 { print $4 }')" -gt 400000 ] ||
		die "less than 400 MB free in ${TMPDIR:-/tmp}; set TMPDIR"
	write_producer

	say
	say "$readers processes ask for one blob that nobody has: a compressed archive of /usr,"
	say "cut at 210 MB. This takes about as long as one compression, say half a minute."
	say "  \$ streamcache exec --key=$key -- ./produce"
	say
	t0=$(date +%s%N)
	i=1
	while [ "$i" -le "$readers" ]; do
		start_reader "$i"
		i=$((i + 1))
	done
	wait
	pids=

	i=1
	while [ "$i" -le "$readers" ]; do
		[ "$(cat "$work/status.$i")" = 0 ] ||
			die "process $i ended with status $(cat "$work/status.$i"): $(cat "$work/stderr.$i")"
		i=$((i + 1))
	done
	[ -s "$work/runs" ] || die "the command was never run"
	runs=$(wc -l <"$work/runs")
	[ "$runs" -eq 1 ] || die "the command was run $runs times instead of once"
	[ -s "$work/ended" ] || die "the command did not come to its end"
	say "the command was run once, from $(seconds began) s to $(seconds ended) s"

	i=1
	while [ "$i" -le "$readers" ]; do
		say "  process $i: first byte after $(seconds "first.$i") s," \
			"SHA-256 $(cut -c1-32 "$work/sum.$i")..."
		[ "$(cat "$work/first.$i")" -lt "$(cat "$work/ended")" ] ||
			die "process $i had its first byte only after production had ended"
		cmp -s "$work/sum.$i" "$work/produced.sum" ||
			die "process $i read other bytes than were produced"
		i=$((i + 1))
	done
	say "all $readers read what was produced, and began while it was being produced"

	# A late caller gets the finished blob; its command would fail.
	"$tool" --cache="$work/cache" exec --key="$key" -- false >"$work/late" ||
		die "a late caller had to produce the blob again"
	bytes=$(wc -c <"$work/late")
	[ "$bytes" -ge 200000000 ] || die "the blob has $bytes bytes only"
	[ "$(sha256sum <"$work/late")" = "$(cat "$work/produced.sum")" ] ||
		die "the late caller read other bytes than were produced"
	say "a late caller got its $bytes bytes without running anything"

	say
	say "  \$ streamcache stat"
	"$tool" --cache="$work/cache" stat || die "stat failed"
	"$tool" --cache="$work/cache" stat --json | grep -Eq '"productions": ?1([^0-9]|$)' ||
		die "stat does not say that there was one production"
	destroy_cache || die "the cache could not be destroyed: $(cat "$work/destroy.log")"
	say
	say "demo: all as promised"
}
