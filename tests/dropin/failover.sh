#!/bin/sh
# How long writes stop when the leader of three nodes is killed, paused or hands over: our library, Debian's C library
# and mixtures, with default settings and with a network latency of 10 ms, side by side. See failover.py.
# FAILOVER_ROUNDS (30) of every case; FAILOVER_CASES chooses some, for example "ours/*/default C/kill/*".
set -euf
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh
. tests/dropin/members.sh

[ -e "$C_LIBRARY_PATH/libdqlite.so.0" ] || skip "Debian's libdqlite0 is not installed"
rounds=${FAILOVER_ROUNDS:-30}
# shellcheck disable=SC2086 # a list of patterns
scenario $((rounds * 150 + 120)) failover "$WORK" "$rounds" ${FAILOVER_CASES:-*}
