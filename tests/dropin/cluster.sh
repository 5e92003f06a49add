#!/bin/sh
# Debian's unmodified dqlite-demo, dqlite shell and dqlite-benchmark on our library, three nodes: values on every node,
# SQL, the dot commands, loss of leaders with SIGTERM and SIGKILL, return, removal. BENCHMARK_SECONDS (10) sets how
# long the benchmark runs.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh
. tests/dropin/demo_cluster.sh

ALL_VOTERS="1 voter
2 voter
3 voter"

say "three nodes of dqlite-demo with $LIBRARY_PATH/libdqlite.so.0"
for number in 1 2 3; do
    start_demo "$number"
done
eventually ".cluster" "$ALL_VOTERS" roles
expect ".leader" "$(shell .leader)" "$DB_1"
expect "PUT" "$(put 1 my-key my-value)" "done"
for number in 1 2 3; do
    expect "GET from node $number" "$(get "$number" my-key)" "my-value"
    expect "PUT on node $number" "$(put "$number" "key-$number" "value-$number")" "done"
done
get 2 absent | grep -q "no rows in result set" || fail "GET of an absent key"
expect "SELECT" "$(shell 'SELECT * FROM model WHERE key = '"'my-key'")" "my-key|my-value"
shell "CREATE TABLE t (a INT, b TEXT)" > /dev/null
shell "INSERT INTO t VALUES (1, 'x'), (2, NULL)" > /dev/null
expect "SELECT with NULL" "$(shell 'SELECT * FROM t')" "1|x
2|<nil>"
status=0
error=$(shell "SELECT * FROM nosuch" 2>&1) || status=$?
expect "exit code of a wrong statement" "$status" 1
echo "$error" | grep -q "no such table: nosuch" || fail "error text: $error"
for number in 1 2 3; do
    address=$(db "$number")
    expect ".describe" "$(shell ".describe $address")" "$address|0|0"
    shell ".weight $address $number" > /dev/null
    expect ".describe after .weight" "$(shell ".describe $address")" "$address|0|$number"
done
expect_equal_content

# lose SIGNAL STATUS: the leader goes, the others go on, it comes back as a voter.
lose() {
    old=$(leader)
    say "losing the leader, node $old, by SIG$1"
    stop "$(pid_of "$old")" "$1" "$2"
    other=$(other_than "$old")
    eventually "PUT after SIG$1" "done" put "$other" "after-$1" "$old"
    expect "GET after SIG$1" "$(get "$other" my-key)" "my-value"
    [ "$(leader)" != "$old" ] || fail "node $old is gone and leads"
    start_demo "$old"
    eventually ".cluster" "$ALL_VOTERS" roles
    eventually "GET from node $old" "$old" get "$old" "after-$1"
    expect "PUT on node $old" "$(put "$old" "after-$1" again)" "done"
}
lose TERM 0
lose KILL 137
lose TERM 0
expect_equal_content

gone=$(other_than "$(leader)")
say "removing node $gone"
stop "$(pid_of "$gone")" TERM 0
shell ".remove $(db "$gone")" > /dev/null || fail ".remove"
expect ".cluster after .remove" "$(roles)" "$(echo "$ALL_VOTERS" | grep -v "^$gone ")"
other=$(leader)
expect "PUT after .remove" "$(put "$other" my-key other-value)" "done"
expect "GET after .remove" "$(get "$other" my-key)" "other-value"
# The transcript goes on with .reconfigure, which recovers a cluster that has lost its majority.
for number in 1 2 3; do
    [ "$number" = "$gone" ] || stop "$(pid_of "$number")" TERM 0
done

LENGTH=${BENCHMARK_SECONDS:-10}
say "$LENGTH seconds of dqlite-benchmark on three nodes"
B_1=127.0.0.1:$(free_port)
B_2=127.0.0.1:$(free_port)
B_3=127.0.0.1:$(free_port)
start benchmark-1 dqlite-benchmark --db "$B_1" --dir "$WORK/benchmark" --driver --cluster "$B_1,$B_2,$B_3" \
    --workload kvreadwrite --duration "$LENGTH" --workers 1
driver=$PID
wait_for_port "${B_1#*:}" "$driver"
start benchmark-2 dqlite-benchmark --db "$B_2" --dir "$WORK/benchmark" --join "$B_1"
second=$PID
start benchmark-3 dqlite-benchmark --db "$B_3" --dir "$WORK/benchmark" --join "$B_1"
third=$PID
wait_for_port "${B_2#*:}" "$second"
wait_for_port "${B_3#*:}" "$third"
wait_for_end "$driver" $((LENGTH + 60)) 0
stop "$second" TERM 0
stop "$third" TERM 0
results=$(find "$WORK/benchmark" -path '*results*' -type f)
[ -n "$results" ] || fail "no result files"
for file in $results; do
    expect_benchmark_without_errors "$file"
done
say "ok"
