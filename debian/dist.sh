#!/bin/sh
# Makes the Debian source package of the last commit in build/deb, with the sources of all crates, so that it builds
# without a network. Called by `make dist`. Downloads what cargo does not have.
set -eu
cd "$(dirname "$0")/.."

VERSION=$(dpkg-parsechangelog -S Version)
UPSTREAM=${VERSION%-*}
NAME=dqlite-$UPSTREAM
OUT=$PWD/build/deb
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
mkdir -p "$OUT"

# pack FOLDER FILE: the same bytes for the same content.
pack() {
    tar -C "$WORK" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" -c "$1" \
        | xz -2 -T 1 > "$OUT/$2"
}

git archive --prefix="$NAME/" HEAD | tar -x -C "$WORK"
mv "$WORK/$NAME/debian" "$WORK/debian"
pack "$NAME" "dqlite_$UPSTREAM.orig.tar.xz"
cargo vendor --quiet --locked --versioned-dirs "$WORK/vendor" > /dev/null
pack vendor "dqlite_$UPSTREAM.orig-vendor.tar.xz"
mv "$WORK/debian" "$WORK/vendor" "$WORK/$NAME/"
cp "$OUT/dqlite_$UPSTREAM.orig.tar.xz" "$OUT/dqlite_$UPSTREAM.orig-vendor.tar.xz" "$WORK/"
(cd "$WORK" && dpkg-source -b "$NAME")
mv "$WORK/dqlite_$VERSION.debian.tar.xz" "$WORK/dqlite_$VERSION.dsc" "$OUT/"
ls -l "$OUT/dqlite_$VERSION.dsc" "$OUT/dqlite_$UPSTREAM".orig*
