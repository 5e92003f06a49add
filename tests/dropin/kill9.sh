#!/bin/sh
# Durability under kill -9 (c-tests/kill9.c), twice: with the library as it is, and with a node of tiny segments that
# takes a snapshot after every few entries (small_segments.rs). KILL9_ROUNDS (25) and KILL9_SMALL (25) set how many kills
# each, 0 for none, KILL9_SEED their timing.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh

cc -std=gnu11 -Wall -Wextra -pthread -o "$WORK/kill9" c-tests/kill9.c c-tests/wire_client.c

# rounds NUMBER HOST: the seed is left out, not empty, if none is set.
rounds() {
    [ "$1" -gt 0 ] || return 0
    say "$1 rounds with $(basename "$2")"
    # shellcheck disable=SC2086
    with_library $(($1 * 20 + 60)) "$WORK/kill9" "$2" "127.0.0.1:$(free_port)" "$WORK/data-$(basename "$2")" "$1" \
        ${KILL9_SEED:-}
}

cc -std=gnu99 -Wall -Wextra -Iinclude -o "$WORK/host" c-tests/demo/host.c c-tests/wire_client.c \
    "$LIBRARY_PATH/libdqlite.so.0"
rounds "${KILL9_ROUNDS:-25}" "$WORK/host"
if [ "${KILL9_SMALL:-25}" -gt 0 ]; then
    "${CARGO:-cargo}" build --quiet --example small_segments
    rounds "${KILL9_SMALL:-25}" "${CARGO_TARGET_DIR:-target}/debug/examples/small_segments"
fi
say "ok"
