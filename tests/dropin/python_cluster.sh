#!/bin/sh
# The PyPI packages dqlite-client and sqlalchemy-dqlite against three nodes of ours (python_cluster.py). NODES=C takes
# Debian's C library, or with PEER_LIBRARY=DIR another one: what works there has to work with ours.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh

[ -x build/venv/bin/python ] || skip "no Python 3.13 or newer (make deps)"
. tests/dropin/members.sh
PYTHON=$PWD/build/venv/bin/python
scenario 150 python_cluster "$WORK" "${NODES:-ours}"
say "ok"
