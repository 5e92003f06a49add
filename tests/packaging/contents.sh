#!/bin/sh
# What is in the packages of `make deb`: names, versions, relations, hardening, symbols, manual pages, lintian's opinion;
# programs are built against libdqlite-dev, shared and static, and run; dqlite-dir reads a recorded directory.
set -eu
cd "$(dirname "$0")/../.."
NAME=deb_contents
. tests/dropin/setup.sh

command -v lintian > /dev/null || skip "lintian is missing (make deps)"
command -v mandoc > /dev/null || skip "mandoc is missing (make deps)"
DEBS=$PWD/build/deb
[ -e "$DEBS"/dqlite-tools_*.deb ] || skip "no packages in build/deb (make deb)"
ROOT=$WORK/root
for package in libdqlite0 libdqlite-dev dqlite-tools; do
    dpkg-deb -x "$DEBS/$package"_*.deb "$ROOT"
done
MULTIARCH=$(dpkg-architecture -q DEB_HOST_MULTIARCH)
LIBDIR=$ROOT/usr/lib/$MULTIARCH
field() { dpkg-deb -f "$DEBS/$1"_*.deb "$2"; }

say "versions and relations"
version=$(field libdqlite0 Version)
api=$(sed -n 's/^API_VERSION *:= *//p' Makefile)
crate=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
expect "version of the packages" "${version%-*}" "$api+rs$crate"
# Debian 12 has 1.11.1-1; the others are what Debian would call the C releases before and behind ours.
for other in 1.11.1-1 "$api-1"; do
    dpkg --compare-versions "$other" lt "$version" || fail "$version is no upgrade of $other"
done
expect "Depends of libdqlite-dev" "$(field libdqlite-dev Depends | tr ',' '\n' | grep -c "libdqlite0 (= $version)")" 1
field libdqlite0 Depends | grep -q "libsqlite3-0 (>= 3.3" || fail "libdqlite0 depends on: $(field libdqlite0 Depends)"
expect "Multi-Arch" "$(field libdqlite0 Multi-Arch) $(field libdqlite-dev Multi-Arch)" "same same"

say "no file belongs to another package of Debian"
if command -v dqlite > /dev/null; then
    for file in "$ROOT"/usr/bin/*; do
        ! dpkg -S "${file#"$ROOT"}" 2> /dev/null || fail "${file#"$ROOT"} belongs to another package"
    done
fi

say "symbols"
dpkg-deb --ctrl-tarfile "$DEBS"/libdqlite0_*.deb | tar -x -O ./symbols | sed -n 's/^ \(.*\)@Base .*/\1/p' | LC_ALL=C sort > "$WORK/package"
sed -n 's/^[A-Z].* //p' c-tests/symbols.txt | LC_ALL=C sort > "$WORK/expected"
diff "$WORK/expected" "$WORK/package" >&2 || fail "the symbols file differs from c-tests/symbols.txt (<)"
# What Debian 12's library exports of the API never asks for a newer library than Debian's.
dpkg-deb --ctrl-tarfile "$DEBS"/libdqlite0_*.deb | tar -x -O ./symbols | sed -n 's/^ \(dqlite_node_[a-z_]*\)@Base \(.*\)/\1 \2/p' > "$WORK/versions"
debian=$(debian_library_path)
if [ -n "$debian" ] && [ "$(dpkg-query -W -f '${Version}' libdqlite0 2> /dev/null)" = 1.11.1-1 ]; then
    readelf --dyn-syms -W "$debian/libdqlite.so.0" | awk '$7 != "UND" {print $8}' > "$WORK/debian"
    while read -r symbol since; do
        if dpkg --compare-versions "$since" le 1.11.1; then there=yes; else there=no; fi
        if grep -q -x "$symbol" "$WORK/debian"; then expect "$symbol since 1.11.1 or before" "$there" yes
        else expect "$symbol since 1.11.1 or before" "$there" no; fi
    done < "$WORK/versions"
fi

say "hardening, and nothing that should not be in there"
readelf -h "$ROOT/usr/bin/dqlite-dir" | grep -q "Type:.*DYN" || fail "dqlite-dir is not position-independent"
for file in "$ROOT/usr/bin/dqlite-dir" "$LIBDIR/libdqlite.so.0.0.1"; do
    readelf -d -W "$file" | grep -q -E "BIND_NOW|FLAGS_1.*NOW" || fail "no bindnow: $file"
    readelf -l -W "$file" | grep -q GNU_RELRO || fail "no relro: $file"
    readelf -l -W "$file" | grep "GNU_STACK" | grep -q "RW " || fail "executable stack: $file"
    if readelf -d -W "$file" | grep -E "RPATH|RUNPATH"; then fail "rpath: $file"; fi
    if readelf -S -W "$file" | grep -F .symtab; then fail "not stripped: $file"; fi
    if grep -q -a -F "$PWD" "$file" || grep -q -a -F "$HOME/.cargo" "$file"; then fail "path of this machine: $file"; fi
done
readelf -d "$LIBDIR/libdqlite.so.0.0.1" | grep -q "SONAME.*\[libdqlite.so.0\]" || fail "SONAME"

say "programs with libdqlite-dev"
export PKG_CONFIG_PATH="$LIBDIR/pkgconfig"
expect "prefix of dqlite.pc" "$(pkg-config --variable=libdir dqlite)" "/usr/lib/$MULTIARCH"
LIBS_PRIVATE=$(sed -n 's/^Libs.private: //p' "$LIBDIR/pkgconfig/dqlite.pc")
cc -o "$WORK/shared" c-tests/link.c "-I$ROOT/usr/include" "-L$LIBDIR" -ldqlite
# Several words.
# shellcheck disable=SC2086
cc -o "$WORK/static" c-tests/link.c "-I$ROOT/usr/include" "$LIBDIR/libdqlite.a" -lsqlite3 $LIBS_PRIVATE
LD_LIBRARY_PATH=$LIBDIR timeout 20 "$WORK/shared" || fail "a program with the shared library"
timeout 20 "$WORK/static" || fail "a program with the static library"

say "dqlite-dir"
mkdir "$WORK/directory"
tar --zstd -x -C "$WORK/directory" -f tests/conformance/datadir/v1_11_1-segments/data.tar.zst
timeout 20 "$ROOT/usr/bin/dqlite-dir" check "$WORK/directory" | grep -q "^Sound" || fail "check of a sound directory"
"$ROOT/usr/bin/dqlite-dir" --help | grep -q "dqlite-dir check DIR" || fail "the program does not know its name"

say "manual pages and licences"
mandoc -T lint -W warning docs/man/* >&2 || fail "manual pages"
sed -n 's/.*\b\(dqlite_[a-z_0-9]*\)(.*/\1/p; s/.*\*\(dqlite_version_string\);/\1/p' include/dqlite.h | grep -x -F -f - "$WORK/expected" \
    | LC_ALL=C sort -u > "$WORK/header"
sed -n 's/^\.It [FV][na] //p' docs/man/libdqlite.3 | LC_ALL=C sort > "$WORK/manual"
diff "$WORK/header" "$WORK/manual" >&2 || fail "docs/man/libdqlite.3 (>) does not list the functions of the header (<)"
for page in man1/dqlite-dir.1 man3/libdqlite.3 man5/dqlite-data.5; do
    [ -s "$ROOT/usr/share/man/$page.gz" ] || fail "no $page"
done
for crate in tokio libsqlite3-sys lz4_flex; do
    zcat "$ROOT/usr/share/doc/libdqlite0/crate-licences.txt.gz" | grep -q "^$crate [0-9]" || fail "no licence of $crate"
done

say "lintian"
timeout 500 lintian --no-cfg --allow-root --fail-on error,warning "$DEBS"/*.changes > "$WORK/lintian.txt" 2>&1 \
    || { cat "$WORK/lintian.txt" >&2; fail "lintian"; }
say "ok"
