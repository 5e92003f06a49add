#!/bin/sh
# Nodes whose disks, small ones of their own, turn read-only or break under load; and a data directory that is removed
# (disk_faults.py).
set -eu
cd "$(dirname "$0")/../.."
. tests/dropin/setup.sh

# The disks end with their mount namespace, whatever becomes of the test.
ENTER="unshare --mount --propagation private"
truncate -s 4M "$WORK/probe.img"
mkfs.ext4 -q "$WORK/probe.img" 2> /dev/null || skip "there is no mkfs.ext4"
mkdir "$WORK/probe"
$ENTER mount -o loop "$WORK/probe.img" "$WORK/probe" 2> /dev/null || skip "this user may not mount a file as a disk"

. tests/dropin/members.sh
scenario 150 disk_faults "$WORK"
say "ok"
