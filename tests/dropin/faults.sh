#!/bin/sh
# Clusters of processes under load while nodes are killed, paused and cut off from each other (faults.py). Without settings
# each kind of fault comes once, in three nodes. With FAULT_ROUNDS the leader is killed that often, and there are half as
# many pauses and half as many partitions, shared by clusters of 3 and of 5 nodes on loopback and in network namespaces.
# Before that leaders change under many writers at once (churn.py), with each kind of fault once in the short form.
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
    surround "$2"
    seconds=$1
    shift
    scenario "$seconds" faults "$WORK" "$@" "$seed"
}

# churn SECONDS loopback|namespaces NODES ROUNDS
churn() {
    surround "$2"
    seconds=$1
    shift
    scenario "$seconds" churn "$WORK" "$@" "$seed"
}

surround() {
    ENTER=""
    [ "$1" = loopback ] || ENTER="sh tests/dropin/namespaces.sh"
}

if [ -z "${FAULT_ROUNDS:-}" ]; then
    if [ -n "$missing" ]; then
        churn 300 loopback 3 0
        skip "$missing"
    fi
    churn 300 namespaces 3 0
    faults 600 namespaces 3 0 0 0
else
    quarter=$(((FAULT_ROUNDS + 3) / 4))
    eighth=$(((FAULT_ROUNDS + 7) / 8))
    seconds=$((FAULT_ROUNDS * 90 + 600))
    churn "$seconds" loopback 3 "$FAULT_ROUNDS"
    churn "$seconds" loopback 5 "$FAULT_ROUNDS"
    faults "$seconds" loopback 3 "$quarter" "$eighth" 0
    faults "$seconds" loopback 5 "$quarter" "$eighth" 0
    [ -z "$missing" ] || skip "$missing"
    churn "$seconds" namespaces 3 "$FAULT_ROUNDS"
    churn "$seconds" namespaces 5 "$FAULT_ROUNDS"
    faults "$seconds" namespaces 3 "$quarter" "$eighth" "$quarter"
    faults "$seconds" namespaces 5 "$quarter" "$eighth" "$quarter"
fi
ENTER=""
[ -z "${FAULT_STALLED_S:-}" ] || scenario $((FAULT_STALLED_S * 3 + 300)) stalled "$WORK" "$FAULT_STALLED_S"
say "ok"
