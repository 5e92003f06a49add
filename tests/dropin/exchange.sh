#!/bin/sh
# Data directories go both ways between our library and Debian's C library, and back, after every kind of stop
# (exchange.py). EXCHANGE_STOPS names some of them. PEER_LIBRARY=DIR takes libdqlite.so.0 of another C release from there.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh
. tests/dropin/members.sh

[ -n "$C_LIBRARY_PATH" ] || skip "Debian's libdqlite0 is not installed (make deps)"
"${CARGO:-cargo}" build --quiet --bin dqlite
PROGRAM=${CARGO_TARGET_DIR:-target}/debug/dqlite
RECOVER=$WORK/recover
export PROGRAM RECOVER
cc -std=gnu99 -Wall -Wextra -Iinclude -o "$RECOVER" c-tests/recover.c "$STAGE/lib/libdqlite.so.0"

stops="clean killed-idle killed-under-writers killed-with-snapshots-under-writers lz4-snapshots-clean
    lz4-snapshots-killed raw-snapshots-clean raw-snapshots-killed truncated recovered-by-ours recovered-by-C
    recovered-by-program"
# The small disk ends with its mount namespace, whatever becomes of the test.
ENTER="unshare --mount --propagation private"
if $ENTER mount -t tmpfs -o size=1m tmpfs "$WORK" 2> /dev/null; then
    stops="$stops killed-on-a-full-disk"
else
    say "without a full disk: this user may not mount a tmpfs"
    ENTER=""
fi
# The names are separate words.
# shellcheck disable=SC2086
scenario 190 exchange "$WORK" ${EXCHANGE_STOPS:-$stops}
say "ok"
