"""The clients of faults.py: writers that count, and clients of registers whose history is checked."""

import contextlib
import itertools
import json
import os
import random
import selectors
import threading
import time

from cluster import BUSY, BUSY_RECOVERY, Client, Refused, Session, Work, wait_for
from history import NEVER, Operation, contradiction

WRITERS = 3
REGISTERS = 5
# Reads sent ahead to nodes that may be paused, and how long their answers are waited for.
AHEAD_MAX, AHEAD_S = 64, 8.0
# Open connections to each node that are kept for such reads, and how often one of them is used.
IDLE_MAX, IDLE_PERIOD_S = 32, 0.1
# Nothing was executed: not the leader, no database open (12), busy.
NOT_DONE = (10250, 12, BUSY, BUSY_RECOVERY)
PROGRESS_S = 90


class Load:
    """Writers of their own rows and of a shared counter, and a reader, from the start to the end."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.stopping = threading.Event()
        self.acknowledged = [0] * WRITERS
        self.trimmed = [0] * WRITERS
        self.unknown = 0
        self.reads = 0
        self.claims = {}
        self.lock = threading.Lock()
        self.turns = [threading.Lock() for _ in range(WRITERS)]
        self.work = [Work(lambda i=i: self.write(i)) for i in range(WRITERS)]
        self.work.append(Work(self.read))

    def write(self, writer):
        """Numbers 1, 2, ... of its own, each as often as it takes; now and then a turn at the shared counter."""
        session = Session(self.cluster)
        number = 1
        while not self.stopping.is_set():
            try:
                with self.turns[writer]:
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
            time.sleep(random.uniform(0, 0.02))
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
        """A read shows everything that was acknowledged before it began, and never less than an earlier read did."""
        seen = [0] * (WRITERS + 1)
        session = Session(self.cluster)
        statement = f"SELECT writer, max(number) FROM log GROUP BY writer UNION ALL SELECT {WRITERS}, n FROM counter"
        while not self.stopping.is_set():
            with self.lock:
                count = len(self.claims)
            floor = [max(pair) for pair in zip(seen, [*self.acknowledged, count])]
            try:
                rows = session.call(lambda c: c.query(statement))
            except (OSError, Refused):
                time.sleep(0.005)
                continue
            found = dict(rows)
            seen = [found.get(i, 0) for i in range(WRITERS + 1)]
            assert all(s >= f for s, f in zip(seen, floor)), f"stale read: {seen}, expected at least {floor}"
            self.reads += 1
            time.sleep(random.uniform(0, 0.02))
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

        wait_for(lambda: f"every writer to go on; from {before}, at {self.acknowledged}", more, PROGRESS_S)

    @contextlib.contextmanager
    def held(self):
        """No writer has a request under way."""
        with contextlib.ExitStack() as stack:
            for turn in self.turns:
                stack.enter_context(turn)
            yield

    def count(self):
        """While held and converged: every acknowledged row is there. Earlier ones are deleted, so that dumps stay small."""
        for writer, acknowledged in enumerate(self.acknowledged):
            trimmed = self.trimmed[writer]
            rows = f"FROM log WHERE writer = {writer} AND number > {trimmed} AND number <= {acknowledged}"
            [(count,)] = self.cluster.query(f"SELECT count(*) {rows}")
            expected = acknowledged - trimmed
            assert count == expected, f"writer {writer}: {count} rows of {expected} acknowledged ones"
            # The newest stays, the readers' floor.
            self.trimmed[writer] = max(acknowledged - 1, 0)
            self.cluster.exec(f"DELETE FROM log WHERE writer = {writer} AND number <= {self.trimmed[writer]}")
        [(counter,)] = self.cluster.query("SELECT n FROM counter")
        assert counter >= len(self.claims), f"the counter is {counter} after {len(self.claims)} increments"

    def finish(self):
        self.stopping.set()
        for work in self.work:
            work.finish()


class Registers:
    """Clients of a few registers, rows of a table, during one fault.

    Two follow the leader; one for each node stays with it as long as it says that it leads; and one sends reads to all
    nodes without waiting for answers, which is what finds a deposed leader that was paused or cut off.
    """

    def __init__(self, cluster, number):
        self.cluster = cluster
        self.keys = [number * REGISTERS + i for i in range(REGISTERS)]
        rows = ", ".join(f"({key}, 0)" for key in self.keys)
        cluster.exec(f"INSERT OR IGNORE INTO registers VALUES {rows}")
        self.operations = {key: [] for key in self.keys}
        self.latest = dict.fromkeys(self.keys, 0)
        self.values = itertools.count(1)
        self.stopping = threading.Event()
        self.work = [Work(lambda i=i: self.follow(f"following {i}")) for i in range(2)]
        self.work += [Work(lambda m=m: self.stay(m)) for m in cluster.members]
        self.work.append(Work(self.read_ahead))

    def note(self, key, operation):
        self.operations[key].append(operation)
        if operation.end != NEVER:
            changed = operation.kind != "read" and operation.done is not False
            self.latest[key] = operation.value if changed else operation.seen or self.latest[key]

    def follow(self, name):
        session = Session(self.cluster, 1.0)
        while not self.stopping.is_set():
            with contextlib.suppress(OSError, Refused):
                session.call(lambda c: self.operate(c, name))
            time.sleep(random.uniform(0, 0.03))
        session.close()

    def stay(self, member):
        client = None
        while not self.stopping.is_set():
            try:
                if client is None:
                    client = Client(member.address, 2.0)
                    if client.leader()[0] != member.id:
                        raise ConnectionError("not the leader")
                    client.open("test.db")
                self.operate(client, f"staying with {member.id}")
                time.sleep(random.uniform(0, 0.03))
            except (OSError, Refused):
                if client is not None:
                    client.socket.close()
                client = None
                time.sleep(0.03)
        if client is not None:
            client.socket.close()

    def operate(self, client, name):
        key = random.choice(self.keys)
        [kind] = random.choices(["read", "write", "cas", "swap"], [4, 2, 3, 1])
        value = None if kind == "read" else next(self.values)
        expected = self.latest[key] if kind == "cas" else None
        begin = time.monotonic()
        asked = Operation(kind, begin, NEVER, expected, value, client=name)
        match kind:
            case "read":
                [(seen,)] = client.query(f"SELECT v FROM registers WHERE k = {key}")
                self.note(key, asked._replace(end=time.monotonic(), seen=seen))
            case "write":
                changed = self.change(client, key, asked, f"UPDATE registers SET v = {value} WHERE k = {key}")
                assert changed == 1, f"a write changed {changed} rows"
                self.note(key, asked._replace(end=time.monotonic()))
            case "cas":
                condition = f"k = {key} AND v = {expected}"
                changed = self.change(client, key, asked, f"UPDATE registers SET v = {value} WHERE {condition}")
                self.note(key, asked._replace(end=time.monotonic(), done=changed == 1))
            case "swap":
                self.swap(client, key, asked)

    def change(self, client, key, asked, statement):
        """The number of rows changed. Without an answer the operation may have happened."""
        try:
            return client.exec(statement)
        except (OSError, Refused) as error:
            if not (isinstance(error, Refused) and error.code in NOT_DONE):
                self.note(key, asked)
            raise

    def swap(self, client, key, asked):
        """In a transaction of several requests. Before COMMIT is sent nothing has happened."""
        try:
            client.exec("BEGIN IMMEDIATE")
            [(seen,)] = client.query(f"SELECT v FROM registers WHERE k = {key}")
            client.exec(f"UPDATE registers SET v = {asked.value} WHERE k = {key}")
        except Refused as error:
            # Busy clients keep their connections, and this one may be inside the transaction.
            raise ConnectionError("the transaction is given up") from error
        asked = asked._replace(seen=seen)
        try:
            client.exec("COMMIT")
        except (OSError, Refused) as error:
            self.note(key, asked)
            raise ConnectionError("the transaction may have happened") from error
        self.note(key, asked._replace(end=time.monotonic()))

    def read_ahead(self):
        """Without waiting for answers: the kernel takes reads also for a node that is paused. Some go on connections of
        their own, and some on connections that were open before, which such a node serves first when it goes on."""
        idle = {member.id: [] for member in self.cluster.members}
        last = dict.fromkeys(idle, 0.0)
        with selectors.DefaultSelector() as waiting:
            while not self.stopping.is_set():
                member, key = random.choice(self.cluster.members), random.choice(self.keys)
                statement = f"SELECT v FROM registers WHERE k = {key}"
                now = time.monotonic()
                with contextlib.suppress(OSError):
                    if idle[member.id] and now > last[member.id] + IDLE_PERIOD_S:
                        last[member.id] = now
                        client, opened = idle[member.id].pop(), True
                        begin = time.monotonic()
                        client.ask(statement)
                        waiting.register(client.socket, selectors.EVENT_READ, (client, opened, member, key, begin))
                    elif len(waiting.get_map()) < AHEAD_MAX:
                        client, opened = Client(member.address, 0.1), False
                        begin = time.monotonic()
                        client.ask_open("test.db")
                        client.ask(statement)
                        waiting.register(client.socket, selectors.EVENT_READ, (client, opened, member, key, begin))
                self.take_answers(waiting, idle)
            while waiting.get_map():
                self.take_answers(waiting, idle)
        for client in itertools.chain(*idle.values()):
            client.socket.close()

    def take_answers(self, waiting, idle):
        for chosen, _ in waiting.select(0.02):
            client, opened, member, key, begin = chosen.data
            waiting.unregister(chosen.fileobj)
            try:
                client.socket.settimeout(2.0)
                if not opened:
                    client.answer_open()
                [(seen,)] = client.answer()
            except (OSError, Refused):
                client.socket.close()
                continue
            name = f"ahead to {member.id}"
            self.note(key, Operation("read", begin, time.monotonic(), seen=seen, client=name))
            if len(idle[member.id]) < IDLE_MAX:
                idle[member.id].append(client)
            else:
                client.socket.close()
        patience_s = 0.5 if self.stopping.is_set() else AHEAD_S
        for chosen in list(waiting.get_map().values()):
            if time.monotonic() > chosen.data[-1] + patience_s:
                waiting.unregister(chosen.fileobj)
                chosen.fileobj.close()

    def stop(self):
        self.stopping.set()
        for work in self.work:
            work.finish()

    def check(self, directory):
        """The number of operations, after all were checked."""
        begin = time.monotonic()
        rows = dict(self.cluster.query(f"SELECT k, v FROM registers WHERE k >= {self.keys[0]}"))
        end = time.monotonic()
        for key, operations in self.operations.items():
            operations.append(Operation("read", begin, end, seen=rows[key], client="at the end"))
            missed = contradiction(operations)
            if missed is not None:
                path = os.path.join(directory, f"register{key}.json")
                with open(path, "w") as file:
                    json.dump([operation._asdict() for operation in operations], file, indent=0)
                first = "\n".join(map(str, missed[:12]))
                raise AssertionError(f"not linearizable: register {key}, all of it in {path}; not explained:\n{first}")
        return sum(map(len, self.operations.values()))
