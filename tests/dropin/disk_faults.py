"""Nodes whose disks fail under load: loop mounts of ext4 that turn read-only or answer everything with EIO, and a data
directory that is removed.

    disk_faults.py DIRECTORY

The node that is hit says what failed and on which file, stops when it is told to, and does not crash. Other nodes go on. With
a sound disk it starts again, and nothing that was acknowledged is lost.
"""

import fcntl
import glob
import os
import shutil
import struct
import subprocess
import sys

from cluster import OURS, PATIENCE_S, Cluster, wait_for
from full_disk import Load, verify

EXT4_IOC_SHUTDOWN, WITHOUT_FLUSH = 0x8004587D, 2
ROUNDS, DISK_MB, BLOB = 3, 64, 16000


class LoopDisk:
    """An ext4 of its own for the data directory of a node, in a file."""

    def __init__(self, member_directory):
        self.directory, self.image = member_directory, member_directory + ".img"
        os.makedirs(self.directory, exist_ok=True)
        with open(self.image, "wb") as file:
            file.truncate(DISK_MB << 20)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)
        self.mount()

    def mount(self):
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", self.image, self.directory], check=True)

    def repair(self):
        subprocess.run(["umount", self.directory], check=True)
        done = subprocess.run(["e2fsck", "-p", self.image], capture_output=True, text=True)
        assert done.returncode <= 1, done.stdout + done.stderr
        self.mount()

    def turn_read_only(self):
        with open("/proc/mounts") as mounts:
            device = next(line.split()[0] for line in mounts if line.split()[1] == self.directory)
        with open(f"/sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error", "w") as trigger:
            trigger.write("disk_faults.py")

    def break_down(self):
        """Everything fails from now on, and what was not synced is lost."""
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        finally:
            os.close(directory)


# Name, what happens to the disk, and what the node may say: of a write that was under way, ext4 says EIO in both cases.
EIO = "Input/output error (os error 5)"
FAULTS = (
    ("read-only", LoopDisk.turn_read_only, ("Read-only file system (os error 30)", EIO)),
    ("broken", LoopDisk.break_down, (EIO,)),
)


def begin(cluster):
    cluster.exec("CREATE TABLE IF NOT EXISTS log (writer INT, number INT, PRIMARY KEY (writer, number))")
    cluster.exec("CREATE TABLE IF NOT EXISTS pad (payload BLOB)")
    cluster.exec("INSERT INTO pad VALUES (0)")
    pad = f"UPDATE pad SET payload = randomblob({BLOB})"
    cluster.exec(f"CREATE TRIGGER IF NOT EXISTS long AFTER INSERT ON log BEGIN {pad}; END")
    load = Load(cluster)
    load.progress()
    return load


def stop_fenced(member, reasons):
    """It still answers a signal, and says why it had stopped, on which file."""
    assert member.process.poll() is None, f"node {member.id} is gone"
    member.process.terminate()
    status = member.process.wait(PATIENCE_S)
    member.process.stdout.close()
    member.process = None
    said = [line for line in member.trace() if line.startswith("member: error")]
    assert status == 1 and len(said) == 1, f"node {member.id} ended with {status}: {said}"
    assert "the node had stopped by itself: " in said[0] and member.directory in said[0], said[0]
    assert said[0].endswith(tuple(reasons)), said[0]
    return said[0]


def fenced(member):
    """Whether the thread that writes the log has ended."""
    names = []
    for path in glob.glob(f"/proc/{member.process.pid}/task/*/comm"):
        try:
            with open(path) as comm:
                names.append(comm.read().strip())
        except OSError:
            pass
    return "dqlite/disk" not in names


def one_node(directory, what, hit, reasons):
    with Cluster(directory, threshold=100, trailing=100) as cluster:
        disk = LoopDisk(os.path.join(cluster.directory, "node1"))
        node = cluster.join(OURS)
        load = begin(cluster)
        for _ in range(ROUNDS):
            load.progress()
            hit(disk)
            wait_for("the node to notice", lambda: load.check() or fenced(node))
            written = sum(load.acknowledged)
            said = stop_fenced(node, reasons)
            assert sum(load.acknowledged) == written, "acknowledged by a fenced node"
            disk.repair()
            node.start(OURS)
            verify(cluster, load)
        load.progress()
        load.finish()
        node.stop()
        print(f"disk_faults: one node, {what}, {ROUNDS} times: {sum(load.acknowledged)} rows, none lost; {said}", flush=True)


def leader_of_three(directory, what, hit, reasons):
    with Cluster(directory, threshold=100, trailing=100) as cluster:
        disks = [LoopDisk(os.path.join(cluster.directory, f"node{id}")) for id in (1, 2, 3)]
        cluster.form([OURS] * 3)
        load = begin(cluster)
        leader = cluster.leader()
        hit(disks[leader.id - 1])
        wait_for("the leader to notice", lambda: load.check() or fenced(leader))
        load.progress()
        assert cluster.leader() is not leader
        stop_fenced(leader, reasons)
        verify(cluster, load)
        disks[leader.id - 1].repair()
        leader.start(OURS)
        load.progress()
        load.finish()
        verify(cluster, load)
        cluster.converge()
        print(f"disk_faults: the leader of three, {what}: the others went on, and it came back", flush=True)


def lost_directory(directory):
    """Removed under a running node. What it writes to files that have no name any more is lost with it, so it is as a
    server whose disk died: the others have everything, and it joins again with an empty directory."""
    with Cluster(directory, threshold=100, trailing=100) as cluster:
        cluster.form([OURS] * 3)
        load = begin(cluster)
        node = next(member for member in cluster.members if member is not cluster.leader())
        # Under another name first: the node may be creating a spare segment, and a directory with a file stays.
        gone = node.directory + "-gone"
        os.rename(node.directory, gone)
        shutil.rmtree(gone)
        wait_for("the node to notice", lambda: load.check() or fenced(node))
        stop_fenced(node, ["No such file or directory (os error 2)"])
        load.progress()
        cluster.on_leader(lambda client: node.id in client.servers() and client.remove(node.id))
        cluster.members.remove(node)
        # A server comes back under a new id.
        cluster.members.append(node)
        node.id = 4
        node.start(OURS)
        cluster.add(node)
        load.progress()
        load.finish()
        verify(cluster, load)
        cluster.converge()
        print("disk_faults: a data directory removed under a running node: the others went on, and it joined again", flush=True)


def main(directory):
    for fault in FAULTS:
        one_node(directory, *fault)
        leader_of_three(directory, *fault)
    lost_directory(directory)
    print("disk_faults: ok", flush=True)


main(sys.argv[1])
