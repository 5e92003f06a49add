#!/bin/sh
# Our core and store beside raft-rs, openraft and async-raft, and the whole library beside hiqlite: the same load, on the
# same disk, in turns. Prints what compares; all numbers go to a file.
#
#     PEERS_ONLY       our-core raft-rs openraft async-raft hiqlite hiqlite-async hiqlite-interval: which of them beside ours
#     PEERS_PROPOSERS  1 16 64, for hiqlite and the whole library: clients
#     PEERS_NODES      1 3
#     PEERS_PAYLOADS   128 4096 bytes; not for hiqlite, which inserts rows
#     PEERS_ROUNDS     3, of which the medians are taken
#     PEERS_SECONDS    3, the measured time of a cell; PEERS_WARM_UP_MS (1000) before it
#     PEERS_DIR        where the data directories are made; build without it
#     PEERS_RESULTS    build/peers/results.json
#
# All of it takes 20 minutes, and the first build of the other libraries, some 400 crates, ten more. It is made to measure:
# it fails only when something of ours fails.
set -eu
cd "$(dirname "$0")/../.."

features=
case ${PEERS_ONLY:-hiqlite} in
*hiqlite*) ;;
*) features=--no-default-features ;;
esac
# shellcheck disable=SC2086 # there may be none
${CARGO:-cargo} build --release --locked $features --manifest-path benches/peers/Cargo.toml --target-dir target/peers
PEERS=$PWD/target/peers/release/dqlite-peers
DATA=$(mktemp -d "${PEERS_DIR:-$PWD/build}/peers.XXXXXX")
trap 'rm -rf "$DATA"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
RESULTS=${PEERS_RESULTS:-build/peers/results.json}
mkdir -p "$(dirname "$RESULTS")"
export PEERS
PYTHONPATH=$PWD/benches/load python3 benches/peers/peers.py "$DATA" "$RESULTS"
