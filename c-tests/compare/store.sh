#!/bin/sh
# The data directory beside Debian's C library, with the same programs and copies of the same directories: start-up,
# writes while a snapshot is taken or sent, memory. Prints a table; everything it writes is below build.
#
#     STORE_PARTS     start-log start-data snapshot install memory: which of the five to run
#     STORE_ENTRIES   100000, entries in the log for start-log; C takes minutes to read so many
#     STORE_MB        500, size of the database in megabytes; above 520, C cannot install its snapshot
#     STORE_SECONDS   300, how long memory writes 25 rows of 40 kB a second; the snapshot part writes a tenth as long
#     STORE_WRITES    4000, small writes for the growth of memory, after as many before; both libraries keep 8192
set -eu
cd "$(dirname "$0")/../.."
NAME=compare-store
. tests/dropin/setup.sh

C_LIBRARY_PATH=$(debian_library_path)
[ -n "$C_LIBRARY_PATH" ] || skip "Debian's libdqlite0 is not installed (make deps)"
OUR_LIBRARY_PATH=$LIBRARY_PATH
C_VERSION=$(dpkg-query -W -f '${Version}' libdqlite0)
PARTS=${STORE_PARTS:-start-log start-data snapshot install memory}
ENTRIES=${STORE_ENTRIES:-100000}
MB=${STORE_MB:-500}
LENGTH=${STORE_SECONDS:-300}
WRITES=${STORE_WRITES:-4000}
# Addresses are part of the directories that are copied.
NODE_1=127.0.0.1:$(free_port)
NODE_2=127.0.0.1:$(free_port)
NODE_3=127.0.0.1:$(free_port)
NEVER=100000000
MANY=10000000
cc -std=gnu99 -O2 -Wall -Wextra -Iinclude -o "$WORK/member" c-tests/member.c "$OUR_LIBRARY_PATH/libdqlite.so.0"
cc -std=gnu99 -O2 -Wall -Wextra -o "$WORK/store" c-tests/compare/store.c c-tests/wire_client.c

use() {
    case $1 in
    this) LIBRARY_PATH=$OUR_LIBRARY_PATH ;;
    C) LIBRARY_PATH=$C_LIBRARY_PATH ;;
    esac
}

# member ID ADDRESS DIRECTORY [THRESHOLD TRAILING]: starts a node with the library in use.
member() {
    start "$(basename "$3")" "$WORK/member" "$1" "$2" "$3" 0 "${4:-0}" "${5:-0}"
}

store() {
    timeout -k 5 1800 "$WORK/store" "$@"
}

# As member, for a directory with data: $milliseconds is the time until the first answer.
first_answer() {
    since=$(date +%s%N)
    member "$@"
    milliseconds=$(store first "$2" "$since")
    expect_library "$PID"
}

new_node() {
    member "$@"
    wait_for_port "${2#*:}" "$PID"
    expect_library "$PID"
}

# Stopping may have to wait for a snapshot.
end() {
    kill -TERM "$1"
    wait_for_end "$1" 300 0
}

# copy OF NAME
copy() {
    rm -rf "${WORK:?}/$2"
    cp -r "$WORK/$1" "$WORK/$2"
}

# kilobytes PROCESS FIELD: VmRSS is what it has in memory, VmHWM the most that it ever had.
kilobytes() {
    sed -n "s/^$2:[^0-9]*\([0-9]*\) kB/\1/p" "/proc/$1/status"
}

# Milliseconds that a process was on a processor.
processor_ms() {
    awk -v ticks="$(getconf CLK_TCK)" '{ print int(($14 + $15) * 1000 / ticks) }' "/proc/$1/stat"
}

# note LIBRARY NAME VALUE: for the table.
note() {
    echo "$3" > "$WORK/$1.$2"
    say "$1, $2: $3"
}

note_peak() {
    note "$1" "$2.peak" $(($(kilobytes "$PID" VmHWM) / 1024))
}

# note_latencies LIBRARY NAME "COUNT MEDIAN P99 WORST"
note_latencies() {
    say "$1, $2: $3 (writes; median, p99, worst in ms)"
    # The numbers are separate words.
    # shellcheck disable=SC2086
    set -- "$1" "$2" $3
    note "$1" "$2.p99" "$5"
    note "$1" "$2.worst" "$6"
}

snapshots_of() {
    find "$1" -name 'snapshot-*[0-9]' | sort
}

# Waits until a directory has had no unfinished snapshot for two seconds.
wait_for_quiet() {
    quiet=0
    for _ in $(seq 3000); do
        if find "$1" -name 'tmp-*' | grep -q .; then quiet=0; else quiet=$((quiet + 1)); fi
        [ "$quiet" -lt 20 ] || return 0
        sleep 0.1
    done
    fail "a snapshot in $1 does not end"
}

make_log() {
    say "writing a log of $ENTRIES entries"
    use this
    new_node 1 "$NODE_1" "$WORK/log" "$NEVER" "$NEVER"
    store write "$NODE_1" "$ENTRIES" "$NEVER" > /dev/null
    end "$PID"
}

# The log is compacted behind the snapshot, so that a new server needs the snapshot. Some entries are behind it.
make_data() {
    say "filling a database of $MB MB"
    use this
    new_node 1 "$NODE_1" "$WORK/data" 64 64
    store grow "$NODE_1" "$MB"
    for _ in 1 2; do
        wait_for_quiet "$WORK/data"
        store write "$NODE_1" 200 "$NEVER" > /dev/null
    done
    wait_for_quiet "$WORK/data"
    end "$PID"
    [ ! -e "$WORK/data/0000000000000001-0000000000000001" ] || fail "the log was not compacted"
    snapshot=$(snapshots_of "$WORK/data" | tail -n 1)
    say "its snapshot has $(($(stat -c %s "$snapshot") / 1000000)) MB"
}

# measure_start LIBRARY DIRECTORY: files are read from the page cache.
measure_start() {
    copy "$2" copy
    use "$1"
    first_answer 1 "$NODE_1" "$WORK/copy" "$NEVER" "$NEVER"
    note "$1" "$2.start" "$milliseconds"
    note "$1" "$2.processor" "$(processor_ms "$PID")"
    note "$1" "$2.resident" $(($(kilobytes "$PID" VmRSS) / 1024))
    note_peak "$1" "$2"
    end "$PID"
}

measure_snapshot() {
    copy data copy
    use "$1"
    first_answer 1 "$NODE_1" "$WORK/copy" "$NEVER" "$NEVER"
    note_latencies "$1" quiet "$(store write "$NODE_1" "$MANY" $((LENGTH / 20 + 1)))"
    end "$PID"
    first_answer 1 "$NODE_1" "$WORK/copy"
    before=$(snapshots_of "$WORK/copy")
    note_latencies "$1" snapshot "$(store write "$NODE_1" "$MANY" $((LENGTH / 10 + 1)))"
    [ "$(snapshots_of "$WORK/copy")" != "$before" ] || fail "no snapshot was taken"
    note_peak "$1" snapshot
    end "$PID"
}

# cluster REQUEST: to the leader, node 1.
cluster() {
    PYTHONPATH=tests/dropin PYTHONDONTWRITEBYTECODE=1 timeout -k 5 600 python3 -c "
from cluster import Client, STANDBY, VOTER
with Client('$NODE_1', 500) as client:
    client.$1"
}

# The second voter has a copy of the first one's directory. The third server comes with nothing.
measure_install() {
    copy data copy
    copy data second
    rm -rf "$WORK/third"
    use "$1"
    new_node 2 "$NODE_2" "$WORK/second" "$NEVER" "$NEVER"
    second=$PID
    new_node 3 "$NODE_3" "$WORK/third" "$NEVER" "$NEVER"
    third=$PID
    first_answer 1 "$NODE_1" "$WORK/copy" "$NEVER" "$NEVER"
    first=$PID
    cluster "add(2, '$NODE_2')"
    cluster "assign(2, VOTER)"
    cluster "add(3, '$NODE_3')"
    start writer "$WORK/store" write "$NODE_1" "$MANY" "$NEVER"
    writer=$PID
    sleep 1
    since=$(date +%s%N)
    cluster "assign(3, STANDBY)"
    for _ in $(seq 3000); do
        [ -z "$(snapshots_of "$WORK/third")" ] || break
        sleep 0.1
    done
    [ -n "$(snapshots_of "$WORK/third")" ] || fail "the new server got no snapshot in five minutes"
    note "$1" install.time $((($(date +%s%N) - since) / 1000000))
    sleep 1
    end "$writer"
    note_latencies "$1" install "$(cat "$WORK/writer.log")"
    PID=$first
    note_peak "$1" install
    PID=$third
    note_peak "$1" installed
    for pid in $third $second $first; do
        stop "$pid" KILL 137
    done
}

measure_small_writes() {
    rm -rf "$WORK/copy"
    use "$1"
    new_node 1 "$NODE_1" "$WORK/copy"
    store write "$NODE_1" "$WRITES" "$NEVER" > /dev/null
    before=$(kilobytes "$PID" VmRSS)
    store write "$NODE_1" "$WRITES" "$NEVER" > /dev/null
    note "$1" small $((($(kilobytes "$PID" VmRSS) - before) * 1024 / WRITES))
    end "$PID"
}

# note_per_byte LIBRARY NAME KILOBYTES BYTES
note_per_byte() {
    note "$1" "$2" "$(awk -v kilobytes="$3" -v bytes="$4" 'BEGIN { printf "%.2f", kilobytes * 1024 / bytes }')"
}

note_memory() {
    bytes=$(($(store pages "$3") * 4096))
    say "$1: $((bytes / 1000000)) MB of data"
    note_per_byte "$1" resident "$(kilobytes "$2" VmRSS)" "$bytes"
    note_per_byte "$1" resident.peak "$(kilobytes "$2" VmHWM)" "$bytes"
    end "$2"
}

# Both at a time: they only have to keep pace.
measure_memory() {
    use this
    new_node 1 "$NODE_1" "$WORK/this.data"
    ours=$PID
    start ours.writer "$WORK/store" insert "$NODE_1" $((LENGTH * 25)) 25
    writer=$PID
    use C
    new_node 1 "$NODE_2" "$WORK/C.data"
    theirs=$PID
    store insert "$NODE_2" $((LENGTH * 25)) 25
    wait_for_end "$writer" 60 0
    note_memory this "$ours" "$NODE_1"
    note_memory C "$theirs" "$NODE_2"
}

for part in $PARTS; do
    case $part in
    start-log)
        make_log
        measure_start this log
        measure_start C log
        rm -rf "$WORK/log"
        ;;
    start-data | snapshot | install)
        [ -d "$WORK/data" ] || make_data
        for library in this C; do
            case $part in
            start-data) measure_start "$library" data ;;
            *) "measure_$part" "$library" ;;
            esac
        done
        ;;
    memory)
        measure_memory
        measure_small_writes this
        measure_small_writes C
        ;;
    *) fail "STORE_PARTS: no part $part" ;;
    esac
done

# row TEXT NAME: both numbers and their ratio, if they were measured.
row() {
    [ -e "$WORK/this.$2" ] || return 0
    awk -v text="$1" -v this="$(cat "$WORK/this.$2")" -v c="$(cat "$WORK/C.$2")" \
        'BEGIN { printf "%-58s %10s %10s %7.2f\n", text, this, c, this / (c > 0 ? c : 1) }'
}

printf '%-58s %10s %10s %7s\n' "" this "C $C_VERSION" ratio
row "start with a log of $ENTRIES entries, ms" log.start
row "  of that on a processor, ms" log.processor
row "  memory then, MB" log.resident
row "  most memory until then, MB" log.peak
row "start with $MB MB of data, ms" data.start
row "  of that on a processor, ms" data.processor
row "  memory then, MB" data.resident
row "  most memory until then, MB" data.peak
row "write, no snapshot under way, 99th percentile, ms" quiet.p99
row "  worst, ms" quiet.worst
row "write while snapshots of $MB MB are taken, 99th p., ms" snapshot.p99
row "  worst, ms" snapshot.worst
row "  most memory, MB" snapshot.peak
row "installing $MB MB on a new server, ms" install.time
row "  write on the leader meanwhile, 99th percentile, ms" install.p99
row "  worst, ms" install.worst
row "  most memory of the leader, MB" install.peak
row "  most memory of the new server, MB" installed.peak
row "memory for each byte of data after $LENGTH s of 40 kB rows" resident
row "  most" resident.peak
row "growth of memory with each of $WRITES small writes, bytes" small
