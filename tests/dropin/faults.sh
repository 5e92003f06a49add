#!/bin/sh
# Clusters of 3 and 5 processes under load while nodes are killed, paused and restarted (faults.py). FAULT_ROUNDS (9)
# sets how many faults each cluster gets, FAULT_SEED their timing.
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh
. tests/dropin/members.sh

rounds=${FAULT_ROUNDS:-9}
seed=${FAULT_SEED:-$(date +%s)}
say "$rounds faults, seed $seed"
scenario $((rounds * 40 + 60)) faults "$WORK" 3 "$rounds" "$seed"
scenario $((rounds * 40 + 60)) faults "$WORK" 5 "$rounds" "$seed"
say "ok"
