#!/bin/sh
# What `make demo` shows: a C program of a page with a database node inside, its data after kill -9.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh

step() {
    echo
    echo "==> $*"
}

ADDRESS=127.0.0.1:$(free_port)
DATA=$WORK/data

step "Compile c-tests/demo/host.c with the flags that pkg-config gives for dqlite"
flags=$(PKG_CONFIG_PATH=$STAGE/lib/pkgconfig pkg-config --cflags --libs dqlite)
echo "cc -o host host.c wire_client.c $flags"
# The flags are separate words.
# shellcheck disable=SC2086
cc -std=gnu99 -o "$WORK/host" c-tests/demo/host.c c-tests/wire_client.c $flags

step "Start a node on $ADDRESS and run some SQL in it"
cat > "$WORK/first.sql" << 'END'
CREATE TABLE planets (name TEXT PRIMARY KEY, moons INTEGER)
INSERT INTO planets VALUES ('Earth', 1), ('Mars', 2), ('Neptune', 16), ('Venus', 0)
SELECT name, moons FROM planets ORDER BY moons
END
cat "$WORK/first.sql"
echo "--"
with_library 60 "$WORK/host" "$ADDRESS" "$DATA" < "$WORK/first.sql"

step "Start it again, change a row, and kill it with SIGKILL"
mkfifo "$WORK/input"
start host sh -c 'exec "$1" "$2" "$3" < "$4"' - "$WORK/host" "$ADDRESS" "$DATA" "$WORK/input"
exec 3> "$WORK/input"
tee /dev/fd/3 << 'END'
INSERT INTO planets VALUES ('Jupiter', 95)
UPDATE planets SET moons = 14 WHERE name = 'Neptune'
SELECT 'acknowledged'
END
wait_for_line "$WORK/host.log" acknowledged
echo "--"
cat "$WORK/host.log"
echo "kill -9 $PID"
stop "$PID" KILL 137
exec 3>&-

step "Start it once more: nothing that was acknowledged is lost"
echo "SELECT name, moons FROM planets ORDER BY moons" > "$WORK/last.sql"
cat "$WORK/last.sql"
echo "--"
with_library 60 "$WORK/host" "$ADDRESS" "$DATA" < "$WORK/last.sql" > "$WORK/last.log"
cat "$WORK/last.log"
expect "the last session" "$(cat "$WORK/last.log")" "ready
Venus|0
Earth|1
Mars|2
Neptune|14
Jupiter|95"
echo
echo "The demo worked. The program: c-tests/demo/host.c"
