#!/bin/sh
# Debian's unmodified dqlite-demo and dqlite shell on our library, one node: values over HTTP, SQL, the dot commands,
# restart, clean end on SIGTERM.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh

command -v dqlite-demo > /dev/null || skip "Debian's go-dqlite is not installed (make deps)"
API=127.0.0.1:$(free_port)
DB=127.0.0.1:$(free_port)

start_demo() {
    start "$1" dqlite-demo --dir "$WORK/data" --api "$API" --db "$DB" --verbose
    wait_for_port "${API#*:}" "$PID"
    expect_library "$PID"
}

shell() {
    with_library 20 dqlite -s "$DB" demo "$@"
}

say "starting Debian's dqlite-demo with $LIBRARY_PATH/libdqlite.so.0"
start_demo demo-1

expect "PUT" "$(curl -s -m 20 -X PUT -d my-value "http://$API/my-key")" "done"
expect "GET" "$(curl -s -m 20 "http://$API/my-key")" "my-value"
curl -s -m 20 "http://$API/absent" | grep -q "no rows in result set" || fail "GET of an absent key"

expect ".leader" "$(shell .leader)" "$DB"
shell .cluster | grep -q "|$DB|voter\$" || fail ".cluster: $(shell .cluster)"
expect "SELECT" "$(shell 'SELECT * FROM model')" "my-key|my-value"
shell "CREATE TABLE t (a INT, b TEXT)" > /dev/null
shell "INSERT INTO t VALUES (1, 'x'), (2, NULL)" > /dev/null
expect "SELECT with NULL" "$(shell 'SELECT * FROM t')" "1|x
2|<nil>"
status=0
error=$(shell "SELECT * FROM nosuch" 2>&1) || status=$?
expect "exit code of a wrong statement" "$status" 1
echo "$error" | grep -q "no such table: nosuch" || fail "error text: $error"
shell ".weight $DB 5" > /dev/null
expect ".describe" "$(shell ".describe $DB")" "$DB|0|5"

say "dumping the database and opening the dump with plain SQLite"
( cd "$WORK" && shell ".dump $DB demo" > dump.log )
expect "rows of the dump" "$(python3 -c '
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT count(*), max(key) FROM model").fetchone())' "$WORK/demo")" \
    "(1, 'my-key')"

say "stopping with SIGTERM and starting again on the same directory"
stop "$PID" TERM 0
start_demo demo-2
expect "GET after restart" "$(curl -s -m 20 "http://$API/my-key")" "my-value"
expect "SELECT after restart" "$(shell 'SELECT count(*) FROM t')" "2"
stop "$PID" TERM 0
say "ok"
