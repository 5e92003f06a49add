"""Writers and readers while the disk of a node, a tmpfs, is full, and after there is space again.

    full_disk.py DIRECTORY

On a full disk writes are refused with SQLITE_FULL and reads go on; writes go on within two seconds of freed space;
nothing that was acknowledged is lost, also if nodes are killed and restarted while their disks are full.
"""

import os
import subprocess
import sys
import threading
import time

from cluster import OURS, Cluster, Refused, Session, Work, wait_for

DISK_MB, BLOB = 48, 16000
WRITERS, READERS = 3, 2
FULL = 13
RESUME_S = 2.0


class Disks:
    """Gives every node of a cluster a small disk of its own before the node starts."""

    def __init__(self, cluster, count):
        self.directories = [os.path.join(cluster.directory, f"node{id}") for id in range(1, count + 1)]
        for directory in self.directories:
            os.mkdir(directory)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", directory], check=True)

    def fill(self, id):
        """Takes all the space there is, and what becomes free later if it is called again."""
        path = os.path.join(self.directories[id - 1], "foreign")
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        os.write(file, bytes(size))
                except OSError:
                    pass
        finally:
            os.close(file)

    def free(self, id):
        os.remove(os.path.join(self.directories[id - 1], "foreign"))


class Load:
    """Each writer inserts 1, 2, 3, ..., each number as often as it takes. A trigger makes the entries long."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.stopping = threading.Event()
        self.acknowledged = [0] * WRITERS
        self.acknowledged_at = [0.0] * WRITERS
        self.refused_at = [0.0] * WRITERS
        self.errors = {}
        self.reads, self.read_errors = 0, {}
        self.work = [Work(lambda i=i: self.write(i)) for i in range(WRITERS)]
        self.work += [Work(self.read) for _ in range(READERS)]

    def write(self, writer):
        session = Session(self.cluster)
        number = 1
        while not self.stopping.is_set():
            sql = f"INSERT OR IGNORE INTO log VALUES ({writer}, {number})"
            try:
                session.call(lambda c: c.exec(sql))
                self.acknowledged[writer] = number
                self.acknowledged_at[writer] = time.monotonic()
                number += 1
                time.sleep(0.002)
            except (OSError, Refused) as error:
                code = error.code if isinstance(error, Refused) else type(error).__name__
                self.errors[code] = self.errors.get(code, 0) + 1
                if code == FULL:
                    self.refused_at[writer] = time.monotonic()
                    assert error.text.startswith("database or disk is full"), error.text
                time.sleep(0.02)
        session.close()

    def read(self):
        session = Session(self.cluster)
        seen = [0] * WRITERS
        while not self.stopping.is_set():
            floor = [max(pair) for pair in zip(seen, self.acknowledged)]
            try:
                rows = dict(session.call(lambda c: c.query("SELECT writer, max(number) FROM log GROUP BY writer")))
            except (OSError, Refused) as error:
                self.read_errors[str(error)] = self.read_errors.get(str(error), 0) + 1
                time.sleep(0.02)
                continue
            seen = [rows.get(i, 0) for i in range(WRITERS)]
            assert all(s >= f for s, f in zip(seen, floor)), f"stale read: {seen}, expected at least {floor}"
            self.reads += 1
            time.sleep(0.01)
        session.close()

    def check(self):
        for work in self.work:
            if work.error is not None:
                raise work.error

    def wait_for_all(self, what, times):
        """Waits until every writer has been through something since now. Returns how long that took."""
        start = time.monotonic()

        def done():
            self.check()
            return all(at > start for at in times)

        wait_for(lambda: f"{what}: {self.acknowledged}, errors {self.errors}", done)
        return max(times) - start

    def progress(self):
        return self.wait_for_all("writes", self.acknowledged_at)

    def refusal(self, disks, leader, *others):
        """Fills the leader's disk until nothing can be written any more, since snapshots give space back; then the others.
        In this order, or these would use up for writes what they have in reserve."""
        for _ in range(20):
            disks.fill(leader)
            self.wait_for_all("writes to be refused", self.refused_at)
            before = sum(self.acknowledged)
            time.sleep(0.5)
            if sum(self.acknowledged) == before:
                break
        else:
            raise AssertionError("the disk does not fill up")
        for id in others:
            disks.fill(id)

    def expect_standstill(self, seconds):
        """No write succeeds and reads go on."""
        writes, reads = sum(self.acknowledged), self.reads
        time.sleep(seconds)
        self.check()
        written = sum(self.acknowledged) - writes
        assert written == 0, f"{written} writes on a full disk"
        assert self.reads > reads + 10, f"only {self.reads - reads} reads on a full disk"
        return self.reads - reads

    def expect_errors(self, *codes):
        assert set(self.errors) <= set(codes), f"errors of writers: {self.errors}"
        if codes == (FULL,):
            assert not self.read_errors, f"errors of readers: {self.read_errors}"

    def finish(self):
        self.stopping.set()
        for work in self.work:
            work.finish()


def begin(cluster, count):
    disks = Disks(cluster, count)
    cluster.form([OURS] * count)
    cluster.exec("CREATE TABLE IF NOT EXISTS log (writer INT, number INT, PRIMARY KEY (writer, number))")
    cluster.exec("CREATE TABLE IF NOT EXISTS pad (payload BLOB)")
    cluster.exec("INSERT INTO pad VALUES (0)")
    pad = f"UPDATE pad SET payload = randomblob({BLOB})"
    cluster.exec(f"CREATE TRIGGER IF NOT EXISTS long AFTER INSERT ON log BEGIN {pad}; END")
    load = Load(cluster)
    load.progress()
    return disks, load


def resume(load, disks, ids, what):
    for id in ids:
        disks.free(id)
    took = load.progress()
    print(f"full_disk: {what}: writes went on {took * 1000:.0f} ms after the space was back", flush=True)
    assert took < RESUME_S, f"{took:.3f} s"


def verify(cluster, load):
    """Every acknowledged row is there."""
    acknowledged = list(load.acknowledged)
    rows = cluster.query("SELECT writer, number FROM log")
    lost = {(w, n) for w in range(WRITERS) for n in range(1, acknowledged[w] + 1)} - set(rows)
    assert not lost, f"lost: {sorted(lost)[:10]}"


def single(directory):
    with Cluster(directory, threshold=200, trailing=200) as cluster:
        disks, load = begin(cluster, 1)
        [node] = cluster.members
        load.refusal(disks, 1)
        reads = load.expect_standstill(1.5)
        print(f"full_disk: one node: {reads} reads in 1.5 s, writers saw {load.errors}", flush=True)
        resume(load, disks, [1], "one node")
        load.refusal(disks, 1)
        load.expect_errors(FULL)
        resume(load, disks, [1], "one node again")
        load.expect_errors(FULL)

        load.refusal(disks, 1)
        node.kill()
        node.start(OURS)
        # Its restart gives the rest of its segments back.
        disks.fill(1)
        verify(cluster, load)
        resume(load, disks, [1], "one node, killed while full")
        load.refusal(disks, 1)
        load.finish()
        node.stop()
        node.start(OURS)
        verify(cluster, load)


def leader_first(cluster, leader):
    return [leader.id, *(member.id for member in cluster.members if member is not leader)]


def three(directory):
    with Cluster(directory, threshold=200, trailing=200) as cluster:
        disks, load = begin(cluster, 3)
        leader = cluster.leader()
        follower = next(member for member in cluster.members if member is not leader)
        disks.fill(follower.id)
        # Enough for the follower to use up what it had in reserve.
        goal = sum(load.acknowledged) + 3 * (8 << 20) // BLOB
        wait_for(lambda: f"writes without a follower, {load.errors}", lambda: load.check() or sum(load.acknowledged) > goal)
        load.expect_errors(FULL)
        assert not load.errors, f"a full follower stops writes: {load.errors}"
        disks.free(follower.id)
        load.progress()

        leader = cluster.leader()
        load.refusal(disks, *leader_first(cluster, leader))
        load.expect_standstill(1.0)
        load.expect_errors(FULL)
        resume(load, disks, (1, 2, 3), "three full nodes")

        leader = cluster.leader()
        load.refusal(disks, *leader_first(cluster, leader))
        leader.kill()
        other = wait_for("another leader", lambda: cluster.find_leader())
        assert other is not leader
        reads = load.reads
        wait_for("reads from the new leader", lambda: load.reads > reads + 10)
        leader.start(OURS)
        verify(cluster, load)
        resume(load, disks, (1, 2, 3), "three full nodes, leader killed")
        load.finish()
        verify(cluster, load)
        cluster.converge()
        for member in cluster.members:
            member.stop()


if __name__ == "__main__":
    single(sys.argv[1])
    three(sys.argv[1])
    print("full_disk: ok", flush=True)
