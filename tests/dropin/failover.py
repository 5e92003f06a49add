"""How long writes stop when a leader is killed, paused or asked to hand over: our library beside Debian's.

    failover.py DIRECTORY ROUNDS PATTERN...

A case is LIBRARIES/EVENT/SETTINGS, for example C+ours+ours/kill/10ms: three voters, of which one with the first library
leads, which then gets SIGKILL, at a network latency of 10 ms. Patterns such as "ours/*/10ms" choose among the cases.
They take turns in every round, so that whatever else the machine does hits all of them.

Measured is the time from the event to the next acknowledged write; for a transfer the longest time between two
acknowledgements, of a client that keeps writing. The client knows all nodes, stays with the leader, and learns of a
new one by asking all nodes at once. It gives a request up after ANSWER_S, the next after twice that time, and so on.

Prints a table, and whether our library keeps the limits below. Exit code 1 if it does not, or if a write was lost.
"""

import collections
import contextlib
import fnmatch
import math
import random
import statistics
import sys
import threading
import time

from cluster import BUSY, OURS, C, Client, Cluster, Refused, Work, wait_for

ANSWER_S, ANSWER_S_MAX = 0.1, 2.0
# What a node said about itself is believed for this long. Less than a request takes to be given up.
FRESH_S = 0.05
ROUND_S_MAX = 60
# Acknowledged writes before and after a transfer that belong to its measurement.
TRANSFER_WRITES = 20
NOT_LEADER = 10250
# The middle of 30 random timeouts scatters by this much between runs of one and the same library.
SCATTER = 1.15

SETTINGS = {"default": 0, "10ms": 10}
EVENTS = ("kill", "pause", "transfer")
CLUSTERS = ([OURS] * 3, [C] * 3, [OURS, OURS, C], [C, OURS, OURS], [OURS, C, C], [C, C, OURS])


class Case:
    def __init__(self, libraries, event, setting):
        self.libraries, self.event, self.setting = libraries, event, setting
        one_kind = len(set(libraries)) == 1
        self.name = f"{libraries[0] if one_kind else '+'.join(libraries)}/{event}/{setting}"
        # These wait for seconds until an election timeout has passed, side by side, since nobody works meanwhile.
        waits = event == "pause" or (event == "kill" and libraries.count(C) > (libraries[0] == C))
        self.slow = setting == "default" and waits
        self.times_ms = []
        self.errors = collections.Counter()

    def refused(self):
        return sum(count for error, count in self.errors.items() if error.startswith(f"{NOT_LEADER}:"))

    def failed(self):
        return self.errors.total() - self.refused()

    def median(self):
        return statistics.median(self.times_ms)

    def line(self, beside):
        ordered = sorted(self.times_ms)
        p90 = ordered[math.ceil(0.9 * len(ordered)) - 1]
        ratio = f"{self.median() / beside.median():8.2f}" if beside else "       -"
        times = "".join(f"{each:9.1f}" for each in (ordered[0], self.median(), p90, ordered[-1]))
        return f"{self.name:30}{len(ordered):7}{times}{ratio}{self.refused():9}{self.failed():8}"


class Watch(threading.Thread):
    """Asks one node again and again whether it leads. A node that does not answer holds up nobody else."""

    def __init__(self, member, period_s):
        super().__init__(daemon=True)
        self.member, self.period_s = member, period_s
        self.led_at = -math.inf
        self.stopping = False
        self.start()

    def run(self):
        while not self.stopping:
            with contextlib.suppress(OSError, Refused), Client(self.member.address, ROUND_S_MAX) as client:
                while not self.stopping:
                    asked_at = time.monotonic()
                    if client.leader()[0] == self.member.id:
                        self.led_at = asked_at
                    time.sleep(self.period_s)
            self.led_at = -math.inf
            time.sleep(self.period_s)


class Writer:
    """The client."""

    def __init__(self, members, period_s):
        self.watches = [Watch(member, period_s) for member in members]
        self.period_s = period_s
        self.client, self.leader = None, None
        self.answer_s = ANSWER_S
        self.errors = collections.Counter()

    def newest(self):
        """Of the node that said last that it leads."""
        return max(self.watches, key=lambda watch: watch.led_at)

    def attempt(self, number):
        """Whether it was acknowledged."""
        try:
            if self.client is None:
                newest = self.newest()
                if newest.led_at < time.monotonic() - FRESH_S:
                    time.sleep(self.period_s)
                    return False
                self.leader = newest.member
                self.client = Client(self.leader.address, self.answer_s)
                self.client.open("test.db")
            self.client.exec(f"INSERT OR IGNORE INTO t VALUES ({number})")
            self.answer_s = ANSWER_S
            return True
        except (OSError, Refused) as error:
            self.errors[str(error)] += 1
            if isinstance(error, TimeoutError):
                self.answer_s = min(2 * self.answer_s, ANSWER_S_MAX)
            if not (isinstance(error, Refused) and error.code == BUSY):
                self.disconnect()
            # Who said that it led is asked again.
            time.sleep(self.period_s)
            return False

    def write(self, number):
        end = time.monotonic() + ROUND_S_MAX
        while not self.attempt(number):
            assert time.monotonic() < end, f"no write for {ROUND_S_MAX} s"

    def disconnect(self):
        if self.client is not None:
            self.client.socket.close()
            self.client = None

    def close(self):
        self.disconnect()
        for watch in self.watches:
            watch.stopping = True


class Arena:
    """A cluster and the numbers written to it."""

    def __init__(self, directory, libraries, latency_ms):
        self.cluster = Cluster(directory, latency_ms=latency_ms).form(sorted(libraries))
        self.cluster.exec("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)")
        self.written = 0

    def write(self, writer):
        self.written += 1
        writer.write(self.written)

    def prepare(self, case):
        """All nodes run and are equal, and one with the right library leads. Returns the leader."""
        for member in self.cluster.members:
            if member.process.poll() is not None:
                assert member.library == C, f"node {member.id} crashed, see {member.log}"
                print(f"note: node {member.id} with the C library has crashed, {case.name}", flush=True)
                member.process.stdout.close()
                member.start(C)
        leader = self.cluster.leader()
        if leader.library != case.libraries[0]:
            self.cluster.lead(next(each for each in self.cluster.members if each.library == case.libraries[0]))
            leader = self.cluster.leader()
        self.cluster.converge()
        return leader

    def measure(self, case, period_s):
        leader = self.prepare(case)
        writer = Writer(self.cluster.members, period_s)
        self.write(writer)
        # A random moment between two heartbeats.
        time.sleep(random.uniform(0.3, 0.8))
        if writer.newest().member is not leader:
            # A busy machine has deposed it meanwhile.
            writer.close()
            self.measure(case, period_s)
            return
        writer.errors.clear()
        if case.event == "transfer":
            measured_s = self.transfer(writer, leader)
        else:
            measured_s = self.stop(writer, leader, case.event)
        case.times_ms.append(1000 * measured_s)
        case.errors += writer.errors
        writer.close()

    def stop(self, writer, leader, event):
        begin = time.monotonic()
        leader.kill() if event == "kill" else leader.pause()
        self.write(writer)
        measured_s = time.monotonic() - begin
        leader.start(leader.library) if event == "kill" else leader.resume()
        return measured_s

    def transfer(self, writer, leader):
        others = [member for member in self.cluster.members if member is not leader]
        target = next((member for member in others if member.library != leader.library), others[0])
        acknowledged = []

        def write_some():
            for _ in range(TRANSFER_WRITES):
                self.write(writer)
                acknowledged.append(time.monotonic())

        def transfer():
            try:
                client.transfer(target.id)
            except Refused as error:
                writer.errors[f"TRANSFER: {error}"] += 1

        with Client(leader.address) as client:
            write_some()
            begin = time.monotonic()
            order = Work(transfer)
            wait_for("a transfer", lambda: write_some() or not order.is_alive())
            order.finish()
        return max(late - early for early, late in zip(acknowledged, acknowledged[1:]) if late > begin)

    def check(self):
        """No acknowledged write is lost."""
        rows = {row[0] for row in self.cluster.query("SELECT n FROM t")}
        assert rows == set(range(1, self.written + 1)), f"lost: {set(range(1, self.written + 1)) - rows}"


def turns(cases):
    """The cases of a round, those together that run at the same time: never two in one cluster."""
    together = [[case] for case in cases if not case.slow]
    slow = [case for case in cases if case.slow]
    while slow:
        turn = {}
        for case in slow:
            turn.setdefault(tuple(sorted(case.libraries)), case)
        together.append(list(turn.values()))
        slow = [case for case in slow if case not in turn.values()]
    return together


def run(directory, rounds, setting, cases):
    with contextlib.ExitStack() as stack:
        arenas = {}
        for case in cases:
            key = tuple(sorted(case.libraries))
            if key not in arenas:
                arenas[key] = Arena(directory, case.libraries, SETTINGS[setting])
                stack.enter_context(arenas[key].cluster)
        for number in range(rounds):
            for turn in turns(cases):
                period_s = 0.002 if len(turn) == 1 else 0.01
                started = time.strftime("%H:%M:%S")
                works = [
                    Work(lambda case=case: arenas[tuple(sorted(case.libraries))].measure(case, period_s))
                    for case in turn
                ]
                for work in works:
                    work.finish()
                results = ", ".join(f"{case.name} {case.times_ms[-1]:.0f} ms" for case in turn)
                print(f"{started} round {number + 1} of {rounds}: {results}", flush=True)
        for arena in arenas.values():
            arena.check()


def limits(cases):
    """What is required of our library, as far as it was measured: text, value, limit."""
    by_name = {case.name: case for case in cases}
    for case in cases:
        c = by_name.get(f"C/{case.event}/{case.setting}")
        if case.name == "ours/kill/default":
            yield f"{case.name}: median", case.median(), 300
            yield f"{case.name}: worst", max(case.times_ms), 1000
        if case.name == "ours/kill/10ms":
            yield f"{case.name}: median", case.median(), 150
        if case.name.startswith("ours/transfer/"):
            yield f"{case.name}: median", case.median(), 20
            yield f"{case.name}: failed requests", case.failed(), 0
        if OURS in case.libraries and case.event != "transfer" and c:
            yield f"{case.name}: median, C's with its scatter", case.median(), SCATTER * c.median()


def main(directory, rounds, patterns):
    everything = [Case(libraries, event, setting) for setting in SETTINGS for event in EVENTS for libraries in CLUSTERS]
    cases = [case for case in everything if any(fnmatch.fnmatch(case.name, pattern) for pattern in patterns)]
    assert cases, f"no case is called {patterns}; there are: {' '.join(case.name for case in everything)}"
    for setting in SETTINGS:
        chosen = [case for case in cases if case.setting == setting]
        if chosen:
            run(directory, rounds, setting, chosen)
    header = "".join(f"{each:>9}" for each in ("min ms", "median", "p90", "max"))
    print(f"\n{'first leads/event/settings':30}{'rounds':>7}{header}{'to C':>8}{'refused':>9}{'failed':>8}")
    for case in cases:
        c = next((c for c in cases if c.name == f"C/{case.event}/{case.setting}"), None)
        print(case.line(c))
    print('\nto C: the median beside that of C. refused: requests answered "not leader", which the next one did.')
    print(f"failed: other errors, and requests given up after {1000 * ANSWER_S:.0f} ms.\n")
    for case in cases:
        for error, count in case.errors.items():
            print(f"{case.name:30}{count:7} {error}")
    print()
    kept = True
    for what, value, limit in limits(cases):
        kept &= value <= limit
        print(f"{'kept  ' if value <= limit else 'BROKEN'} {what}: {value:.0f}, limit {limit:.0f}")
    return 0 if kept else 1


sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
