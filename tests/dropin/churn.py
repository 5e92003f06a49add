"""Deep pipelines under leaders that come and go: no acknowledged row vanishes, and no reader sees an unpublished one.

    churn.py DIRECTORY loopback|namespaces NODES ROUNDS SEED

WRITERS clients each have a transaction under way all the time, so that many wait for their commit whenever a leader is
killed, with or without all others, paused, stopped, made to transfer, or, in network namespaces, cut off from its peers
while its clients still reach it. Each transaction counts for its writer, moves money between accounts and
counts in all, by triggers. So every state that transactions left in their order fulfils an equation, and none that has
only a part of them, or lacks one in the middle. Readers ask each node as long as it leads, and look into the databases
of all nodes, leaders or not: what anybody has seen or was told once never becomes less again.
"""

import contextlib
import os
import random
import sqlite3
import sys
import threading
import time

from cluster import BUSY, BUSY_RECOVERY, OURS, Client, Cluster, Refused, Session, Work, wait_for
from network import Loopback, Namespaces, both_ways

WRITERS = 64
ACCOUNTS = 8
BALANCE = 1000
# Nothing was executed: it is asked again.
NOT_LEADER = 10250
PROGRESS_S = 90
SCHEMA = f"""
CREATE TABLE writers (writer INTEGER PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE total (n INTEGER NOT NULL);
CREATE TRIGGER counted AFTER UPDATE ON writers BEGIN
    UPDATE accounts SET balance = balance - 1 WHERE id = new.writer % {ACCOUNTS};
    UPDATE accounts SET balance = balance + 1 WHERE id = new.number % {ACCOUNTS};
    UPDATE total SET n = n + new.number - old.number;
END;
"""
LOOK = "SELECT writer, number FROM writers UNION ALL SELECT -1, sum(balance) FROM accounts UNION ALL SELECT -2, n FROM total"


class Bank:
    def __init__(self, cluster):
        self.cluster = cluster
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        # What anybody was told or has seen, and what was sent, of each writer.
        self.floor = [0] * WRITERS
        self.sent = [0] * WRITERS
        self.in_flight = self.deepest = 0
        self.acknowledged = self.unknown = self.reads = self.looks = 0
        rows = ", ".join(f"({writer}, 0)" for writer in range(WRITERS))
        accounts = ", ".join(f"({id}, {BALANCE})" for id in range(ACCOUNTS))
        cluster.exec("CREATE TABLE IF NOT EXISTS made (n INTEGER)")
        cluster.exec(f"BEGIN; {SCHEMA} INSERT INTO writers VALUES {rows}; INSERT INTO accounts VALUES {accounts};"
                     " INSERT INTO total VALUES (0); COMMIT")
        self.work = [Work(lambda w=w: self.write(w)) for w in range(WRITERS)]
        self.work += [Work(lambda m=m: self.stay(m)) for m in cluster.members for _ in range(2)]
        self.work += [Work(lambda m=m: self.look_into(m)) for m in cluster.members]

    def write(self, writer):
        """Numbers 1, 2, ..., each as often as it takes. Asked twice, it happens once."""
        session = Session(self.cluster)
        number = 1
        while not self.stopping.is_set():
            statement = f"UPDATE writers SET number = {number} WHERE writer = {writer} AND number = {number - 1}"
            self.sent[writer] = number
            with self.lock:
                self.in_flight += 1
                self.deepest = max(self.deepest, self.in_flight)
            try:
                changed = session.call(lambda c: c.exec(statement))
                assert changed in (0, 1), f"{changed} rows changed"
                with self.lock:
                    self.floor[writer] = max(self.floor[writer], number)
                    self.acknowledged += 1
                number += 1
            except Refused as error:
                assert error.code in (NOT_LEADER, 10506, 12, BUSY, BUSY_RECOVERY), f"a write was answered with {error}"
                self.unknown += error.code == 10506
                time.sleep(0.01)
            except OSError:
                self.unknown += 1
                time.sleep(random.uniform(0.01, 0.1))
            finally:
                with self.lock:
                    self.in_flight -= 1
        session.close()

    def judge(self, rows, floor, where):
        """Whether this is a state that transactions left, with everything in it that was known before it was asked for."""
        found = dict(rows)
        money, total = found.pop(-1), found.pop(-2)
        numbers = [found[writer] for writer in range(WRITERS)]
        assert money == ACCOUNTS * BALANCE, f"{where}: the balances sum up to {money}"
        assert total == sum(numbers), f"{where}: {sum(numbers)} transactions are there, and {total} were counted"
        for writer, (number, least) in enumerate(zip(numbers, floor)):
            assert number >= least, f"{where}: writer {writer} is at {number}, and somebody had seen or was told {least}"
            assert number <= self.sent[writer], f"{where}: writer {writer} is at {number}, which it never sent"
        return numbers

    def known(self):
        with self.lock:
            return list(self.floor)

    def learn(self, numbers):
        with self.lock:
            self.floor = [max(pair) for pair in zip(self.floor, numbers)]

    def stay(self, member):
        """Reads of one node as long as it leads, now and then in a transaction that stays open for a while."""
        client = None
        while not self.stopping.is_set():
            try:
                if client is None:
                    client = Client(member.address, 2.0)
                    if client.leader()[0] != member.id:
                        raise ConnectionError("not the leader")
                    client.open("test.db")
                if random.random() < 0.2:
                    self.read_twice(client, member)
                else:
                    floor = self.known()
                    self.learn(self.judge(client.query(LOOK), floor, f"node {member.id}"))
                self.reads += 1
                time.sleep(random.uniform(0, 0.02))
            except (OSError, Refused):
                if client is not None:
                    client.socket.close()
                client = None
                time.sleep(0.03)
        if client is not None:
            client.socket.close()

    def read_twice(self, client, member):
        client.exec("BEGIN")
        floor = self.known()
        first = self.judge(client.query(LOOK), floor, f"node {member.id}")
        self.learn(first)
        time.sleep(random.uniform(0, 0.2))
        again = self.judge(client.query(LOOK), floor, f"node {member.id}")
        assert first == again, f"node {member.id}: a transaction saw {first} and then {again}"
        client.exec("COMMIT")

    def look_into(self, member):
        """The committed state of a node, whether it leads or not. Followers lag, but show nothing that goes away again."""
        before = [0] * WRITERS
        process = None
        while not self.stopping.is_set():
            time.sleep(random.uniform(0.05, 0.3))
            if member.process is not process:
                # A node that starts again begins with its snapshot.
                before, process = [0] * WRITERS, member.process
            try:
                with Client(member.address, 2.0) as client:
                    image = bytearray(client.dump("test.db")["test.db"])
            except (OSError, Refused):
                continue
            # A database in memory has no WAL.
            image[18:20] = b"\1\1"
            with contextlib.closing(sqlite3.connect(":memory:")) as database:
                database.deserialize(bytes(image))
                if not database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'counted'").fetchall():
                    continue
                rows = database.execute(LOOK).fetchall()
            if member.process is process:
                before = self.judge(rows, before, f"the database of node {member.id}")
                self.learn(before)
                self.looks += 1

    def progress(self):
        """Waits until every writer was acknowledged something."""
        before = self.known()

        def more():
            self.check()
            return all(now > then + 1 for now, then in zip(self.known(), before))

        wait_for(lambda: f"every writer to go on; from {before}, at {self.known()}", more, PROGRESS_S)

    def check(self):
        for work in self.work:
            if work.error is not None:
                raise work.error

    def finish(self):
        self.stopping.set()
        for work in self.work:
            work.finish()
        self.judge(self.cluster.query(LOOK), self.known(), "at the end")


def strike(cluster, kind):
    leader = cluster.leader()
    others = [member for member in cluster.members if member is not leader]
    match kind:
        case "kill":
            leader.kill()
            time.sleep(random.uniform(0, 0.5))
            leader.start(OURS)
        case "stop":
            leader.stop()
            leader.start(OURS)
        case "pause":
            leader.pause()
            time.sleep(random.uniform(0.2, 1.5))
            leader.resume()
        case "transfer":
            with contextlib.suppress(OSError, Refused), Client(leader.address, 5.0) as client:
                client.transfer(random.choice(others).id)
        case "kill all":
            for member in random.sample(cluster.members, len(cluster.members)):
                member.kill()
            for member in cluster.members:
                member.start(OURS)
        case "isolate":
            # It goes on executing, and nothing of that may be answered.
            cluster.network.cut(both_ways([leader.id], [member.id for member in others]))
            time.sleep(random.uniform(0.05, 1.5))
            cluster.network.heal()


def main(directory, where, nodes, rounds, seed):
    random.seed(seed)
    network = {"loopback": Loopback, "namespaces": Namespaces}[where]()
    kinds = ["kill", "transfer", "pause", "transfer", "stop", "kill all"] + ["isolate"] * 2 * network.can_cut
    kinds = [kinds[i % len(kinds)] for i in range(rounds or len(kinds))]
    random.shuffle(kinds)
    with Cluster(directory, latency_ms=20, threshold=100, trailing=100, network=network).form([OURS] * nodes) as cluster:
        bank = Bank(cluster)
        bank.progress()
        for kind in kinds:
            strike(cluster, kind)
            bank.progress()
        bank.finish()
        cluster.converge()
    print(
        f"faults: {nodes} nodes, {where}, {len(kinds)} faults of leaders under up to {bank.deepest} writes in flight; {bank.acknowledged}"
        f" acknowledged transactions, none missing; {bank.unknown} without outcome; {bank.reads} reads and"
        f" {bank.looks} looks into databases, no unpublished row",
        flush=True,
    )


main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
