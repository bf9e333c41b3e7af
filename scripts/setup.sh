#!/bin/sh
# setup.sh [--build|--all] - install what is missing, by apt: what the build and
# its tests need, only the build, or also what check.sh --all needs.
set -eu
# shellcheck source=scripts/common.sh
. "$(dirname -- "$0")/common.sh"

packages="autoconf automake libtool make gcc libc6-dev pkg-config
	liburcu-dev liblz4-dev libxxhash-dev libsodium-dev libjson-c-dev"
# A web server without the service that would start at once.
tests="check git apache2-bin lz4"
case ${1:-} in
--build) ;;
'') packages="$packages $tests" ;;
--all) packages="$packages $tests clang libclang-rt-dev shellcheck xz-utils
	liblmdb-dev jq gnuplot-nox" ;;
*) die "usage: setup.sh [--build|--all]" ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
	say "not a Debian: these packages, or what they are called here, have to be installed:"
	# shellcheck disable=SC2086 # a list of words
	say $packages
	exit 0
fi

missing=
for package in $packages; do
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
		missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
	as_root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
	as_root="sudo -n"
else
	die "these packages are missing, and neither root nor a sudo without password is here:$missing
Install them with: apt-get install$missing"
fi

say "== installing$missing"
# shellcheck disable=SC2086 # lists of words
{
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q \
		-o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 update &&
		$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
			-o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 \
			install --no-install-recommends $missing
} </dev/null || die "could not install$missing"
