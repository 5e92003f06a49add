#!/bin/sh
# go-dqlite's own tests and the program in go-app, built by cgo with our header and linked with our library. A test may
# fail or be skipped only if go_expected.txt says so, and why. GO_SUITES ("3") names the major versions of go-dqlite, 2 and
# 3; GO_PREFIX another library with include/ and lib/, to see what it gives; GO_RACE=1 adds the race detector.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh
. tests/dropin/go_env.sh

SUITES=${GO_SUITES:-3}
PREFIX=${GO_PREFIX:-$STAGE}
LIBRARY_PATH=$PREFIX/lib
FLAGS="-json -tags libsqlite3 -count=1 -timeout=500s -p=2"
[ -z "${GO_RACE:-}" ] || FLAGS="$FLAGS -race"
export CGO_CFLAGS="-O1 -I$PREFIX/include" CGO_LDFLAGS="-L$PREFIX/lib"

# The suites are separate words.
# shellcheck disable=SC2086
reason=$(sh tests/dropin/go_modules.sh $SUITES) || skip "$reason"
# Every test program has a network of its own, since they use the same ports.
ALONE="unshare --net --mount sh $PWD/tests/dropin/go_alone.sh"
[ "$(id -u)" -eq 0 ] || ALONE="unshare --user --map-root-user ${ALONE#unshare }"
$ALONE true 2> /dev/null || skip "network namespaces are not permitted"

say "go-app with $LIBRARY_PATH/libdqlite.so.0"
(cd tests/dropin/go-app && go vet -tags libsqlite3 . && go build -tags libsqlite3 -o "$WORK/go-app" .)
mkdir "$WORK/servers"
status=0
# What it is run with is separate words, here and below.
# shellcheck disable=SC2086
with_library 200 $ALONE "$WORK/go-app" "$WORK/servers" 9001 > "$WORK/go-app.log" 2>&1 || status=$?
if [ "$status" -ne 0 ]; then
    tail -n 5 "$WORK"/servers/*.log >&2
    fail "go-app ended with exit code $status"
fi
sed -n 's/^/go-app: /p' "$WORK/go-app.log"

for major in $SUITES; do
    results=$WORK/go-v$major.json
    say "the tests of go-dqlite, $(sed -n "s|.*/go-dqlite/v$major \(v$major[^ ]*\)$|\1|p" tests/dropin/go-app/go.mod)"
    # Exit codes say nothing here: the results are compared with what is expected. One test takes for granted that
    # the servers that the test before it has left running cannot elect a leader within seconds: ours can.
    # shellcheck disable=SC2086
    (cd "build/go/v$major" && with_library 600 go test $FLAGS -exec "$ALONE" -skip '^TestNew_ClusteredTimeout$' ./...) \
        > "$results" 2> "$WORK/go-v$major.log" || true
    # shellcheck disable=SC2086
    (cd "build/go/v$major" && with_library 100 go test $FLAGS -exec "$ALONE" -run '^TestNew_ClusteredTimeout$' \
        ./benchmark) >> "$results" 2>> "$WORK/go-v$major.log" || true
    python3 tests/dropin/go_results.py "v$major" "$results" tests/dropin/go_expected.txt || fail "see above"
done
say "ok"
