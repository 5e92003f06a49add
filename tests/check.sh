#!/bin/sh
# Every test, one after the other; a failed step does not stop the later ones. Ends with a summary and the line that
# continuous integration reads. Called by `make check`. Logs are in build/check.
set -u
cd "$(dirname "$0")/.."

CARGO=${CARGO:-cargo}
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

# step NAME SECONDS COMMAND...: runs the command, at most that long, with its output in a log.
step() {
    name=$1
    limit=$2
    shift 2
    echo "check: $name: $*"
    begin=$(date +%s)
    if timeout -k 10 "$limit" "$@" > "$LOGS/$name.log" 2>&1 < /dev/null; then
        PASSED=$((PASSED + 1))
        note passed $(($(date +%s) - begin)) "$name"
        # What a reader wants to see even when all is well.
        grep -E '^(test result:|[a-z0-9-]+: skipped|kill9: |faults: |mixed: |benchmark: [0-9]|cluster: [0-9])' "$LOGS/$name.log"
    else
        FAILED=$((FAILED + 1))
        note FAILED $(($(date +%s) - begin)) "$name (all of it: $LOGS/$name.log)"
        tail -n 60 "$LOGS/$name.log"
    fi
}

skip() {
    SKIPPED=$((SKIPPED + 1))
    note skipped 0 "$1: $2"
}

step format 60 "$CARGO" fmt --check
step clippy 600 "$CARGO" clippy --all-targets -- -D warnings
if command -v cargo-deny > /dev/null; then
    step deny 120 "$CARGO" deny check
else
    skip deny "cargo-deny is not installed"
fi
step test 900 "$CARGO" test
step stage 900 make --no-print-directory stage
step c-tests 700 sh c-tests/run.sh
step demo 120 sh c-tests/demo/demo.sh
if command -v dqlite-demo > /dev/null; then
    step dropin-demo 120 sh tests/dropin/demo.sh
    step dropin-benchmark 150 sh tests/dropin/benchmark.sh
    step dropin-cluster 150 sh tests/dropin/cluster.sh
else
    skip dropin-demo "Debian's go-dqlite is not installed (make deps)"
    skip dropin-benchmark "Debian's go-dqlite is not installed (make deps)"
    skip dropin-cluster "Debian's go-dqlite is not installed (make deps)"
fi
step dropin-python 100 sh tests/dropin/python.sh
if ldconfig -p | grep -q 'libdqlite\.so\.0 '; then
    step dropin-exchange 200 sh tests/dropin/exchange.sh
    step dropin-mixed 300 sh tests/dropin/mixed.sh
else
    skip dropin-exchange "Debian's libdqlite0 is not installed (make deps)"
    skip dropin-mixed "Debian's libdqlite0 is not installed (make deps)"
fi
step faults 200 sh tests/dropin/faults.sh
step kill9 300 sh tests/dropin/kill9.sh

echo
echo "Summary"
printf '%s' "$SUMMARY"
echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
[ "$FAILED" -eq 0 ]
