#!/bin/sh
# Debian's unmodified dqlite shell recovers a cluster of Debian's dqlite-demo on our library: three nodes, all stopped;
# `.reconfigure` on the directory of one makes it the only voter with one of the others as its stand-by, whose directory
# stays as it is.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh
. tests/dropin/demo_cluster.sh

command -v dqlite-demo > /dev/null || skip "Debian's go-dqlite is not installed (make deps)"

# One server of a list of them, as go-dqlite writes it.
server() {
    printf -- '- Address: %s\n  ID: %s\n  Role: %s\n' "$(db "$1")" \
        "$(sed -n 's/^ID: //p' "$WORK/data/$(db "$1")/info.yaml")" "$2"
}

reconfigure() {
    { server 1 0; server 2 1; } > "$WORK/cluster.yaml"
    expect ".reconfigure" "$(shell ".reconfigure $WORK/data/$DB_1 $WORK/cluster.yaml")" "OK"
    start_demo 1
    start_demo 2
    eventually ".cluster" "1 voter
2 stand-by" roles
    expect ".leader" "$(shell .leader)" "$DB_1"
}

say "three nodes of dqlite-demo with $LIBRARY_PATH/libdqlite.so.0, stopped one by one"
for number in 1 2 3; do
    start_demo "$number"
done
eventually ".cluster" "1 voter
2 voter
3 voter" roles
expect "PUT" "$(put 1 before first)" "done"
for number in 3 2 1; do
    stop "$(pid_of "$number")" TERM 0
done

say "reconfiguring node 1 to lead node 2"
reconfigure
expect "GET of what was there" "$(get 1 before)" "first"
expect "PUT" "$(put 2 after second)" "done"
expect "GET" "$(get 1 after)" "second"
eventually "the content of node 2" "$(content_of 1)" content_of 2
for number in 2 1; do
    stop "$(pid_of "$number")" TERM 0
done
say "ok"
