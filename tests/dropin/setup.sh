# Read by the other scripts of this directory and by c-tests/run.sh: `. tests/dropin/setup.sh` at the project's root.
#
# Gives them a work directory ($WORK), free ports, background programs that never outlive the script, bounded waits,
# and the library under test: build/stage, or Debian's own with LIBRARY=debian (to test the scripts themselves).

NAME=${NAME:-$(basename "$0" .sh)}
mkdir -p build
WORK=$(mktemp -d "$PWD/build/$NAME.XXXXXX")
STAGE=$PWD/build/stage
STARTED=""
LIBRARY=${LIBRARY:-stage}

# Where the loader finds Debian's own libdqlite.so.0; nothing if it is not installed.
debian_library_path() {
    ldconfig -p | sed -n 's|.*libdqlite\.so\.0 .* => \(.*\)/.*|\1|p' | head -n 1
}

case $LIBRARY in
stage)
    LIBRARY_PATH=$STAGE/lib
    [ -e "$LIBRARY_PATH/libdqlite.so.0" ] || { echo "$NAME: no library in build/stage; run: make stage" >&2; exit 1; }
    ;;
debian)
    LIBRARY_PATH=$(debian_library_path)
    [ -n "$LIBRARY_PATH" ] || { echo "$NAME: Debian's libdqlite0 is not installed" >&2; exit 2; }
    ;;
*)
    echo "$NAME: LIBRARY is stage or debian, not $LIBRARY" >&2
    exit 2
    ;;
esac

say() {
    echo "$NAME: $*"
}

fail() {
    echo "$NAME: FAILED: $*" >&2
    exit 1
}

# Ends the script as one that cannot run here: tests/check.sh counts it apart.
skip() {
    say "skipped: $*"
    exit 77
}

# On failure the work directory stays and the end of every log is shown.
finish() {
    status=$?
    trap - EXIT
    for pid in $STARTED; do
        kill -KILL "$pid" 2> /dev/null || true
    done
    if [ "$status" -eq 0 ] || [ "$status" -eq 77 ]; then
        rm -rf "$WORK"
    else
        for log in "$WORK"/*.log; do
            [ -s "$log" ] || continue
            echo "--- last lines of $log" >&2
            tail -n 20 "$log" >&2
        done
        echo "$NAME: files are kept in $WORK" >&2
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a program with the library under test, for at most the given number of seconds.
with_library() {
    seconds=$1
    shift
    LD_LIBRARY_PATH=$LIBRARY_PATH timeout -k 5 "$seconds" "$@"
}

# Starts a program with the library under test in the background: its log is $WORK/<name>.log, its id is in $PID.
start() {
    log=$1
    shift
    LD_LIBRARY_PATH=$LIBRARY_PATH "$@" > "$WORK/$log.log" 2>&1 &
    PID=$!
    STARTED="$STARTED $PID"
}

# Whether a program that `start` started has ended, seen also before anyone waited for it.
ended() {
    state=$(sed 's/.*) //' "/proc/$1/stat" 2> /dev/null | cut -c 1)
    [ -z "$state" ] || [ "$state" = Z ]
}

# Waits for the end of a program that `start` started, for at most SECONDS, and expects its exit code.
wait_for_end() {
    pid=$1
    seconds=$2
    expected=$3
    for _ in $(seq $((seconds * 10))); do
        ended "$pid" && break
        sleep 0.1
    done
    ended "$pid" || fail "process $pid still runs after $seconds seconds"
    status=0
    wait "$pid" 2> /dev/null || status=$?
    STARTED=$(echo " $STARTED " | sed "s/ $pid / /")
    [ "$status" -eq "$expected" ] || fail "process $pid ended with exit code $status, expected $expected"
}

# Sends a signal to a program that `start` started and expects its exit code within 20 seconds.
stop() {
    kill "-$2" "$1" || fail "process $1 is not there any more"
    wait_for_end "$1" 20 "$3"
}

# Waits until something listens on 127.0.0.1:PORT, for at most 20 seconds, while process PID lives.
wait_for_port() {
    for _ in $(seq 200); do
        if python3 -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1).close()' \
            "$1" 2> /dev/null; then
            return
        fi
        ! ended "$2" || fail "the program that should listen on port $1 has ended"
        sleep 0.1
    done
    fail "nothing listens on port $1 after 20 seconds"
}

# Waits until the log of the program that was started last has a line, for at most 20 seconds, while it lives.
wait_for_line() {
    for _ in $(seq 200); do
        if grep -q -x -- "$2" "$1" 2> /dev/null; then
            return
        fi
        ! ended "$PID" || fail "the program has ended; $1 has no line \"$2\""
        sleep 0.1
    done
    fail "no line \"$2\" in $1 after 20 seconds"
}

# Prints a port that is free, outside the range from which the kernel gives ports to clients.
free_port() {
    python3 - << 'END'
import random, socket
for _ in range(100):
    port = random.randrange(10000, 32000)
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(port)
        break
END
}

# Fails unless the process runs with the library under test.
expect_library() {
    grep -q "$(readlink -f "$LIBRARY_PATH/libdqlite.so.0")" "/proc/$1/maps" \
        || fail "process $1 does not use $LIBRARY_PATH/libdqlite.so.0"
}

# Compares a text with what it should be.
expect() {
    [ "$2" = "$3" ] || fail "$1 gave \"$2\", expected \"$3\""
}

# expect_benchmark_without_errors FILE: a result file of dqlite-benchmark. The end of the benchmark may cut off the one
# request that is under way.
expect_benchmark_without_errors() {
    errors=$(sed -n 's/^n_err //p' "$1")
    count=$(sed -n 's/^n //p' "$1")
    say "$(basename "$1"): $count requests, $errors errors, average $(sed -n 's/^avg \[ms\] //p' "$1") ms"
    expect "errors in $(basename "$1")" \
        "$(sed '1,/^errors$/d' "$1" | grep -v -e '^$' -e ' context deadline exceeded$' || true)" ""
    [ "$errors" -le 1 ] || fail "$errors requests were cut off in $(basename "$1")"
    [ "$count" -gt 0 ] || fail "no request in $(basename "$1")"
}
