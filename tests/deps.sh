#!/bin/sh
# Installs what the build and the tests need: Debian's packages, if any is missing, the Python clients used by
# tests/dropin/python.sh and python_cluster.sh, and go-dqlite with its tests. Does nothing when all is there. The toolchains of Rust and Go
# are not installed here.
set -eu
cd "$(dirname "$0")/.."

PACKAGES="gcc g++ make pkg-config libsqlite3-dev libsqlite3-0 valgrind zstd curl libdqlite0 go-dqlite python3 python3-venv iproute2
dpkg-dev debhelper lintian mandoc abigail-tools mmdebstrap"
PYTHON_CLIENTS="dqlite-wire==0.8.0 dqlite-client==0.8.0 dqlite-dbapi==0.8.0 sqlalchemy-dqlite==0.8.0 sqlalchemy==2.1.9"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo > /dev/null; then
        sudo "$@"
    else
        echo "deps: root rights are needed for: $*" >&2
        echo "deps: become root, or install these packages yourself: $missing" >&2
        exit 1
    fi
}

install_packages() {
    if ! command -v apt-get > /dev/null || ! command -v dpkg-query > /dev/null; then
        echo "deps: no apt-get here. Needed: a C and C++ compiler, make, pkg-config, SQLite 3.34 or newer with its"
        echo "deps: header; for all tests also valgrind, curl, Python 3.13, Debian's libdqlite0 and go-dqlite, and its tools to build packages."
        return
    fi
    missing=""
    for package in $PACKAGES; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null) || state=absent
        [ "$state" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    echo "deps: installing$missing"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
    # The package names are separate words.
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
}

# The Python clients need 3.13 or newer, which Debian 12 itself does not have.
find_python() {
    for python in python3.14 python3.13 python3 "$HOME"/.pyenv/versions/3.1[3-9]*/bin/python3; do
        if "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 13))' 2> /dev/null; then
            echo "$python"
            return
        fi
    done
}

install_python_clients() {
    installed=$(cat build/venv/clients 2> /dev/null) || installed=""
    if [ "$installed" = "$PYTHON_CLIENTS" ] && build/venv/bin/python -c '' 2> /dev/null; then
        return
    fi
    python=$(find_python)
    if [ -z "$python" ]; then
        echo "deps: no Python 3.13 or newer: the tests with the Python clients will be skipped"
        return
    fi
    echo "deps: installing $PYTHON_CLIENTS into build/venv"
    rm -rf build/venv
    mkdir -p build
    "$python" -m venv build/venv
    # The packages are separate words.
    # shellcheck disable=SC2086
    if build/venv/bin/python -m pip --quiet --disable-pip-version-check install $PYTHON_CLIENTS; then
        echo "$PYTHON_CLIENTS" > build/venv/clients
    else
        echo "deps: $PYTHON_CLIENTS cannot be installed: the tests with the Python clients will be skipped"
        rm -rf build/venv
    fi
}

download_go_modules() {
    reason=$(sh tests/dropin/go_modules.sh) || echo "deps: $reason: the tests with Go will be skipped"
}

install_packages
install_python_clients
download_go_modules
