#!/bin/sh
# git_serve.sh - the git hook behind git daemon, and behind git http-backend
# and a web server. Apache refuses to serve as root, so for root all of this
# is done by a user of its own, as on a server.
place=
if [ "$(id -u)" = 0 ]; then
	command -v setpriv >/dev/null || { echo "setpriv is not installed"; exit 77; }
	built=${STREAMCACHE:-${TOP_BUILDDIR:-$(dirname "$0")/../../build}/streamcache}
	[ ! -d "$(dirname "$built")/.libs" ] || built=$(dirname "$built")/.libs/streamcache
	place=$(mktemp -d /tmp/streamcache-serve.XXXXXX) || exit 1
	trap 'rm -rf "$place"' EXIT
	cp "$built" "$(dirname "$0")"/*lib.sh "$0" "$place" || exit 1
	cp "$(dirname "$built")"/libstreamcache.so.0 "$place" 2>/dev/null
	chmod -R a+rX "$place"
	chown 54010:54010 "$place"
	# in the background, so that a signal ends the wait and the trap tidies up
	(cd / && exec setpriv --reuid=54010 --regid=54010 --clear-groups \
		env --default-signal=INT,QUIT TMPDIR="$place" LD_LIBRARY_PATH="$place" \
		STREAMCACHE="$place/streamcache" sh "$place/$(basename "$0")") &
	pid=$!
	trap 'kill "$pid"; wait "$pid"; exit 1' HUP INT TERM
	wait "$pid"
	exit
fi
# shellcheck source=git_lib.sh
. "$(dirname "$0")/git_lib.sh"

apache=$(PATH=$PATH:/usr/sbin command -v apache2) || {
	echo "apache2 is not installed (package apache2-bin)"
	exit 77
}

repository=$work/repo.git
make_repository "$repository" 100 54000000
GIT_CONFIG_SYSTEM=$work/plain git clone -q --bare "file://$repository" "$work/plain.git"

# Each server is a process group: Apache ends all of its own.
server=
stop_server() {
	[ -z "$server" ] || kill -TERM "-$server" 2>/dev/null
	wait "$server" 2>/dev/null
	server=
}
trap 'stop_server; tidy' EXIT

# free_port - most likely; whoever listens there makes the server end at once
free_port() {
	port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 40000))
}

# serve FUNCTION - which starts a server at $port and leaves its $server
serve() {
	attempts=0
	until [ "$attempts" -ge 20 ]; do
		attempts=$((attempts + 1))
		free_port
		"$1"
		while kill -0 "$server" 2>/dev/null && ! is_gone "$server"; do
			git ls-remote "$url" >"$work/out" 2>&1 && return
			sleep 0.05
		done
	done
	[ ! -s "$work/server.log" ] || tail "$work/server.log"
	fail "the server does not start"
}

git_daemon() {
	url=git://127.0.0.1:$port/repo.git
	setsid "$GIT_EXEC_PATH/git-daemon" --listen=127.0.0.1 --port="$port" --base-path="$work" \
		--export-all --max-connections=64 >"$work/server.log" 2>&1 &
	server=$!
}

web_server() {
	url=http://127.0.0.1:$port/git/repo.git
	modules=/usr/lib/apache2/modules
	mkdir -p "$work/www"
	cat >"$work/www/conf" <<END
ServerRoot $work/www
DefaultRuntimeDir $work/www
PidFile $work/www/pid
ErrorLog $work/server.log
ServerName localhost
Listen 127.0.0.1:$port
LoadModule mpm_prefork_module $modules/mod_mpm_prefork.so
LoadModule authz_core_module $modules/mod_authz_core.so
LoadModule alias_module $modules/mod_alias.so
LoadModule env_module $modules/mod_env.so
LoadModule setenvif_module $modules/mod_setenvif.so
LoadModule cgi_module $modules/mod_cgi.so
DocumentRoot $work/www
StartServers 16
MaxRequestWorkers 64
PassEnv HOME PATH LD_LIBRARY_PATH GIT_CONFIG_SYSTEM GIT_CONFIG_GLOBAL GIT_EXEC_PATH work
SetEnvIf X-User (.+) REMOTE_USER=\$1
SetEnv GIT_PROJECT_ROOT $work
SetEnv GIT_HTTP_EXPORT_ALL
ScriptAlias /git/ $git_programs/git-http-backend/
<Directory $git_programs>
	Require all granted
</Directory>
END
	setsid "$apache" -DFOREGROUND -f "$work/www/conf" >>"$work/server.log" 2>&1 &
	server=$!
}

# check_failure - what a client of $url is told
check_failure() {
	reset
	touch "$work/fail"
	clones 1 "$url" --depth=7
	want_clones 1 1 128
	grep -q "this is why it failed" "$work/err.1" || fail "the message did not arrive"
	sed "s|$work/clone||" "$work/err.1" >"$work/err"
	! grep -q -e "$work" -e streamcache "$work/err" || fail "a client was told too much"
	rm "$work/fail"
	clones 1 "$url" --depth=7
	want_clones 1 1 0
	runs_are 2
	is_sound "$work/clone.1"
}

case_is "git daemon: sixteen clones, one pack-objects, byte for byte"
serve git_daemon
share_sixteen "$url"

case_is "git daemon: shallow, partial: entries of their own"
for option in --depth=2 --filter=blob:none; do
	reset
	clones 4 "$url" "$option"
	want_clones 1 4 0
	runs_are 1
	is_sound "$work/clone.4"
done

case_is "git daemon: a failure is told, and the next request tries again"
check_failure
stop_server

case_is "web server: sixteen clones, one pack-objects, byte for byte"
serve web_server
share_sixteen "$url"

case_is "web server: clients of other names share"
reset
for user in ann bob; do # of which git http-backend makes a committer's name
	rm -rf "$work/other.git"
	run git -c http.extraHeader="X-User: $user" clone -q --bare --depth=9 "$url" \
		"$work/other.git"
	want_status 0
	runs_are 1
done

case_is "web server: shallow, partial, haves: entries of their own"
git -C "$repository" branch old main~50
for option in --depth=2 --filter=blob:none --branch=old; do
	reset
	clones 4 "$url" --single-branch "$option"
	want_clones 1 4 0
	runs_are 1
	is_sound "$work/clone.4"
done
reset
for i in 1 2; do
	run git -C "$work/clone.$i" fetch -q "$url" main:main
	want_status 0
	runs_are 1
	is_sound "$work/clone.$i"
done

case_is "web server: a failure is told, and the next request tries again"
check_failure

case_is "nobody is left, and the cache is sound"
stop_server
await number_is peers 1
await number_is readers 0
run "$sc" check
want_status 0
