#!/bin/sh
# How long writes stop when the leader of three nodes is killed with SIGKILL: our library and Debian's C library, with
# default settings and with a network latency of 10 ms. FAILOVER_ROUNDS (20) for ours, a third of it for C.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh
. tests/dropin/members.sh

rounds=${FAILOVER_ROUNDS:-20}
printf '%-8s%-20s%6s%10s%10s%10s\n' library settings kills "best ms" "median ms" "worst ms"
for latency in 0 10; do
    scenario $((rounds * 60)) failover "$WORK" ours "$latency" "$rounds"
    scenario $((rounds * 60)) failover "$WORK" C "$latency" $(((rounds + 2) / 3))
done
