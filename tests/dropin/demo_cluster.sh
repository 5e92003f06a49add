# Read by cluster.sh and mixed.sh after setup.sh: three nodes of Debian's dqlite-demo, called 1, 2 and 3.

for number in 1 2 3; do
    eval "API_$number=127.0.0.1:$(free_port) DB_$number=127.0.0.1:$(free_port)"
done

# api 2 and db 2 print the addresses of node 2; pid_of 2 its process.
api() { eval "echo \$API_$1"; }
db() { eval "echo \$DB_$1"; }
pid_of() { eval "echo \$PID_$1"; }
servers() { echo "$DB_1,$DB_2,$DB_3"; }

# Starts node NUMBER with the library in LIBRARY_PATH. Only node 1 starts a cluster.
start_demo() {
    number=$1
    set -- dqlite-demo --dir "$WORK/data" --api "$(api "$number")" --db "$(db "$number")" --verbose
    # With --join, node 1 would wait for the others at its first start.
    [ "$number" -eq 1 ] || set -- "$@" --join "$DB_1"
    start "demo-$number" "$@"
    eval "PID_$number=$PID"
    port=$(api "$number")
    wait_for_port "${port#*:}" "$PID"
    expect_library "$PID"
}

shell() {
    with_library 20 dqlite -s "$(servers)" demo "$@"
}

# Tries for at most 40 seconds until a command, which must end by itself, prints exactly the text.
eventually() {
    what=$1
    wanted=$2
    shift 2
    deadline=$(($(date +%s) + 40))
    while [ "$(date +%s)" -lt "$deadline" ]; do
        given=$("$@" 2>&1) || true
        [ "$given" != "$wanted" ] || return 0
        sleep 0.2
    done
    fail "$what gives \"$given\" after 40 seconds, expected \"$wanted\""
}

get() {
    curl -s -m 20 "http://$(api "$1")/$2"
}

# put NUMBER KEY VALUE
put() {
    curl -s -m 20 -X PUT -d "$3" "http://$(api "$1")/$2"
}

# The number of the node that leads; empty while there is none.
leader() {
    address=$(shell .leader 2> /dev/null) || true
    for number in 1 2 3; do
        [ "$(db "$number")" != "$address" ] || echo "$number"
    done
}

other_than() {
    [ "$1" -eq 1 ] && echo 2 || echo 1
}

roles() {
    shell .cluster | sed "s/|$DB_1|/ 1 /; s/|$DB_2|/ 2 /; s/|$DB_3|/ 3 /" | cut -d ' ' -f 2- | LC_ALL=C sort
}

# Content of the database as node NUMBER holds it, read by plain SQLite: page count and every row.
content_of() {
    directory=$(mktemp -d "$WORK/dump.XXXXXX")
    ( cd "$directory" && shell ".dump $(db "$1") demo" ) > "$directory.log" || { echo "no dump"; return; }
    python3 -c '
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
print(database.execute("PRAGMA integrity_check").fetchone()[0], database.execute("PRAGMA page_count").fetchone()[0])
print("\n".join(database.iterdump()))' "$directory/demo" 2>&1
    rm -rf "$directory" "$directory.log"
}

# Waits until all three nodes hold the same database.
expect_equal_content() {
    for _ in $(seq 100); do
        first=$(content_of 1)
        second=$(content_of 2)
        third=$(content_of 3)
        case $first in
        "ok "*) [ "$first" != "$second" ] || [ "$first" != "$third" ] || return 0 ;;
        esac
        sleep 0.3
    done
    echo "$first" > "$WORK/content-1"
    echo "$second" > "$WORK/content-2"
    echo "$third" > "$WORK/content-3"
    fail "the databases differ: see $WORK/content-1 to 3"
}
