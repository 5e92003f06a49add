#!/bin/sh
# go_alone.sh COMMAND...: in new network and mount namespaces, brings up the loopback device, gives the command a place
# in memory for its temporary files, and runs it. Some tests of go-dqlite allow 100 ms for a commit, and most leave
# their directories behind.
set -eu
ip link set lo up
mount -t tmpfs tmpfs /run
export TMPDIR=/run
exec "$@"
