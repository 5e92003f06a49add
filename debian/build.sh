#!/bin/sh
# build.sh [vendored]: builds the Debian packages of the working tree into build/deb, with the compiler in the PATH.
# Called by `make deb`. "vendored" makes a source package with all crates in it, as `make dist` does, and builds from
# that one, without the crates of this machine.
set -eu
cd "$(dirname "$0")/.."

for program in dpkg-buildpackage dh; do
    command -v "$program" > /dev/null || { echo "deb: skipped: $program is missing (make deps)"; exit 77; }
done
VERSION=$(dpkg-parsechangelog -S Version)
UPSTREAM=${VERSION%-*}
OUT=$PWD/build/deb
TREE=$OUT/dqlite-$UPSTREAM
export CARGO_TARGET_DIR="$OUT/target"

rm -rf "$TREE" "$OUT"/*.deb "$OUT"/*.buildinfo "$OUT"/*.changes
mkdir -p "$TREE"
git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- --ignore-failed-read | tar -x -C "$TREE"
if [ "${1:-}" = vendored ]; then
    sh debian/dist.sh
    rm -rf "$TREE"
    (cd "$OUT" && dpkg-source -x "dqlite_$VERSION.dsc")
else
    cargo fetch --locked
fi
# The compiler need not be a package. `make check` runs the tests.
cd "$TREE"
DEB_BUILD_OPTIONS="nocheck ${DEB_BUILD_OPTIONS:-}" dpkg-buildpackage -b -us -uc -Ppkg.dqlite.rustup
cd "$OUT"
rm -rf "$TREE"
ls -l ./*.deb
