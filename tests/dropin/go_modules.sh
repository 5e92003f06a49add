#!/bin/sh
# go_modules.sh [MAJOR...]: has Go download go-dqlite and copies it, with its tests, into build/go/vMAJOR (3 if none is
# named), where its own go.sum pins the rest; build/go/vMAJOR.version is its version. build/go/raft is all that 1 needs of
# C-raft: it names one of its error codes and is linked with it, but calls nothing of it. Versions and
# hashes of 2 and 3 are those of go-app/go.mod and go.sum, those of 1 are below. Exit code 77 and the reason if that cannot be had here.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/go_env.sh

# The release that Debian's programs are made of. In go-app/go.mod it would bring some hundred modules into go.sum.
FIRST_VERSION=v1.11.5
FIRST_HASH=h1:Mbqh/iTd+bHjyJmr00/BZ9YudujU2U+RRMxYMjZWHWM=

if ! command -v go > /dev/null; then
    echo "there is no Go here"
    exit 77
fi
case $(go env GOVERSION) in
go1.[0-9] | go1.[0-9].* | go1.1* )
    echo "$(go env GOVERSION) is too old: 1.20 or newer is needed"
    exit 77
    ;;
esac
log=build/go/download.log
mkdir -p build/go

# Every package that the tests in a directory need, and nothing else of what their modules have.
download() {
    if ! (cd "$1" && timeout 300 go list -deps -test -tags libsqlite3 ./...) > "$log" 2>&1; then
        echo "go-dqlite or what it needs cannot be downloaded: $(tail -n 1 "$log")"
        exit 77
    fi
}

# field NAME: of what `go mod download -json` printed.
field() {
    sed -n 's/^\t"'"$1"'": "\(.*\)",\{0,1\}$/\1/p' "$module_log"
}

download tests/dropin/go-app
if [ ! -e build/go/raft/libraft.a ]; then
    mkdir -p build/go/raft
    printf '#include <stdbool.h>\nenum { RAFT_NOCONNECTION = 16 };\n' > build/go/raft/raft.h
    ar rc build/go/raft/libraft.a
fi
for major in "${@:-3}"; do
    module=github.com/canonical/go-dqlite/v$major
    [ "$major" != 1 ] || module=github.com/canonical/go-dqlite@$FIRST_VERSION
    module_log=build/go/module.log
    (cd tests/dropin/go-app && timeout 300 go mod download -json "$module") > "$module_log" 2> /dev/null || true
    source=$(field Dir)
    if [ -z "$source" ]; then
        echo "$module cannot be downloaded"
        exit 77
    fi
    if [ "$major" = 1 ] && [ "$(field Sum)" != "$FIRST_HASH" ]; then
        echo "$module has the hash $(field Sum), expected $FIRST_HASH" >&2
        exit 1
    fi
    field Version > "build/go/v$major.version"
    rm -rf "build/go/v$major"
    cp -r "$source" "build/go/v$major"
    chmod -R u+w "build/go/v$major"
    download "build/go/v$major"
done
