#!/bin/sh
# readme - what the README tells its reader to type and to write does work.
# The two scripts and the installation are run by CI itself.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

top=${TOP_SRCDIR:-$(dirname "$0")/../..}
built=$(dirname "$sc")
cp "$top/README" "$work" || fail "there is no README"
cd "$work" || exit 1

case_is "the shell example"
line=$(sed -n 's/^    streamcache \(exec .*\)/\1/p' README)
[ -n "$line" ] || fail "the README has no such line any more"
# shellcheck disable=SC2086 # it is a command line
run "$sc" $line
want_status 0
gzip -dc <"$work/out" | cmp - README || fail "what it prints is not README, compressed"

case_is "the lines with a key of one's own"
if command -v lz4 >/dev/null; then
	sed -n '/^By a key/,/^On a git/s/^    //p' README >lines
	grep -q '^streamcache get' lines || fail "the README has no such lines any more"
	sed "s|streamcache |'$sc' |" lines >commands
	run sh -e commands
	want_status 0
	want_out 1000000
fi

case_is "the git line"
if command -v git >/dev/null; then
	line=$(sed -n 's/^    \(git config .*\)/\1/p' README)
	[ -n "$line" ] || fail "the README has no such line any more"
	mkdir bin home
	printf '#!/bin/sh\nexec "%s" "$@"\n' "$sc" >bin/streamcache
	chmod +x bin/streamcache
	(
		PATH=$work/bin:$PATH HOME=$work/home
		GIT_CONFIG_SYSTEM=$work/gitconfig GIT_CONFIG_GLOBAL=$work/no-such-file
		export PATH HOME GIT_CONFIG_SYSTEM GIT_CONFIG_GLOBAL
		eval "$line" && git init -q one && git -C one -c user.name=a -c user.email=a@b \
			commit -q --allow-empty -m one && git clone -q "file://$work/one" two
	) >"$work/out" 2>"$work/err" || fail "it does not work"
	"$sc" ls | grep -q "$work/one" || fail "the pack is not in the cache"
fi

case_is "the C example"
{
	cat <<'END'
#include <stdio.h>
#include <string.h>
#include <streamcache.h>
#include <unistd.h>
static int produce(int fd)
{
	return write(fd, "bypassed\n", 9) != 9;
}
static int create(void *arg, struct scache_writer *writer)
{
	ssize_t n = scache_write(writer, "produced\n", 9, SCACHE_FOREVER);
	return arg == NULL && n == 9 ? 0 : -5;
}
int main(int argc, char **argv)
{
	const char *key = "readme";
	size_t key_bytes = strlen(key);
	struct scache *cache;
	int rc;
END
	sed -n '/^In C/,/^Do not/s/^    //p' README | sed 's|"/var/cache/packs"|argv[argc - 1]|'
	cat <<'END'
	return scache_close(cache);
}
END
} >example.c
libs=$built
[ ! -d "$built/.libs" ] || libs=$built/.libs
# shellcheck disable=SC2086 # $CC may have options
${CC:-cc} ${SANITIZE:-} -D_GNU_SOURCE -Wno-unused-result -I"$top/lib" example.c -o example \
	-L"$libs" -Wl,-rpath,"$libs" -lstreamcache -pthread >"$work/err" 2>&1 ||
	fail "it cannot be compiled"
run ./example "$work/cache"
want_status 0
want_out produced
run ./example "$work/cache"
want_status 0
want_out produced
run ./example "$work/README"
want_status 0
want_out bypassed
