#!/bin/sh
# Clusters that mix our library and the C library: Debian's dqlite-demo, then leaders of both kinds, membership changes,
# snapshots in both directions, reads, stops in a truncation, and a rolling upgrade and back under load (mixed.py).
# MIXED_ROUNDS sets how often everything is done; without it, dqlite-demo runs in the first two mixes only.
# MIXED_SECONDS (5) sets how long the upgrades go on at least, MIXED_SCENARIOS the scenarios before them.
# PEER_LIBRARY=DIR takes libdqlite.so.0 of another C release from there instead of Debian's; then without the stops in
# a truncation, which are known by the trace of Debian's C-raft.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh
. tests/dropin/members.sh

# use NUMBER ours|C
use() {
    eval "LIBRARY_$1=$2"
    case $2 in
    ours) LIBRARY_PATH=$OUR_LIBRARY_PATH ;;
    C) LIBRARY_PATH=$C_LIBRARY_PATH ;;
    esac
}

library_of() { eval "echo \$LIBRARY_$1"; }

# combination LIBRARY LIBRARY LIBRARY: node 1 leads first, then another one, then the first comes back.
combination() {
    . tests/dropin/demo_cluster.sh
    rm -rf "$WORK/data"
    number=0
    for library in "$@"; do
        number=$((number + 1))
        use "$number" "$library"
        start_demo "$number"
    done
    eventually ".cluster" "1 voter
2 voter
3 voter" roles
    expect "PUT" "$(put 2 key first)" "done"
    shell "CREATE TABLE t (a INT, b TEXT, c REAL, d BLOB)" > /dev/null
    shell "INSERT INTO t VALUES (1, 'x', 2.5, zeroblob(10000)), (2, NULL, NULL, NULL)" > /dev/null
    for number in 1 2 3; do
        expect "GET from node $number" "$(get "$number" key)" "first"
    done
    expect_equal_content

    stop "$PID_1" TERM 0
    eventually "PUT" "done" put 2 key second
    successor=$(leader)
    LED="$LED $1 $(library_of "$successor")"
    use 1 "$1"
    start_demo 1
    eventually ".cluster" "1 voter
2 voter
3 voter" roles
    eventually "GET from node 1" "second" get 1 key
    shell "UPDATE t SET b = 'after' WHERE a = 2" > /dev/null
    expect_equal_content
    for pid in $PID_1 $PID_2 $PID_3; do
        stop "$pid" TERM 0
    done
    say "dqlite-demo on $*; led by node 1 ($1), then node $successor ($(library_of "$successor")): ok"
}

upgrade_seconds=${MIXED_SECONDS:-5}
scenarios="leaders membership roles snapshots reads"
[ -n "${PEER_LIBRARY:-}" ] || scenarios="$scenarios truncation"
for _ in $(seq "${MIXED_ROUNDS:-1}"); do
    LED=""
    combination ours C C
    combination C ours ours
    if [ -n "${MIXED_ROUNDS:-}" ]; then
        combination ours C ours
        combination C ours C
        combination ours ours C
        combination C C ours
    fi
    case $LED in *ours*) ;; *) fail "our library never led" ;; esac
    case $LED in *C*) ;; *) fail "the C library never led" ;; esac
    for name in ${MIXED_SCENARIOS:-$scenarios}; do
        scenario 200 mixed "$WORK" "$name"
    done
    scenario $((upgrade_seconds + 200)) mixed "$WORK" upgrade "$upgrade_seconds"
done
say "ok"
