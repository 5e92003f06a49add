#!/bin/sh
# Every test, one after the other; a failed step does not stop the later ones. Ends with a summary and the line that
# continuous integration reads. Called by `make check`. Logs are in build/check.
set -u
cd "$(dirname "$0")/.."

export CARGO=${CARGO:-cargo}
LOGS=build/check
PASSED=0
FAILED=0
SKIPPED=0
SUMMARY=""
rm -rf "$LOGS"
mkdir -p "$LOGS"

note() {
    line=$(printf '%-8s %4ss  %s' "$1" "$2" "$3")
    SUMMARY="$SUMMARY$line
"
    echo "check: $line"
}

# step NAME SECONDS COMMAND...: runs the command, at most that long, with its output in a log. Exit code 77 means that it
# cannot run here; the line "skipped: " in its log says why.
step() {
    name=$1
    limit=$2
    shift 2
    echo "check: $name: $*"
    begin=$(date +%s)
    status=0
    timeout -k 10 "$limit" "$@" > "$LOGS/$name.log" 2>&1 < /dev/null || status=$?
    took=$(($(date +%s) - begin))
    case $status in
    0)
        PASSED=$((PASSED + 1))
        note passed "$took" "$name"
        # What a reader wants to see even when all is well.
        grep -E '^(test result:|torture: seed |crash simulation: |sim: |kill9: |exchange: |full_disk: |disk_faults: |benchmark: [0-9]|cluster: [0-9]|faults: [0-9]|mixed: upgrade|go: v|python_cluster: [0-9]|deb_swap: to our)' "$LOGS/$name.log"
        ;;
    77)
        SKIPPED=$((SKIPPED + 1))
        note skipped "$took" "$name: $(sed -n 's/.*skipped: //p' "$LOGS/$name.log")"
        ;;
    *)
        FAILED=$((FAILED + 1))
        note FAILED "$took" "$name (all of it: $LOGS/$name.log)"
        tail -n 60 "$LOGS/$name.log"
        ;;
    esac
}

step format 60 "$CARGO" fmt --check
step clippy 600 "$CARGO" clippy --all-targets -- -D warnings
step deny 120 sh tests/deny.sh
step test 900 "$CARGO" test --no-fail-fast
# Optimised, with the planted defects in the same build: 2000 seeds, a minute each, all of them twice.
step sim 1200 env SIM_RUNS=2000 SIM_SECONDS=60 "$CARGO" test --config tests/sim/optimised.toml \
    --features planted-bugs --test sim -- --nocapture --skip databases::
# With real databases under each core, in the same build.
step sim-databases 1200 env SIM_DB_RUNS=30 "$CARGO" test --config tests/sim/optimised.toml \
    --features planted-bugs --test sim -- --nocapture databases::
step stage 900 make --no-print-directory stage
step c-tests 800 sh c-tests/run.sh
# Always the same random numbers; `make torture` draws others.
step torture 200 env TORTURE_TOOL=none TORTURE_SECONDS=20 TORTURE_SEED=1 sh c-tests/torture.sh
step torture-valgrind 400 env TORTURE_TOOL=valgrind TORTURE_SECONDS=40 TORTURE_SEED=1 sh c-tests/torture.sh
step demo 120 sh c-tests/demo/demo.sh
step dropin-demo 120 sh tests/dropin/demo.sh
step dropin-benchmark 150 sh tests/dropin/benchmark.sh
# A second each, for the answers only: what is measured here means nothing.
step bench 200 env BENCH_LIBRARIES=ours BENCH_WORKLOADS="insert transaction upsert scan kine" BENCH_CLIENTS=4 BENCH_NODES=3 \
    BENCH_ROUNDS=1 BENCH_SECONDS=1 BENCH_WARM_UP_MS=200 BENCH_LIMITS=0 BENCH_RESULTS=build/bench/check.json \
    sh benches/load/bench.sh
step dropin-python 100 sh tests/dropin/python.sh
step dropin-python-cluster 200 sh tests/dropin/python_cluster.sh
step dropin-go 500 sh tests/dropin/go.sh
step dropin-go-reconfigure 120 sh tests/dropin/go_reconfigure.sh
step dropin-exchange 200 sh tests/dropin/exchange.sh
step dropin-recover 300 sh tests/dropin/recover.sh
step dropin-cluster 200 sh tests/dropin/cluster.sh
step dropin-faults 600 sh tests/dropin/faults.sh
step dropin-full-disk 200 sh tests/dropin/full_disk.sh
step dropin-disk-faults 100 sh tests/dropin/disk_faults.sh
step dropin-mixed 400 sh tests/dropin/mixed.sh
step kill9 400 sh tests/dropin/kill9.sh
step abidiff 60 sh tests/packaging/abidiff.sh
step deb 900 env DPKG_DEB_COMPRESSOR_LEVEL=1 sh debian/build.sh
step deb-contents 200 sh tests/packaging/contents.sh
step deb-swap 600 sh tests/packaging/swap.sh

echo
echo "Summary"
printf '%s' "$SUMMARY"
echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
[ "$FAILED" -eq 0 ]
