#!/bin/sh
# namespaces.sh COMMAND...: runs a command with a network, processes and a /run of its own, where it may make network
# namespaces. All of that ends with the command, and also when this script is killed: nothing is left behind, and scripts
# that run side by side do not see each other. Without a command: prints why that cannot be had here, nothing if it can.
set -eu

own="--net --mount --pid --fork --kill-child --mount-proc"
[ "$(id -u)" -eq 0 ] || own="--user --map-root-user $own"

if [ $# -gt 0 ]; then
    # The options are separate words.
    # shellcheck disable=SC2086
    exec unshare $own sh -c 'mount -t tmpfs tmpfs /run && exec "$@"' sh "$@"
fi

if ! command -v unshare > /dev/null || ! command -v ip > /dev/null || ! command -v tc > /dev/null; then
    echo "unshare, ip or tc is missing (util-linux, iproute2)"
elif ! sh "$0" sh -c 'ip netns add probe && ip link add probe type bridge && ip netns exec probe true &&
    ip link add v0 type veth peer name v1 netns probe && tc qdisc add dev v0 root tbf rate 1mbit burst 5kb limit 15kb' \
    > /dev/null 2>&1; then
    echo "network namespaces are not permitted (no CAP_NET_ADMIN)"
fi
