#!/bin/sh
# Clusters of three that lost a server for good and were killed: what is left is recovered to a single server, by the
# program `dqlite recover` and by dqlite_node_recover_ext of either library, and started with either library, which has
# every row and takes new ones that the other library reads.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh
. tests/dropin/demo_cluster.sh

C_LIBRARY_PATH=$(debian_library_path)
[ -n "$C_LIBRARY_PATH" ] || skip "Debian's libdqlite0 is not installed (make deps)"
OUR_LIBRARY_PATH=$LIBRARY_PATH
ROWS=20
ADDRESS=127.0.0.1:$(free_port)
"${CARGO:-cargo}" build --quiet --bin dqlite
PROGRAM=${CARGO_TARGET_DIR:-target}/debug/dqlite
for source in c-tests/demo/host.c c-tests/recover.c; do
    cc -std=gnu99 -Wall -Wextra -Iinclude -o "$WORK/$(basename "$source" .c)" "$source" c-tests/wire_client.c \
        "$OUR_LIBRARY_PATH/libdqlite.so.0"
done

use() {
    case $1 in
    C) LIBRARY_PATH=$C_LIBRARY_PATH ;;
    Rust) LIBRARY_PATH=$OUR_LIBRARY_PATH ;;
    esac
}

# Runs SQL lines from standard input in a node on a directory. Prints what the host prints, without its "ready".
run_sql() {
    use "$1"
    with_library 60 "$WORK/host" "$ADDRESS" "$2" > "$WORK/host.log" 2>&1 || fail "the host with the $1 library"
    grep -v '^ready$' "$WORK/host.log"
}

# Leaves the directories of nodes 2 and 3 of a cluster, killed at the same time, in $WORK/left-LIBRARY.
make_cluster() {
    use "$1"
    rm -rf "$WORK/data"
    for number in 1 2 3; do
        start_demo "$number"
    done
    eventually ".cluster" "1 voter
2 voter
3 voter" roles
    for key in $(seq "$ROWS"); do
        expect "PUT" "$(put 2 "key-$key" "value-$key")" "done"
    done
    for number in 1 2 3; do
        kill -KILL "$(pid_of "$number")"
    done
    for number in 1 2 3; do
        wait_for_end "$(pid_of "$number")" 20 137
    done
    mkdir "$WORK/left-$1"
    cp -r "$WORK/data/$DB_2" "$WORK/left-$1/2"
    cp -r "$WORK/data/$DB_3" "$WORK/left-$1/3"
}

for writer in C Rust; do
    say "a cluster of three with the $writer library, killed; node 1 is lost"
    make_cluster "$writer"
    for tool in program C Rust; do
        for starter in C Rust; do
            say "written by $writer, recovered by $tool, started by $starter"
            rm -rf "$WORK/try"
            cp -r "$WORK/left-$writer" "$WORK/try"
            set -- recover --from "$WORK/try/2" --from "$WORK/try/3" --server "1@$ADDRESS" --json
            "$PROGRAM" "$@" > "$WORK/plan.log" 2>&1 && fail "dqlite recover did it without consent"
            kept=$(sed -n 's/.*"keep":"\([^"]*\)".*/\1/p' "$WORK/plan.log")
            [ -d "$kept" ] || fail "dqlite recover names no directory: $(cat "$WORK/plan.log")"
            if [ "$tool" = program ]; then
                "$PROGRAM" "$@" --yes > "$WORK/recover.log" 2>&1 || fail "dqlite recover"
            else
                use "$tool"
                with_library 20 "$WORK/recover" "$kept" "$ADDRESS" 2> "$WORK/recover.log" || fail "recover with $tool"
            fi
            "$PROGRAM" check "$kept" > "$WORK/check.log" 2>&1 || fail "dqlite check finds damage"
            expect "the rows" "$(echo "SELECT count(*), sum(value = replace(key, 'key', 'value')) FROM model
INSERT INTO model (key, value) VALUES ('after', 'recovery')" | run_sql "$starter" "$kept")" "$ROWS|$ROWS
ok"
            other=C
            [ "$starter" = Rust ] || other=Rust
            expect "the rows with $other" "$(echo "SELECT count(*) FROM model
PRAGMA integrity_check" | run_sql "$other" "$kept")" "$((ROWS + 1))
ok"
        done
    done
done
say "ok"
