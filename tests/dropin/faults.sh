#!/bin/sh
# Clusters of processes under load while nodes are killed, paused and cut off from each other (faults.py). Without settings
# each kind of fault comes once, in three nodes. With FAULT_ROUNDS the leader is killed that often, and there are half as
# many pauses and half as many partitions, shared by clusters of 3 and of 5 nodes on loopback and in network namespaces.
# Before that leaders change under many writers at once (churn.py), five times in the short form.
# FAULT_SEED sets the order and the timing. FAULT_STALLED_S runs stalled.py too, for that many seconds.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh
. tests/dropin/members.sh

seed=${FAULT_SEED:-$(date +%s)}
missing=$(sh tests/dropin/namespaces.sh)
say "seed $seed"

# faults SECONDS loopback|namespaces NODES KILLS PAUSES PARTITIONS
faults() {
    seconds=$1
    shift
    ENTER=""
    [ "$1" = loopback ] || ENTER="sh tests/dropin/namespaces.sh"
    scenario "$seconds" faults "$WORK" "$@" "$seed"
    ENTER=""
}

if [ -z "${FAULT_ROUNDS:-}" ]; then
    scenario 300 churn "$WORK" 3 5 "$seed"
    [ -z "$missing" ] || skip "$missing"
    faults 600 namespaces 3 0 0 0
else
    quarter=$(((FAULT_ROUNDS + 3) / 4))
    eighth=$(((FAULT_ROUNDS + 7) / 8))
    seconds=$((FAULT_ROUNDS * 90 + 600))
    scenario "$seconds" churn "$WORK" 3 "$FAULT_ROUNDS" "$seed"
    scenario "$seconds" churn "$WORK" 5 "$FAULT_ROUNDS" "$seed"
    faults "$seconds" loopback 3 "$quarter" "$eighth" 0
    faults "$seconds" loopback 5 "$quarter" "$eighth" 0
    [ -z "$missing" ] || skip "$missing"
    faults "$seconds" namespaces 3 "$quarter" "$eighth" "$quarter"
    faults "$seconds" namespaces 5 "$quarter" "$eighth" "$quarter"
fi
[ -z "${FAULT_STALLED_S:-}" ] || scenario $((FAULT_STALLED_S * 3 + 300)) stalled "$WORK" "$FAULT_STALLED_S"
say "ok"
