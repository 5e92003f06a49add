#!/bin/sh
# This library beside Debian's C library, with the same programs: size, memory after the start, latency for one client.
# They take turns; the table has the median of the rounds. COMPARE_ROUNDS (3), COMPARE_COUNT (3000 requests each).
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh

C_LIBRARY_PATH=$(debian_library_path)
[ -n "$C_LIBRARY_PATH" ] || skip "Debian's libdqlite0 is not installed (make deps)"
OUR_LIBRARY_PATH=$LIBRARY_PATH
C_VERSION=$(dpkg-query -W -f '${Version}' libdqlite0)
ADDRESS=127.0.0.1:$(free_port)
ROUNDS=${COMPARE_ROUNDS:-3}
cc -std=gnu99 -O2 -Wall -Wextra -Iinclude -o "$WORK/host" c-tests/demo/host.c c-tests/wire_client.c \
    "$LIBRARY_PATH/libdqlite.so.0"
cc -std=gnu99 -O2 -Wall -Wextra -o "$WORK/latency" c-tests/compare/latency.c c-tests/wire_client.c
mkfifo "$WORK/input"

# In kilobytes. The C library up to 1.13 needs libraft beside it.
stripped_size() {
    total=0
    for file in libdqlite.so.0 libraft.so.2; do
        [ -e "$1/$file" ] || continue
        strip -o "$WORK/stripped" "$1/$file"
        total=$((total + $(stat -c %s "$WORK/stripped")))
    done
    echo $((total / 1024))
}

# Prints: memory in kilobytes, then what latency prints.
measure() {
    rm -rf "$WORK/data"
    start host sh -c 'exec "$1" "$2" "$3" < "$4"' - "$WORK/host" "$ADDRESS" "$WORK/data" "$WORK/input"
    exec 3> "$WORK/input"
    wait_for_line "$WORK/host.log" ready
    expect_library "$PID"
    sleep 1
    memory=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$PID/status")
    echo "$memory $(timeout -k 5 120 "$WORK/latency" "$ADDRESS" "${COMPARE_COUNT:-3000}")"
    exec 3>&-
    wait_for_end "$PID" 20 0
}

for round in $(seq "$ROUNDS"); do
    for library in Rust C; do
        case $library in
        Rust) LIBRARY_PATH=$OUR_LIBRARY_PATH ;;
        C) LIBRARY_PATH=$C_LIBRARY_PATH ;;
        esac
        numbers=$(measure)
        say "round $round, $library: $numbers"
        echo "$(stripped_size "$LIBRARY_PATH") $numbers" >> "$WORK/$library.numbers"
    done
done

# row NAME COLUMN: the medians of both libraries and their ratio.
row() {
    for library in Rust C; do
        cut -d ' ' -f "$2" "$WORK/$library.numbers" | sort -n | sed -n "$(((ROUNDS + 1) / 2))p"
    done | { read -r ours; read -r theirs; awk -v name="$1" -v ours="$ours" -v theirs="$theirs" \
        'BEGIN { printf "%-38s %10s %10s %7.2f\n", name, ours, theirs, ours / theirs }'; }
}

printf '%-38s %10s %10s %7s\n' "" "this" "C $C_VERSION" ratio
row "shared library, stripped, kB" 1
row "resident memory after start, kB" 2
row "insert of one row, median, us" 3
row "insert of one row, 99th percentile, us" 4
row "read of one row, median, us" 5
