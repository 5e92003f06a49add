#!/bin/sh
# Nodes whose disks, small ones of their own, fill up under load and get space again (full_disk.py).
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh

# The disks end with their mount namespace, whatever becomes of the test.
ENTER="unshare --mount --propagation private"
$ENTER mount -t tmpfs -o size=1m tmpfs "$WORK" 2> /dev/null || skip "this user may not mount a tmpfs"

. tests/dropin/members.sh
scenario 150 full_disk "$WORK"
say "ok"
