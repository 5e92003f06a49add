#!/bin/sh
# go-dqlite's own tests and the program in go-app, built by cgo with our header and linked with our library. A test may
# fail or be skipped only if go_expected.txt says so, and why. GO_SUITES ("3") names the major versions of go-dqlite, 1 to
# 3; GO_PREFIX another library with include/ and lib/, to see what it gives; GO_RACE=1 adds the race detector.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh
. tests/dropin/go_env.sh

SUITES=${GO_SUITES:-3}
PREFIX=${GO_PREFIX:-$STAGE}
LIBRARY_PATH=$PREFIX/lib
# Without vet, which finds fault with comments of version 1 that its own Go let pass.
FLAGS="-json -tags libsqlite3 -count=1 -timeout=500s -p=2 -vet=off"
[ -z "${GO_RACE:-}" ] || FLAGS="$FLAGS -race"
RAFT=$PWD/build/go/raft
export CGO_CFLAGS="-O1 -I$PREFIX/include -I$RAFT" CGO_LDFLAGS="-L$PREFIX/lib -L$RAFT"

# The suites are separate words.
# shellcheck disable=SC2086
reason=$(sh tests/dropin/go_modules.sh $SUITES) || skip "$reason"
# Every test program has a network of its own, since they use the same ports.
ALONE="unshare --net --mount sh $PWD/tests/dropin/go_alone.sh"
[ "$(id -u)" -eq 0 ] || ALONE="unshare --user --map-root-user ${ALONE#unshare }"
$ALONE true 2> /dev/null || skip "network namespaces are not permitted"

# app NAME COMMAND...: a scenario of go-app; COMMAND is its first words, before its directory and port.
app() {
    name=$1
    shift
    mkdir "$WORK/$name"
    status=0
    # What it is run with is separate words, here and below.
    # shellcheck disable=SC2086
    with_library 200 $ALONE "$WORK/go-app" "$@" "$WORK/$name" 9001 > "$WORK/go-app-$name.log" 2>&1 || status=$?
    if [ "$status" -ne 0 ]; then
        tail -n 5 "$WORK/$name"/*.log >&2
        fail "go-app $*: exit code $status"
    fi
    sed -n 's/^/go-app: /p' "$WORK/go-app-$name.log"
}

# Tests that are run by themselves. The first takes for granted that the servers that the test before it has left running
# cannot elect a leader within seconds: ours can. The others end their program, with the C library too, when a server
# dials another one that the test has just closed.
APART="benchmark/TestNew_ClusteredTimeout app/TestExternalConn app/TestExternalConnWithTCP app/TestExternalConnWithPipe"
APART_PATTERN=$(echo "$APART" | sed 's|[a-z]*/|^|g; s/ /$|/g; s/$/$/')

# suite MAJOR: the tests of a version of go-dqlite.
suite() {
    results=$WORK/go-v$1.json
    say "the tests of go-dqlite, $(cat "build/go/v$1.version")"
    # Exit codes say nothing here: the results are compared with what is expected.
    # shellcheck disable=SC2086
    (cd "build/go/v$1" && with_library 600 go test $FLAGS -exec "$ALONE" -skip "$APART_PATTERN" ./...) \
        > "$results" 2> "$WORK/go-v$1.log" || true
    for test in $APART; do
        # shellcheck disable=SC2086
        (cd "build/go/v$1" && with_library 100 go test $FLAGS -exec "$ALONE" -run "^${test#*/}$" "./${test%/*}") \
            >> "$results" 2>> "$WORK/go-v$1.log" || true
    done
    python3 tests/dropin/go_results.py "v$1" "$results" tests/dropin/go_expected.txt || fail "see above"
}

say "go-app with $LIBRARY_PATH/libdqlite.so.0"
(cd tests/dropin/go-app && go vet -tags libsqlite3 . && go build -tags libsqlite3 -o "$WORK/go-app" .)
app losses
app roles roles
for major in $SUITES; do
    suite "$major"
done
say "ok"
