#!/bin/sh
# The C tests: programs linked with the library as `make stage` installed it, shared and static.
set -eu
cd "$(dirname "$0")/.."
NAME=c-tests
. tests/dropin/setup.sh

CARGO=${CARGO:-cargo}
export PKG_CONFIG_PATH="$STAGE/lib/pkgconfig"
WARNINGS="-Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror"
FLAGS=$(pkg-config --cflags --libs dqlite)
LIBS_PRIVATE=$(sed -n 's/^Libs.private: //p' "$STAGE/lib/pkgconfig/dqlite.pc")
LIBRARY_FILE=$STAGE/lib/libdqlite.so.0

# Flags are separate words throughout.
# shellcheck disable=SC2086
build() {
    program=$1
    shift
    say "building $program: $*"
    "$@" -o "$WORK/$program"
}

say "SONAME, symbols and what the library needs"
readelf -d "$LIBRARY_FILE" > "$WORK/dynamic"
grep -q "SONAME.*\[libdqlite.so.0\]" "$WORK/dynamic" || fail "SONAME is not libdqlite.so.0"
grep -q "NEEDED.*\[libsqlite3.so.0\]" "$WORK/dynamic" || fail "the system's libsqlite3.so.0 is not used"
grep -q "FLAGS_1.*NODELETE" "$WORK/dynamic" || fail "the library may be unloaded while its threads run"
readelf --dyn-syms -W "$LIBRARY_FILE" \
    | awk '$5 != "LOCAL" && $7 != "UND" && ($4 == "FUNC" || $4 == "OBJECT") {
               print ($4 == "OBJECT" ? "OBJECT/" $3 : $4), $8 }' \
    | LC_ALL=C sort -k 2 > "$WORK/symbols"
grep -v '^#' c-tests/symbols.txt > "$WORK/symbols-expected"
diff "$WORK/symbols-expected" "$WORK/symbols" >&2 || fail "exports differ from c-tests/symbols.txt (< expected, > found)"

build link-c99 cc -std=c99 $WARNINGS c-tests/link.c $FLAGS
build link-c11 cc -std=c11 $WARNINGS c-tests/link.c $FLAGS
build link-cxx c++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -x c++ c-tests/link.c $FLAGS
build link-api cc -std=c99 $WARNINGS -DDQLITE_API= c-tests/link.c $FLAGS
build link-nonpie cc -std=c99 $WARNINGS -no-pie -fno-pie c-tests/link.c $FLAGS
build link-static cc -std=c99 $WARNINGS c-tests/link.c "-I$STAGE/include" "$STAGE/lib/libdqlite.a" -lsqlite3 $LIBS_PRIVATE
build abi cc -std=c99 $WARNINGS c-tests/abi.c $FLAGS
sed -n '/^```c$/,/^```$/p' README.md | grep -v '^```' > "$WORK/readme.c"
build readme cc -std=c99 $WARNINGS "$WORK/readme.c" $FLAGS
# The program in the comment at the top of the header.
sed -n '/^ \*     #include <dqlite.h>$/,/^ \*     }$/s/^ \* \{0,5\}//p' include/dqlite.h > "$WORK/header.c"
build header cc -std=c99 $WARNINGS "$WORK/header.c" $FLAGS
readelf -r -W "$WORK/link-nonpie" | grep -q "COPY.*dqlite_version_string" \
    || fail "the non-PIE program holds no copy of dqlite_version_string, so it shows nothing"
for program in link-c99 link-c11 link-cxx link-api link-nonpie abi; do
    with_library 20 "$WORK/$program" || fail "$program"
done
"$WORK/link-static" || fail "link-static"
if readelf -d "$WORK/link-static" | grep -q "libdqlite"; then
    fail "link-static uses the shared library"
fi

version=$(sed -n 's/.*COMPATIBLE_VERSION: &str = "\(.*\)";/\1/p' src/config.rs)
expect "pkg-config --modversion dqlite" "$(pkg-config --modversion dqlite)" "$version"

say "native libraries named in dqlite.pc"
"$CARGO" rustc --quiet --lib --crate-type staticlib -- --print "native-static-libs=$WORK/native-libs" 2> "$WORK/cargo.log"
tr ' ' '\n' < "$WORK/native-libs" | grep -v -e '^$' -e '^-lsqlite3$' | LC_ALL=C sort -u > "$WORK/native"
echo "$LIBS_PRIVATE" | tr ' ' '\n' | LC_ALL=C sort -u > "$WORK/native-pc"
diff "$WORK/native-pc" "$WORK/native" >&2 || fail "Libs.private of pkgconfig/dqlite.pc.in (<) is not what rustc needs (>)"

PROGRAM_FLAGS="-std=gnu11 -g -pthread $WARNINGS c-tests/checks.c c-tests/wire_client.c"
build lifecycle cc c-tests/lifecycle.c $PROGRAM_FLAGS $FLAGS -lsqlite3
build threads cc c-tests/threads.c $PROGRAM_FLAGS $FLAGS -lsqlite3
build server cc c-tests/server.c $PROGRAM_FLAGS $FLAGS -lsqlite3
build refusals cc c-tests/refusals.c $PROGRAM_FLAGS $FLAGS -lsqlite3
build integration cc c-tests/integration/*.c $PROGRAM_FLAGS $FLAGS -lsqlite3
build tracing cc c-tests/tracing.c $PROGRAM_FLAGS $FLAGS -lsqlite3
build server-static cc c-tests/server.c $PROGRAM_FLAGS "-I$STAGE/include" "$STAGE/lib/libdqlite.a" -lsqlite3 \
    $LIBS_PRIVATE
FIRST=127.0.0.1:$(free_port)
SECOND=127.0.0.1:$(free_port)

# run_quietly NAME PROGRAM: must print nothing, since LIBDQLITE_TRACE is not set.
run_quietly() {
    say "$1"
    mkdir "$WORK/$1.data"
    with_library 240 env -u LIBDQLITE_TRACE "$WORK/$2" "$WORK/$1.data" "$FIRST" "$SECOND" 2> "$WORK/$1.log" || fail "$1"
    [ ! -s "$WORK/$1.log" ] || fail "the library writes to standard error though LIBDQLITE_TRACE is not set"
}

# What is reachable at the end lives as long as the process: the lock library's table of waiting threads and a page of
# zeros, three blocks together. Something left behind by each node would be far more.
REACHABLE_BLOCKS_MAX=8

# run_with_valgrind NAME PROGRAM [ARGUMENT...]
run_with_valgrind() {
    run=$1
    program=$2
    shift 2
    say "$run under valgrind"
    mkdir "$WORK/$run-valgrind.data"
    with_library 300 valgrind --leak-check=full --errors-for-leak-kinds=definite,indirect,possible --error-exitcode=99 \
        --fair-sched=yes --num-callers=30 --log-file="$WORK/$run-valgrind.log" \
        "$WORK/$program" "$WORK/$run-valgrind.data" "$FIRST" "$SECOND" "$@" || fail "$run under valgrind"
    blocks=$(sed -n 's/.*still reachable: .* in \([0-9,]*\) blocks/\1/p' "$WORK/$run-valgrind.log" | tr -d ,)
    [ "${blocks:-0}" -le "$REACHABLE_BLOCKS_MAX" ] || fail "$run: $blocks blocks are never freed"
}

run_quietly lifecycle lifecycle
run_quietly threads threads
run_quietly server server
run_quietly refusals refusals
run_quietly integration integration
say "tracing"
mkdir "$WORK/tracing.data"
with_library 60 "$WORK/tracing" "$WORK/tracing.data" "$FIRST" "$SECOND" || fail "tracing"
export SQLITE_SINGLE_THREAD=1
run_quietly threads-single-thread threads
run_with_valgrind threads-single-thread threads
unset SQLITE_SINGLE_THREAD
run_with_valgrind lifecycle lifecycle
run_with_valgrind threads threads
run_with_valgrind server server
run_with_valgrind refusals refusals
# The others take minutes there: they are about many requests, or large ones.
STRESS_REQUESTS=10 run_with_valgrind integration integration \
    a_transaction_of_prepared_statements_is_read_back_row_by_row \
    stop_turns_away_the_writers_in_line \
    a_server_that_recovery_left_out_starts_and_knows_no_leader \
    last_entries_are_told_of_a_founder_and_of_a_server_in_no_cluster \
    a_founder_that_handed_leadership_over_can_be_removed \
    an_open_transaction_holds_up_no_transfer_there_and_back \
    compressed_snapshots_bring_every_database_back_and_to_others \
    a_snapshot_replaces_what_a_server_had_that_was_away \
    readers_and_writers_of_one_database_never_fail

say "server, linked statically, with log lines"
mkdir "$WORK/static"
LIBDQLITE_TRACE=4 timeout 120 "$WORK/server-static" "$WORK/static" "$FIRST" "$SECOND" 2> "$WORK/trace.log" \
    || fail "server-static"
grep -q "^LIBDQLITE\[.* ERROR .*dqlite_server: .*/server-info:1: " "$WORK/trace.log" || fail "LIBDQLITE_TRACE=4"
if grep -q -E "^LIBDQLITE\[.* (WARN|INFO|DEBUG) " "$WORK/trace.log"; then
    fail "LIBDQLITE_TRACE=4 lets more than errors through"
fi
say "ok"
