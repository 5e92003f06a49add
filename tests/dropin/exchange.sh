#!/bin/sh
# Data directories go both ways between our library and Debian's C library, after a clean stop and after kill -9.
# One host program, compiled once, runs with either library.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh

C_LIBRARY_PATH=$(debian_library_path)
[ -n "$C_LIBRARY_PATH" ] || skip "Debian's libdqlite0 is not installed (make deps)"
OUR_LIBRARY_PATH=$LIBRARY_PATH
ADDRESS=127.0.0.1:$(free_port)
cc -std=gnu99 -Wall -Wextra -Iinclude -o "$WORK/host" c-tests/demo/host.c c-tests/wire_client.c \
    "$LIBRARY_PATH/libdqlite.so.0"
mkfifo "$WORK/input"

use() {
    case $1 in
    C) LIBRARY_PATH=$C_LIBRARY_PATH ;;
    Rust) LIBRARY_PATH=$OUR_LIBRARY_PATH ;;
    esac
}

# Runs SQL lines from standard input on a directory, and ends cleanly. Prints what the host prints.
run_sql() {
    use "$1"
    with_library 60 "$WORK/host" "$ADDRESS" "$2" || fail "the host with the $1 library"
}

# The same, but kills the host with SIGKILL when it has executed everything.
run_sql_and_kill() {
    use "$1"
    rm -f "$WORK/host.log"
    start host sh -c 'exec "$1" "$2" "$3" < "$4"' - "$WORK/host" "$ADDRESS" "$2" "$WORK/input"
    exec 3> "$WORK/input"
    cat >&3
    echo "SELECT 'all executed'" >&3
    wait_for_line "$WORK/host.log" "all executed"
    expect_library "$PID"
    stop "$PID" KILL 137
    exec 3>&-
    if grep "^error" "$WORK/host.log"; then
        fail "a statement was refused"
    fi
}

statements() {
    echo "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, author TEXT, number REAL, data BLOB)"
    for round in 1 2 3; do
        echo "INSERT INTO t (author, number, data) VALUES ('$1', $round.5, zeroblob(5000)), ('$1', NULL, x'00ff')"
        echo "UPDATE t SET number = number + 1 WHERE author = '$1'"
        echo "DELETE FROM t WHERE id = (SELECT min(id) FROM t WHERE author = '$1' AND number IS NULL)"
    done
    echo "CREATE INDEX IF NOT EXISTS t_author ON t (author, number)"
}

CHECK="PRAGMA integrity_check
SELECT id, author, number, length(data), hex(substr(data, 1, 2)) FROM t ORDER BY id
SELECT count(*), sum(length(data)) FROM t"

# What plain SQLite makes of the same statements.
expected_after() {
    { for author in "$@"; do statements "$author"; done; echo "$CHECK"; } | python3 -c '
import sqlite3, sys
database = sqlite3.connect(":memory:", isolation_level=None)
for line in sys.stdin:
    for row in database.execute(line):
        print("|".join("NULL" if value is None else str(value) for value in row))'
}

rows_seen_by() {
    echo "$CHECK" | run_sql "$1" "$2" | grep -v '^ready$'
}

for order in "C Rust" "Rust C"; do
    first=${order% *}
    second=${order#* }

    say "written by $first, clean stop, opened and extended by $second, read again by $first"
    data="$WORK/clean-$first"
    statements one | run_sql "$first" "$data" > "$WORK/run.log"
    expect "$second's view" "$(rows_seen_by "$second" "$data")" "$(expected_after one)"
    statements two | run_sql "$second" "$data" > "$WORK/run.log"
    expect "$first's view" "$(rows_seen_by "$first" "$data")" "$(expected_after one two)"

    say "the same with kill -9 instead of a stop"
    data="$WORK/killed-$first"
    statements one | run_sql_and_kill "$first" "$data"
    expect "$second's view" "$(rows_seen_by "$second" "$data")" "$(expected_after one)"
    statements two | run_sql_and_kill "$second" "$data"
    expect "$first's view" "$(rows_seen_by "$first" "$data")" "$(expected_after one two)"
done
say "ok"
