#!/bin/sh
# check.sh - build the tree and run its tests. See --help.
set -eu
# shellcheck source=scripts/common.sh
. "$(dirname -- "$0")/common.sh"

usage() {
	cat <<'END'
usage: scripts/check.sh [--all] [--no-skip] [VARIANT...]

Install what is missing (apt), build, run the tests, and end with a line
"N passed, N failed, N skipped". Without arguments: the variant gcc.

  gcc        gcc, a warning is an error, all tests
  clang      the same with clang
  asan       gcc, AddressSanitizer and UndefinedBehaviorSanitizer, all tests
  tsan       clang, ThreadSanitizer, the tests that run as threads
  distcheck  release tarball: unpack, build, install, remove; lints, unit and tool tests
  bench      do the benches run? In the build of gcc; no figure counts

  --all      all of them, as CI does; with CI=true in the environment a skipped
             test is a failed one
  --no-skip  a skipped test is a failed one
  --help     this text

Builds are kept (in build/, or below $TMPDIR if the tree's path is not fit for
a makefile): the second run builds what has changed.
END
}

variants=
packages=
no_skip=no
for arg; do
	case $arg in
	--all)
		variants="gcc bench clang asan tsan distcheck"
		packages=--all
		if [ "${CI:-}" = true ]; then
			no_skip=yes
		fi
		;;
	--no-skip) no_skip=yes ;;
	--help)
		usage
		exit 0
		;;
	gcc) variants="$variants $arg" ;;
	bench | clang | asan | tsan | distcheck)
		variants="$variants $arg"
		packages=--all
		;;
	*)
		usage >&2
		exit 2
		;;
	esac
done
: "${variants:=gcc}"

passed=0
failed=0
skipped=0
began=$(date +%s)

# counted WHAT... - how many tests the log of this run counts as one of these
counted() {
	for what; do
		sed -n "s/^# $what: *//p" "$log"
	done | awk '{ n += $1 } END { print n + 0 }'
}

# show_failure - why this run failed: the tests' logs, or how the log ends
show_failure() {
	logs=$(find "$dir" -name test-suite.log -newer "$dir/started")
	if [ "$(counted FAIL ERROR XPASS)" = 0 ] || [ -z "$logs" ]; then
		tail -n 60 "$log"
	else
		# shellcheck disable=SC2086 # $dir has no blanks: see find_place()
		cat $logs
	fi
}

# run VARIANT TARGET CONFIGURE-ARG... - one build and its tests
run() {
	variant=$1
	target=$2
	shift 2
	say "== $variant: log in $builds/$variant.log"
	if ! configure_build "$variant" "$@"; then
		failed=$((failed + 1))
		return
	fi
	: >"$dir/started"
	rm -f "$dir/succeeded"
	{
		# shellcheck disable=SC2086 # a prefix of several words or none
		if $fixed_addresses make -C "$dir" -j"$jobs" all &&
			$fixed_addresses make -C "$dir" -j"$jobs" "$target"; then
			: >"$dir/succeeded"
		fi
	} 2>&1 </dev/null | tee "$log" |
		grep --line-buffered -E '^(PASS|FAIL|SKIP|XFAIL|XPASS|ERROR|WHY): ' || :

	here=$(counted FAIL ERROR XPASS)
	passed=$((passed + $(counted PASS XFAIL)))
	skipped=$((skipped + $(counted SKIP)))
	if [ ! -f "$dir/succeeded" ]; then
		show_failure
		say "== $variant: FAILED"
		# A build that breaks counts as one.
		[ "$here" -gt 0 ] || here=1
	fi
	failed=$((failed + here))
}

"$root/scripts/setup.sh" $packages
find_place
bootstrap

ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1
UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:allow_addr2line=1
export ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS

for variant in $variants; do
	# The sanitizers' fixed places in memory clash with kernels that scatter
	# mappings more widely than they know of.
	fixed_addresses=
	case $variant in
	asan | tsan)
		if setarch "$(uname -m)" -R true 2>/dev/null; then
			fixed_addresses="setarch $(uname -m) -R"
		fi
		;;
	esac
	case $variant in
	gcc) run gcc check CC=gcc --enable-werror ;;
	bench) run gcc bench-smoke CC=gcc --enable-werror ;;
	clang) run clang check CC=clang --enable-werror ;;
	asan) run asan check CC=gcc CFLAGS='-O1 -g' --enable-asan --enable-ubsan ;;
	tsan) run tsan check-thread CC=clang CFLAGS='-O1 -g' --enable-tsan ;;
	distcheck) run distcheck check-tarball CC=gcc ;;
	esac
done

verdict=0
[ "$failed" = 0 ] || verdict=1
if [ "$no_skip" = yes ] && [ "$skipped" != 0 ]; then
	say "skipped tests count as failed here"
	verdict=1
fi
say "took $(($(date +%s) - began)) s"
say "$passed passed, $failed failed, $skipped skipped"
exit "$verdict"
