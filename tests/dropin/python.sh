#!/bin/sh
# The PyPI package dqlite-dbapi, a pure-Python client written by others, against a node of ours.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh

[ -x build/venv/bin/python ] || skip "no Python 3.13 or newer (make deps)"
ADDRESS=127.0.0.1:$(free_port)
cc -std=gnu99 -Wall -Wextra -Iinclude -o "$WORK/host" c-tests/demo/host.c c-tests/wire_client.c \
    "$LIBRARY_PATH/libdqlite.so.0"
mkfifo "$WORK/input"
start host sh -c 'exec "$1" "$2" "$3" < "$4"' - "$WORK/host" "$ADDRESS" "$WORK/data" "$WORK/input"
exec 3> "$WORK/input"
wait_for_line "$WORK/host.log" ready
expect_library "$PID"
timeout -k 5 60 build/venv/bin/python tests/dropin/python_session.py "$ADDRESS"
exec 3>&-
wait_for_end "$PID" 20 0
say "ok"
