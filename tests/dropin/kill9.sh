#!/bin/sh
# Durability under kill -9 (c-tests/kill9.c). KILL9_ROUNDS (25) sets how many kills, KILL9_SEED their timing.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh

cc -std=gnu11 -Wall -Wextra -pthread -o "$WORK/kill9" c-tests/kill9.c c-tests/wire_client.c
cc -std=gnu99 -Wall -Wextra -Iinclude -o "$WORK/host" c-tests/demo/host.c c-tests/wire_client.c \
    "$LIBRARY_PATH/libdqlite.so.0"
rounds=${KILL9_ROUNDS:-25}
# The seed is left out, not empty, if none is set.
# shellcheck disable=SC2086
with_library $((rounds * 20 + 60)) "$WORK/kill9" "$WORK/host" "127.0.0.1:$(free_port)" "$WORK/data" "$rounds" \
    ${KILL9_SEED:-}
say "ok"
