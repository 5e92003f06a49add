#!/bin/sh
# Compares the ABI of our library with that of a C release, by abidiff: the symbols of the libraries, and the types of what
# the headers declare (the compilers of Rust and C describe types differently, so those come from two small C libraries,
# one for each header). Every difference must be in abidiff.txt, with its reason, and nothing in there that the header
# of the C release declares.
# Without settings: Debian's library, and its header from libdqlite-dev. PEER_LIBRARY=DIR and PEER_HEADERS=DIR take
# libdqlite.so.0 and dqlite.h of another release.
set -eu
cd "$(dirname "$0")/../.."
NAME=abidiff
. tests/dropin/setup.sh

command -v abidiff > /dev/null || skip "abidiff is missing (make deps)"
peer=${PEER_LIBRARY:-$(debian_library_path)}
[ -n "$peer" ] || skip "Debian's libdqlite0 is not installed (make deps)"
peer=$peer/libdqlite.so.0

# The package is not installed, where the tests of others might use its header.
debian_headers() {
    (cd "$WORK" && apt-get -o APT::Sandbox::User=root download -qq "libdqlite-dev=$(dpkg-query -W -f '${Version}' libdqlite0)" > download.log 2>&1) \
        || skip "libdqlite-dev cannot be downloaded"
    dpkg-deb -x "$WORK"/libdqlite-dev_*.deb "$WORK/debian"
}
if [ -z "${PEER_HEADERS:-}" ]; then
    [ -z "${PEER_LIBRARY:-}" ] || fail "PEER_LIBRARY needs PEER_HEADERS"
    debian_headers
    PEER_HEADERS=$WORK/debian/usr/include
fi

# declared DIRECTORY: the functions and variables of its dqlite.h.
declared() {
    cc -E -P "-I$1" "$1/dqlite.h" | tr '\n' ' ' | tr ';' '\n' | grep -o -E '\bdqlite_[a-z_0-9]+ ?\(|\*dqlite_version_string' \
        | tr -d '(* ' | LC_ALL=C sort -u
}
declared "$PEER_HEADERS" > "$WORK/declared-peer"
declared include > "$WORK/declared-ours"
[ "$(wc -l < "$WORK/declared-peer")" -gt 20 ] || fail "no functions in $PEER_HEADERS/dqlite.h"

# A library that holds a pointer of the right type to everything that both headers declare.
types() {
    echo '#include <dqlite.h>'
    LC_ALL=C comm -12 "$WORK/declared-peer" "$WORK/declared-ours" | sed 's/.*/__typeof__(\&&) abi_&;/'
}
types > "$WORK/types.c"
cc -g -shared -fPIC -w "-I$PEER_HEADERS" -o "$WORK/types-peer.so" "$WORK/types.c"
cc -g -shared -fPIC -w -Iinclude -o "$WORK/types-ours.so" "$WORK/types.c"

# Bits of the exit code: 1 and 2 mistakes of this script, 4 and 8 changes.
differences() {
    status=0
    abidiff --no-added-syms --no-show-locs "$@" || status=$?
    [ $((status & 3)) -eq 0 ] || fail "abidiff $*: exit code $status"
}
{
    LC_ALL=C comm -23 "$WORK/declared-peer" "$WORK/declared-ours" | sed 's/^/declared /'
    differences "$peer" "$LIBRARY_PATH/libdqlite.so.0" \
        | sed -n 's/^ *\[D\] .*{\([^},]*\).*/symbol \1/p; s/^ *\[D\] \([^ ]*\)$/symbol \1/p'
    differences "$WORK/types-peer.so" "$WORK/types-ours.so" | sed -n 's/^ *\[[CD]\] .*\babi_\([a-z_0-9]*\).*/type \1/p'
} > "$WORK/found"

grep -v -e '^#' -e '^$' tests/packaging/abidiff.txt | sed 's/ *#.*//' > "$WORK/known"
# Exit code 1 of grep is that there is no such line.
grep -v -x -E -f "$WORK/known" "$WORK/found" > "$WORK/unknown" || [ $? -eq 1 ]
if [ -s "$WORK/unknown" ]; then
    cat "$WORK/unknown" >&2
    differences "$WORK/types-peer.so" "$WORK/types-ours.so" >&2
    fail "differences that are not in tests/packaging/abidiff.txt"
fi
sed 's/^/symbol /' "$WORK/declared-peer" | grep -x -E -f "$WORK/known" > "$WORK/hidden" || [ $? -eq 1 ]
[ ! -s "$WORK/hidden" ] || fail "tests/packaging/abidiff.txt lets functions of the API go: $(cat "$WORK/hidden")"
say "$(wc -l < "$WORK/declared-peer") declarations, $(wc -l < "$WORK/found") known differences with $peer: ok"
