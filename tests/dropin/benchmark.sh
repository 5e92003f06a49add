#!/bin/sh
# Debian's unmodified dqlite-benchmark on our library: a mix of reads and writes without an error. One worker:
# without a busy timeout, which go-dqlite cannot set, several writers get SQLITE_BUSY by design.
# BENCHMARK_SECONDS (30) sets how long.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh

command -v dqlite-benchmark > /dev/null || skip "Debian's go-dqlite is not installed (make deps)"
SECONDS_LONG=${BENCHMARK_SECONDS:-30}
DB=127.0.0.1:$(free_port)

say "$SECONDS_LONG seconds of kvreadwrite"
start benchmark dqlite-benchmark --db "$DB" --dir "$WORK/data" --driver --cluster "$DB" --workload kvreadwrite \
    --duration "$SECONDS_LONG" --workers 1
wait_for_port "${DB#*:}" "$PID"
expect_library "$PID"
wait_for_end "$PID" $((SECONDS_LONG + 60)) 0
grep -q "Benchmark done" "$WORK/benchmark.log" || fail "the benchmark did not end"

results=$(find "$WORK/data" -path '*results*' -type f)
[ -n "$results" ] || fail "no result files"
for file in $results; do
    expect_benchmark_without_errors "$file"
done
say "ok"
