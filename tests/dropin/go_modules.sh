#!/bin/sh
# go_modules.sh [MAJOR...]: has Go download go-dqlite, in the versions and with the hashes of go-app/go.mod and go.sum,
# and copies it, with its tests, into build/go/vMAJOR (3 if none is named), where its own go.sum pins the rest. Exit code
# 77 and the reason if that cannot be had here.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/go_env.sh

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

download tests/dropin/go-app
for major in "${@:-3}"; do
    module=github.com/canonical/go-dqlite/v$major
    source=$(cd tests/dropin/go-app && timeout 300 go mod download -json "$module" 2> /dev/null \
        | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
    if [ -z "$source" ]; then
        echo "$module cannot be downloaded"
        exit 77
    fi
    rm -rf "build/go/v$major"
    cp -r "$source" "build/go/v$major"
    chmod -R u+w "build/go/v$major"
    download "build/go/v$major"
done
