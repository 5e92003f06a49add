"""The leader's memory while a follower stops reading and writers go on with large rows.

    stalled.py DIRECTORY SECONDS

First as long without a stalled follower, to know what the load itself needs. The rows replace each other, so that the
database stays small: what grows is the log, of which only the newest part may be in memory.
"""

import contextlib
import itertools
import sys
import threading
import time

from cluster import OURS, Cluster, Refused, Session, Work

WRITERS, ROWS, ROW_BYTES = 4, 64, 256 << 10
MIB = 1 << 20
# Kept for one peer: its queue, and what the kernel has taken (src/config.rs, PEER_QUEUE_BYTES_MAX). The rest is what
# the allocator makes of it.
GROWTH_MAX = 64 * MIB


def rss(member):
    with open(f"/proc/{member.process.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


class Load:
    def __init__(self, cluster):
        self.cluster = cluster
        self.stopping = threading.Event()
        self.numbers = itertools.count()
        self.written = 0
        self.work = [Work(self.write) for _ in range(WRITERS)]

    def write(self):
        session = Session(self.cluster, 10.0)
        while not self.stopping.is_set():
            statement = f"INSERT OR REPLACE INTO big VALUES ({next(self.numbers) % ROWS}, randomblob({ROW_BYTES}))"
            with contextlib.suppress(OSError, Refused):
                session.call(lambda c: c.exec(statement))
                self.written += ROW_BYTES
        session.close()

    def watch(self, member, seconds):
        """Bytes written, and the largest size of the member, which leads, for so long."""
        before, largest = self.written, 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            largest = max(largest, rss(member))
            time.sleep(0.05)
            for work in self.work:
                if work.error is not None:
                    raise work.error
        assert self.cluster.leader() is member, "another node leads now, which was not measured"
        return self.written - before, largest

    def finish(self):
        self.stopping.set()
        for work in self.work:
            work.finish()


def show(what, size, written=None):
    volume = "" if written is None else f", {written // MIB} MiB written"
    print(f"leader {what}: {size // MIB} MiB{volume}", flush=True)


def main(directory, seconds):
    # Without settings: thousands of entries stay in the log, for which the follower needs no snapshot.
    with Cluster(directory, latency_ms=0).form([OURS] * 3) as cluster:
        cluster.exec("CREATE TABLE IF NOT EXISTS big (k INTEGER PRIMARY KEY, v BLOB)")
        leader = cluster.leader()
        show("before", rss(leader))
        load = Load(cluster)
        written, usual = load.watch(leader, seconds)
        show("at most, all followers reading", usual, written)
        follower = next(member for member in cluster.members if member is not leader)
        follower.pause()
        written, largest = load.watch(leader, seconds)
        show("at most, one follower stalled", largest, written)
        assert written > 0, "writes stopped with one follower of two"
        follower.resume()
        written, after = load.watch(leader, min(seconds, 10))
        show("at most, afterwards", after, written)
        load.finish()
        begin = time.monotonic()
        cluster.converge()
        print(f"stalled: all nodes equal {time.monotonic() - begin:.1f} s after the load; leader {rss(leader) // MIB} MiB")
        growth = largest - usual
        assert growth <= GROWTH_MAX, f"a stalled follower costs the leader {growth // MIB} MiB"


main(sys.argv[1], int(sys.argv[2]))
