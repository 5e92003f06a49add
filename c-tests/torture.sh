#!/bin/sh
# The torture program of torture.c with a tool that watches it.
#
#   TORTURE_TOOL=valgrind|tsan|none   memcheck on the installed library, ThreadSanitizer on one built for it, neither
#   TORTURE_SECONDS=, TORTURE_SEED=   how long, and the random numbers
#
# tsan needs the nightly toolchain with rust-src, since the standard library is built with the sanitizer, too, and so is
# a private copy of SQLite: what is not instrumented would be reported as racing. The build stays in build/tsan.
set -eu
cd "$(dirname "$0")/.."
NAME=torture
. tests/dropin/setup.sh

TORTURE_TOOL=${TORTURE_TOOL:-valgrind}
export TORTURE_SECONDS="${TORTURE_SECONDS:-600}"
[ -n "${TORTURE_SEED:-}" ] || TORTURE_SEED=$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')
export TORTURE_SEED
export PKG_CONFIG_PATH="$STAGE/lib/pkgconfig"
WARNINGS="-Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror"
SOURCES="c-tests/torture.c c-tests/torture_handles.c c-tests/torture_clients.c c-tests/wire_client.c"
DATA=$WORK/data
LIMIT=$((TORTURE_SECONDS + 1200))
mkdir "$DATA"

# Flags and sources are separate words throughout.
# shellcheck disable=SC2086
build_with_library() {
    cc -std=gnu11 -g -pthread $WARNINGS $SOURCES $(pkg-config --cflags --libs dqlite) -lsqlite3 -o "$WORK/torture"
}

# The runtime of the sanitizer is that of the Rust toolchain: gcc's own would not know what rustc calls.
# shellcheck disable=SC2086
build_for_tsan() {
    triple=$(rustc +nightly -vV | sed -n 's/^host: //p')
    [ -d "$(rustc +nightly --print sysroot)/lib/rustlib/src" ] \
        || skip "no rust-src: rustup component add rust-src --toolchain nightly"
    say "building library and SQLite with ThreadSanitizer"
    # rustix shall call the C library, whose mmap and munmap the sanitizer sees.
    RUSTFLAGS="-Zsanitizer=thread --cfg rustix_use_libc" CFLAGS="-fsanitize=thread -g -O1" \
        CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_TARGET_DIR=build/tsan \
        cargo +nightly rustc --quiet -Zbuild-std --target "$triple" --lib \
        --features bundled-sqlite --crate-type staticlib
    cc -std=gnu11 -g -O1 -pthread -fsanitize=thread $WARNINGS -I"$STAGE/include" \
        -r -nostdlib -o "$WORK/torture.o" $SOURCES
    cc -pthread -rdynamic -o "$WORK/torture" "$WORK/torture.o" "build/tsan/$triple/debug/libdqlite.a" \
        -Wl,--whole-archive "$(rustc +nightly --print target-libdir)/librustc-nightly_rt.tsan.a" \
        -Wl,--no-whole-archive -lstdc++ -lgcc_s -lutil -lrt -lpthread -lm -ldl
}

say "TORTURE_TOOL=$TORTURE_TOOL TORTURE_SECONDS=$TORTURE_SECONDS TORTURE_SEED=$TORTURE_SEED"
case $TORTURE_TOOL in
none)
    build_with_library
    with_library "$LIMIT" "$WORK/torture" "$DATA" || fail "see above"
    ;;
valgrind)
    build_with_library
    TORTURE_SLOWNESS=10 with_library "$LIMIT" valgrind --leak-check=full \
        --errors-for-leak-kinds=definite,indirect,possible --error-exitcode=99 --fair-sched=yes --num-callers=30 \
        --log-file="$WORK/valgrind.log" "$WORK/torture" "$DATA" || fail "see above, or $WORK/valgrind.log"
    grep -h -E "ERROR SUMMARY|still reachable" "$WORK/valgrind.log"
    ;;
tsan)
    rustup run nightly rustc --version > "$WORK/rustc.log" 2>&1 || skip "no nightly toolchain of rustup"
    build_for_tsan
    # The descriptors are those of its symbolizer.
    TORTURE_SLOWNESS=5 TORTURE_SPARE_DESCRIPTORS=2 \
        TSAN_OPTIONS="suppressions=c-tests/torture.tsan halt_on_error=0 exitcode=66" \
        timeout -k 5 "$LIMIT" "$WORK/torture" "$DATA" 2> "$WORK/tsan.log" || fail "see $WORK/tsan.log"
    ;;
*)
    fail "TORTURE_TOOL is valgrind, tsan or none, not $TORTURE_TOOL"
    ;;
esac
# What dqlite.h does not declare ends with _trace.
sed -n 's/^FUNC \(dqlite_.*\)/\1/p' c-tests/symbols.txt | grep -v '_trace$' > "$WORK/exported"
grep -o 'X(dqlite_[a-z0-9_]*)' c-tests/torture.h | sed 's/X(\(.*\))/\1/' | LC_ALL=C sort > "$WORK/called"
diff "$WORK/exported" "$WORK/called" >&2 || fail "FUNCTIONS of torture.h (>) are not those of symbols.txt (<)"
say "ok"
