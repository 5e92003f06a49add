#!/bin/sh
# The same load on this library and on Debian's C library, in turns, with one host program (c-tests/member.c) and one
# load generator (load.c). Prints what compares, and which targets are kept; all numbers go to a file.
#
#     BENCH_WORKLOADS  insert transaction batch upsert read scan mix large kine beside: which of them (load.h, workloads.c)
#     BENCH_CLIENTS    1 4 16 64; beside has 1 and 17: a writer, and sixteen long SELECTs beside it
#     BENCH_NODES      1 3
#     BENCH_ROUNDS     3, of which the medians are taken
#     BENCH_SECONDS    5, the measured time of a cell; BENCH_WARM_UP_MS (1000) before it
#     BENCH_DIR        where the data directories are made, for example /dev/shm for a tmpfs; build without it
#     BENCH_LIBRARIES  ours C
#     BENCH_RESULTS    build/bench/results.json
#     BENCH_LIMITS     1: also what the disk and plain SQLite can do; 0: only the libraries
#
# All of it takes an hour. It is made to measure: it fails only when an answer is wrong or a write is lost.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh
. tests/dropin/members.sh

case " ${BENCH_LIBRARIES:-ours C} " in
*" C "*) [ -e "$C_LIBRARY_PATH/libdqlite.so.0" ] || skip "Debian's libdqlite0 is not installed (make deps)" ;;
esac
LOAD=$WORK/load
LIMITS=$WORK/limits
EXECUTE=${CARGO_TARGET_DIR:-target}/release/examples/execute
export LOAD LIMITS EXECUTE
cc -std=gnu11 -O2 -Wall -Wextra -pthread -o "$LOAD" benches/load/load.c benches/load/workloads.c c-tests/wire_client.c
cc -std=gnu11 -O2 -Wall -Wextra -o "$LIMITS" benches/load/limits.c -lsqlite3
[ "${BENCH_LIMITS:-1}" = 0 ] || ${CARGO:-cargo} build --release --quiet --example execute

# What a cell leaves behind is removed even when the data is elsewhere.
DATA=$WORK
if [ -n "${BENCH_DIR:-}" ]; then
    DATA=$(mktemp -d "$BENCH_DIR/bench.XXXXXX")
    trap 'rm -rf "$DATA"; exit 130' INT TERM
fi
RESULTS=${BENCH_RESULTS:-build/bench/results.json}
mkdir -p "$(dirname "$RESULTS")"
export PYTHONPATH="$PWD/tests/dropin"
status=0
(trap - EXIT; scenario 43200 ../../benches/load/bench "$DATA" "$RESULTS") || status=$?
[ "$DATA" = "$WORK" ] || rm -rf "$DATA"
exit "$status"
