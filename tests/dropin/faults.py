"""Four writers and two readers on a cluster of processes while nodes are killed, paused and restarted.

    faults.py DIRECTORY NODES ROUNDS SEED

Checked all the time: a read shows everything that was acknowledged before it began, and never less than an earlier
read did; a compare-and-set succeeds at most once per value. At the end: every acknowledged row is there on all nodes.
"""

import contextlib
import random
import sys
import threading
import time

from cluster import BUSY, OURS, Cluster, Refused, Session, Work, wait_for

WRITERS, READERS = 4, 2


class Load:
    def __init__(self, cluster):
        self.cluster = cluster
        self.stopping = threading.Event()
        self.acknowledged = [0] * WRITERS
        self.unknown = 0
        self.reads = 0
        self.claims = {}
        self.lock = threading.Lock()
        self.work = [Work(lambda i=i: self.write(i)) for i in range(WRITERS)]
        self.work += [Work(self.read) for _ in range(READERS)]

    def write(self, writer):
        """Numbers 1, 2, ... of its own, each as often as it takes; now and then a turn at the shared counter."""
        session = Session(self.cluster)
        number = 1
        while not self.stopping.is_set():
            try:
                session.call(lambda c: self.insert(c, writer, number))
                self.acknowledged[writer] = number
                number += 1
                if number % 5 == 0:
                    self.claim(session)
            except Refused as error:
                if error.code != BUSY:
                    self.unknown += 1
                time.sleep(0.002)
            except OSError:
                self.unknown += 1
                time.sleep(0.01)
        session.close()

    def insert(self, client, writer, number):
        """In one statement or as a transaction of several requests."""
        statement = f"INSERT OR IGNORE INTO log VALUES ({writer}, {number})"
        if number % 7 != 0:
            client.exec(statement)
            return
        try:
            client.exec("BEGIN IMMEDIATE")
            client.exec(statement)
            client.exec("COMMIT")
        except Refused:
            # The node may have rolled back already; a connection that still cannot go on is given up.
            with contextlib.suppress(Refused):
                client.exec("ROLLBACK")
            raise

    def claim(self, session):
        [(seen,)] = session.call(lambda c: c.query("SELECT n FROM counter"))
        if session.call(lambda c: c.exec(f"UPDATE counter SET n = {seen + 1} WHERE n = {seen}")) == 1:
            with self.lock:
                assert seen not in self.claims, f"two compare-and-sets of {seen} succeeded"
                self.claims[seen] = True

    def read(self):
        """Through any node's leader of the moment, so that a deposed one would be found out."""
        seen = [0] * (WRITERS + 1)
        session = Session(self.cluster)
        while not self.stopping.is_set():
            with self.lock:
                count = len(self.claims)
            floor = [max(pair) for pair in zip(seen, [*self.acknowledged, count])]
            try:
                rows = session.call(
                    lambda c: c.query(
                        "SELECT writer, max(number) FROM log GROUP BY writer UNION ALL SELECT 4, n FROM counter"
                    )
                )
            except (OSError, Refused):
                time.sleep(0.005)
                continue
            found = dict(rows)
            seen = [found.get(i, 0) for i in range(WRITERS + 1)]
            assert all(s >= f for s, f in zip(seen, floor)), f"stale read: {seen}, expected at least {floor}"
            self.reads += 1
        session.close()

    def check(self):
        for work in self.work:
            if work.error is not None:
                raise work.error

    def progress(self):
        """Waits until every writer was acknowledged something that it had not sent when this was called."""
        before = list(self.acknowledged)

        def more():
            self.check()
            return all(now > then + 1 for now, then in zip(self.acknowledged, before))

        wait_for(lambda: f"every writer to go on; from {before}, at {self.acknowledged}", more)

    def finish(self):
        self.stopping.set()
        for work in self.work:
            work.finish()


def restart(cluster, members, end):
    for member in members:
        end(member)
    time.sleep(random.uniform(0, 0.5))
    for member in members:
        member.start(OURS)


def pause(members, seconds):
    for member in members:
        member.pause()
    time.sleep(seconds)
    for member in members:
        member.resume()


def followers(cluster):
    leader = cluster.leader()
    return [member for member in cluster.members if member is not leader]


def fault(cluster, kind):
    leader = cluster.leader()
    minority = (len(cluster.members) - 1) // 2
    match kind:
        case "kill -9 the leader":
            restart(cluster, [leader], lambda m: m.kill())
        case "stop the leader":
            restart(cluster, [leader], lambda m: m.stop())
        case "kill -9 a minority":
            restart(cluster, [leader, *followers(cluster)][:minority], lambda m: m.kill())
        case "kill -9 followers":
            restart(cluster, random.sample(followers(cluster), minority), lambda m: m.kill())
        case "kill -9 a majority":
            restart(cluster, random.sample(cluster.members, minority + 1), lambda m: m.kill())
        case "kill -9 all":
            restart(cluster, cluster.members, lambda m: m.kill())
        case "pause the leader":
            pause([leader], random.uniform(0.2, 1.5))
        case "pause a follower":
            pause(followers(cluster)[:1], random.uniform(0.2, 1.5))
        case "pause a majority":
            pause(random.sample(cluster.members, minority + 1), random.uniform(0.2, 1.5))


KINDS = [
    "kill -9 the leader",
    "pause the leader",
    "stop the leader",
    "kill -9 followers",
    "pause a follower",
    "kill -9 a minority",
    "kill -9 all",
    "pause a majority",
    "kill -9 a majority",
]


def main(directory, nodes, rounds, seed):
    random.seed(seed)
    with Cluster(directory, latency_ms=20, threshold=100, trailing=100).form([OURS] * nodes) as cluster:
        cluster.exec("CREATE TABLE IF NOT EXISTS log (writer INTEGER, number INTEGER, PRIMARY KEY (writer, number))")
        cluster.exec("CREATE TABLE IF NOT EXISTS counter (n INTEGER)")
        cluster.exec("INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM counter)")
        load = Load(cluster)
        load.progress()
        for number in range(rounds):
            time.sleep(random.uniform(0, 0.8))
            kind = KINDS[number] if number < len(KINDS) else random.choice(KINDS)
            print(f"round {number + 1}: {kind}; acknowledged {sum(load.acknowledged)}", flush=True)
            fault(cluster, kind)
            load.progress()
        load.finish()
        for writer, acknowledged in enumerate(load.acknowledged):
            [(count,)] = cluster.query(f"SELECT count(*) FROM log WHERE writer = {writer} AND number <= {acknowledged}")
            assert count == acknowledged, f"writer {writer}: {count} rows of {acknowledged} acknowledged ones"
        [(counter,)] = cluster.query("SELECT n FROM counter")
        assert counter >= len(load.claims), f"the counter is {counter} after {len(load.claims)} increments"
        cluster.exec("INSERT OR IGNORE INTO log VALUES (-1, 0)")
        cluster.converge()
        print(
            f"faults: {nodes} nodes, {rounds} faults, {sum(load.acknowledged)} acknowledged rows and {len(load.claims)}"
            f" compare-and-sets, none missing; {load.reads} reads, none stale; {load.unknown} requests without answer"
        )


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
