#!/bin/sh
# A running cluster changes its library: in a throw-away Debian with Debian's libdqlite0 and go-dqlite, three nodes of
# dqlite-demo are upgraded to our packages and go back, node by node, under load (swap.py). Packages come from `make deb`.
# The Debian is made once, by mmdebstrap from the usual mirror, and kept in build/deb-swap. Processes, network and mounts
# are its own and end with the script.
set -eu
cd "$(dirname "$0")/../.."
NAME=deb_swap
WORK=$PWD/build/deb-swap
MIRROR=${MIRROR:-http://deb.debian.org/debian}

skip() {
    echo "$NAME: skipped: $*"
    exit 77
}

[ "$(id -u)" -eq 0 ] || skip "root rights are needed for a Debian in a directory"
command -v mmdebstrap > /dev/null || skip "mmdebstrap is missing (make deps)"
# The packages fit the Debian that they were built on.
SUITE=$(. /etc/os-release && [ "$ID" = debian ] && echo "$VERSION_CODENAME") || skip "this is not Debian"
reason=$(sh tests/dropin/namespaces.sh)
[ -z "$reason" ] || skip "$reason"
set -- build/deb/libdqlite0_*.deb build/deb/libdqlite-dev_*.deb build/deb/dqlite-tools_*.deb
[ -e "$1" ] || skip "no packages in build/deb (make deb)"

mkdir -p "$WORK"
TAR=$WORK/$SUITE.tar
if [ ! -e "$TAR" ]; then
    echo "$NAME: making a Debian $SUITE in $TAR"
    # What is behind "$1" is for the shell that the hook starts. The packages are for the way back.
    # shellcheck disable=SC2016
    setpriv --pdeathsig TERM mmdebstrap --variant=apt --include=libdqlite0,libdqlite-dev,go-dqlite \
        --customize-hook='chroot "$1" sh -c "mkdir /debian && cd /debian && apt-get download libdqlite0 libdqlite-dev"' \
        "$SUITE" "$WORK/part.tar" "$MIRROR" > "$WORK/mmdebstrap.log" 2>&1 &
    # In the background, or the shell would hear of signals only at its end.
    wait $! || { tail -n 5 "$WORK/mmdebstrap.log"; rm -f "$WORK/part.tar"; skip "no Debian could be made: is $MIRROR reachable?"; }
    mv "$WORK/part.tar" "$TAR"
fi

ROOT=$(mktemp -d "$WORK/root.XXXXXX")
finish() {
    status=$?
    trap - EXIT
    if [ "$status" -ne 0 ]; then
        for log in "$ROOT"/node*.log; do
            [ -s "$log" ] || continue
            echo "--- last lines of $log" >&2
            grep -v '^LIBRAFT ' "$log" | tail -n 15 >&2
        done
        mkdir -p "$WORK/failed"
        rm -rf "$WORK/failed/"*
        cp -a "$ROOT"/node*.log "$ROOT"/data "$WORK/failed/" 2> /dev/null || true
        echo "$NAME: logs and data directories are kept in $WORK/failed" >&2
    fi
    rm -rf --one-file-system "$ROOT"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

tar -x --numeric-owner -C "$ROOT" -f "$TAR"
mkdir "$ROOT/ours" "$ROOT/data"
cp "$@" "$ROOT/ours/"
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tests/dropin setpriv --pdeathsig KILL \
    sh tests/dropin/namespaces.sh python3 tests/packaging/swap.py "$ROOT" &
wait $!
