#!/bin/sh
# A program without any shared library: builds the library and the program `dqlite` for musl, with SQLite in it, links
# c-tests/demo/host.c with it, and lets that run a node, write, and find its rows again. Needs
# `rustup target add x86_64-unknown-linux-musl` and Debian's musl-tools. Not a part of `make check`: it is a build of its
# own of several minutes. What it makes stays in build/musl.
set -eu
cd "$(dirname "$0")/../.."
NAME=musl
LIBRARY=${LIBRARY:-debian} # setup.sh wants one; nothing here uses it
. tests/dropin/setup.sh

TARGET=x86_64-unknown-linux-musl
command -v musl-gcc > /dev/null || skip "musl-gcc is missing (apt-get install musl-tools)"
[ -d "$(rustc --print sysroot)/lib/rustlib/$TARGET/lib" ] || skip "no standard library for musl (rustup target add $TARGET)"

say "building for $TARGET"
OUT=$PWD/build/musl
mkdir -p "$OUT"
# SQLite from the crate, compiled by musl-gcc.
env CC_x86_64_unknown_linux_musl=musl-gcc \
    "${CARGO:-cargo}" rustc --quiet --release --target "$TARGET" --features bundled-sqlite --lib --crate-type staticlib
env CC_x86_64_unknown_linux_musl=musl-gcc \
    "${CARGO:-cargo}" build --quiet --release --target "$TARGET" --features bundled-sqlite --bin dqlite
cp "${CARGO_TARGET_DIR:-target}/$TARGET/release/libdqlite.a" "${CARGO_TARGET_DIR:-target}/$TARGET/release/dqlite" "$OUT/"

# The header of SQLite, without those of glibc that lie beside it.
mkdir "$WORK/include"
cp include/dqlite.h /usr/include/sqlite3.h "$WORK/include/"
# Beside the C library it needs the unwinder, which comes with the standard library of Rust.
UNWINDER=$(rustc --print sysroot)/lib/rustlib/$TARGET/lib/self-contained/libunwind.a
musl-gcc -static -std=gnu99 -Wall -Wextra "-I$WORK/include" -o "$OUT/host" c-tests/demo/host.c c-tests/wire_client.c \
    "$OUT/libdqlite.a" "$UNWINDER"
for program in host dqlite; do
    readelf -l -W "$OUT/$program" | grep -q LOAD || fail "$program is no program"
    if readelf -l -d -W "$OUT/$program" | grep -q -E "INTERP|NEEDED"; then fail "$program is not static"; fi
done

say "a node in a static program"
ADDRESS=127.0.0.1:$(free_port)
expect "the first run" "$(printf '%s\n' 'CREATE TABLE t (a)' "INSERT INTO t VALUES ('kept')" 'SELECT a FROM t' \
    | timeout 60 "$OUT/host" "$ADDRESS" "$WORK/data" | tail -n 1)" kept
expect "the second run" "$(echo 'SELECT a FROM t' | timeout 60 "$OUT/host" "$ADDRESS" "$WORK/data" | tail -n 1)" kept
"$OUT/dqlite" check "$WORK/data" | grep -q "^Sound" || fail "dqlite check"
say "ok: $(du -k "$OUT/host" | cut -f 1) KiB"
