"""Clusters of processes under load while nodes are killed, paused and cut off from each other.

    faults.py DIRECTORY loopback|namespaces NODES KILLS PAUSES PARTITIONS SEED

KILLS counts those of the leader; all other kinds that are possible there come once. A count of 0 stands for one fault of
each kind, and without kills all is short. Checked for every fault (clients.py): no acknowledged write is lost, no read is stale, the histories of registers
are linearizable; where a majority is connected, writes go on during the fault; and afterwards the cluster is whole
again: every writer goes on and all nodes hold the same database.
"""

import os
import random
import statistics
import sys
import time
from collections import defaultdict

from clients import PROGRESS_S, Load, Registers
from cluster import OURS, Client, Cluster, Refused
from history import check_itself
from network import CLIENTS, Loopback, Namespaces, both_ways, one_way

KILLS = ["kill -9 the leader"]
PAUSES = ["pause the leader", "pause a follower", "pause a majority"]
PARTITIONS = [
    "isolate the leader from its peers",
    "isolate the leader from everybody",
    "split off a minority with the leader",
    "nobody hears the leader",
    "the leader hears nobody",
    "isolate a follower",
    "nobody hears a follower",
    "a follower hears nobody",
    "cut the leader from one follower",
    "cut two followers from each other",
    "everybody is alone",
    "unplug the leader",
    "pause the leader and isolate it",
    "isolate one leader after the other",
    "the leader's link flaps",
    "the leader's link is slow and loses",
]
OTHERS = [
    "stop the leader",
    "kill -9 followers",
    "kill -9 a minority",
    "kill -9 all",
    "kill -9 a majority",
]


class Faults:
    def __init__(self, cluster, short):
        self.cluster = cluster
        self.network = cluster.network
        self.short = short
        self.markers = 0

    def followers(self):
        leader = self.cluster.leader()
        return [member for member in self.cluster.members if member is not leader]

    def minority(self):
        return (len(self.cluster.members) - 1) // 2

    def write(self, limit_s=PROGRESS_S):
        """Seconds until any node acknowledges a write that was sent after the call."""
        self.markers += 1
        begin = time.monotonic()
        timeout_s = 0.3
        while time.monotonic() < begin + limit_s:
            for member in filter(lambda m: m.running(), self.cluster.members):
                try:
                    with Client(member.address, timeout_s) as client:
                        client.open("test.db")
                        client.exec(f"INSERT OR IGNORE INTO marks VALUES ({self.markers})")
                        return time.monotonic() - begin
                except (OSError, Refused):
                    continue
            timeout_s = min(timeout_s * 1.5, 5.0)
            time.sleep(0.01)
        raise AssertionError(f"no write for {limit_s} s")

    def restart(self, members, end):
        """Sometimes before the others have noticed, sometimes after they went on; then the seconds until a write."""
        for member in members:
            end(member)
        writes = None
        if len(members) <= self.minority() and random.random() < 0.5:
            writes = self.write()
        time.sleep(random.uniform(0, 0.5))
        for member in members:
            member.start(OURS)
        return writes

    def pause(self, members):
        """Seconds without writes, if others can go on."""
        for member in members:
            member.pause()
        try:
            writes = self.write() if len(members) <= self.minority() else None
            time.sleep(random.uniform(0, 1.5 if self.short else random.choice([1.5, 4])))
            return writes
        finally:
            for member in members:
                member.resume()

    def cut(self, ways, seconds, writable=True):
        """Seconds without writes, if a majority can go on. What is cut stays so for a while after that."""
        self.network.cut(ways)
        try:
            writes = self.write() if writable else None
            time.sleep(seconds)
            return writes
        finally:
            self.network.heal()

    def strike(self, kind):
        members = self.cluster.members
        leader = self.cluster.leader()
        minority = self.minority()
        match kind:
            case "kill -9 the leader":
                return self.restart([leader], lambda m: m.kill())
            case "stop the leader":
                return self.restart([leader], lambda m: m.stop())
            case "kill -9 a minority":
                return self.restart([leader, *self.followers()][:minority], lambda m: m.kill())
            case "kill -9 followers":
                return self.restart(random.sample(self.followers(), minority), lambda m: m.kill())
            case "kill -9 a majority":
                return self.restart(random.sample(members, minority + 1), lambda m: m.kill())
            case "kill -9 all":
                return self.restart(members, lambda m: m.kill())
            case "pause the leader":
                return self.pause([leader])
            case "pause a follower":
                return self.pause(self.followers()[:1])
            case "pause a majority":
                return self.pause(random.sample(members, minority + 1))
        return self.partition(kind, leader, self.followers())

    def partition(self, kind, leader, followers):
        random.shuffle(followers)
        ids = [member.id for member in self.cluster.members]
        others = [member.id for member in followers]
        one, *rest = others
        without_one = [id for id in ids if id != one]
        # Beyond ten seconds the kernel has given up connections.
        seconds = random.uniform(0, 1.5) if self.short else random.choice([random.uniform(0, 3), random.uniform(3, 14)])
        match kind:
            case "isolate the leader from its peers":
                return self.cut(both_ways([leader.id], others), seconds)
            case "isolate the leader from everybody":
                return self.cut(both_ways([leader.id], [*others, CLIENTS]), seconds)
            case "split off a minority with the leader":
                few = [leader.id, *others[: self.minority() - 1]]
                return self.cut(both_ways(few, [id for id in ids if id not in few]), seconds)
            case "nobody hears the leader":
                return self.cut(one_way([leader.id], others), seconds)
            case "the leader hears nobody":
                return self.cut(one_way(others, [leader.id]), seconds)
            case "isolate a follower":
                return self.cut(both_ways([one], without_one), seconds)
            case "nobody hears a follower":
                return self.cut(one_way([one], without_one), seconds)
            case "a follower hears nobody":
                return self.cut(one_way(without_one, [one]), seconds)
            case "cut the leader from one follower":
                return self.cut(both_ways([leader.id], [one]), seconds)
            case "cut two followers from each other":
                return self.cut(both_ways([one], rest[:1]), seconds)
            case "everybody is alone":
                return self.cut({way for id in ids for way in one_way([id], set(ids) - {id})}, seconds, False)
        return self.link(kind, leader, others, seconds)

    def link(self, kind, leader, others, seconds):
        match kind:
            case "unplug the leader":
                return self.unplug(leader, seconds)
            case "pause the leader and isolate it":
                return self.pause_and_isolate(leader, others, seconds)
            case "isolate one leader after the other":
                longest = 0
                for _ in range(3):
                    isolated = self.cluster.leader().id
                    peers = [member.id for member in self.cluster.members if member.id != isolated]
                    longest = max(longest, self.cut(both_ways([isolated], peers), random.uniform(0, 0.5)))
                return longest
            case "the leader's link flaps":
                peers = both_ways([leader.id], others)
                for _ in range(10):
                    self.network.cut(peers)
                    time.sleep(random.uniform(0, 0.3))
                    self.network.heal()
                    time.sleep(random.uniform(0, 0.3))
                return None
            case "the leader's link is slow and loses":
                self.network.squeeze(leader.id)
                try:
                    writes = self.write()
                    time.sleep(seconds)
                    return writes
                finally:
                    self.network.release(leader.id)
        raise AssertionError(f"no such fault: {kind}")

    def pause_and_isolate(self, leader, others, seconds):
        """When the leader goes on nobody tells it that it was deposed, and clients have asked it meanwhile."""
        leader.pause()
        try:
            self.network.cut(both_ways([leader.id], others))
            writes = self.write()
            time.sleep(random.uniform(0.2, 1))
        finally:
            leader.resume()
        time.sleep(seconds)
        self.network.heal()
        return writes

    def unplug(self, leader, seconds):
        self.network.plug(leader.id, "down")
        try:
            writes = self.write()
            time.sleep(seconds)
            return writes
        finally:
            self.network.plug(leader.id, "up")


def plan(network, kills, pauses, partitions):
    """The kinds of faults in order. FAULT_ONLY, a part of a kind's name, leaves out all others."""

    def some(kinds, count):
        return [kinds[i % len(kinds)] for i in range(count or len(kinds))]

    kinds = some(KILLS, kills) + some(PAUSES, pauses) + OTHERS
    if network.can_cut:
        kinds += some(random.sample(PARTITIONS, len(PARTITIONS)), partitions)
    random.shuffle(kinds)
    only = os.environ.get("FAULT_ONLY", "")
    return [kind for kind in kinds if only in kind]


class Times:
    """How long things took, by kind of fault."""

    def __init__(self):
        self.writes, self.whole = defaultdict(list), defaultdict(list)

    def note(self, kind, writes, whole):
        self.whole[kind].append(whole)
        if writes is not None:
            self.writes[kind].append(writes)

    def show(self):
        print(f"{'seconds: median and longest':40}{'count':>6}{'until a write':>18}{'until whole again':>20}")
        for kind, whole in sorted(self.whole.items()):
            writes = self.writes[kind]
            during = f"{statistics.median(writes):.2f} {max(writes):7.2f}" if writes else ""
            again = f"{statistics.median(whole):.2f} {max(whole):7.2f}"
            print(f"{kind:40}{len(whole):6}{during:>18}{again:>20}")


def whole_again(faults, load, registers):
    """Waits until writes go on and all nodes hold the same, and checks what they hold. The seconds until the first write,
    and until all of that; that clients had to end in between does not count."""
    begin = time.monotonic()
    write = faults.write()
    load.progress()
    whole = time.monotonic() - begin
    registers.stop()
    with load.held():
        begin = time.monotonic()
        faults.cluster.converge()
        whole += time.monotonic() - begin
        load.count()
    return write, whole


def main(directory, where, nodes, kills, pauses, partitions, seed):
    random.seed(seed)
    network = {"loopback": Loopback, "namespaces": Namespaces}[where]()
    times = Times()
    operations = 0
    with Cluster(directory, latency_ms=20, threshold=100, trailing=100, network=network).form([OURS] * nodes) as cluster:
        cluster.exec("CREATE TABLE IF NOT EXISTS log (writer INTEGER, number INTEGER, PRIMARY KEY (writer, number))")
        cluster.exec("CREATE TABLE IF NOT EXISTS counter (n INTEGER)")
        cluster.exec("CREATE TABLE IF NOT EXISTS registers (k INTEGER PRIMARY KEY, v INTEGER)")
        cluster.exec("CREATE TABLE IF NOT EXISTS marks (n INTEGER PRIMARY KEY)")
        cluster.exec("INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM counter)")
        faults, load = Faults(cluster, kills == 0), Load(cluster)
        load.progress()
        kinds = plan(network, kills, pauses, partitions)
        for number, kind in enumerate(kinds):
            registers = Registers(cluster, number)
            time.sleep(random.uniform(0.2, 0.8))
            begin = time.monotonic()
            writes = faults.strike(kind)
            took = time.monotonic() - begin
            first, whole = whole_again(faults, load, registers)
            checked = registers.check(directory)
            operations += checked
            times.note(kind, writes, whole)
            during = "" if writes is None else f", writes after {writes:.2f} s"
            print(
                f"{nodes} nodes, {number + 1} of {len(kinds)}: {kind} for {took:.1f} s{during}; then a write after"
                f" {first:.2f} s, whole after {whole:.2f} s; {checked} operations linearizable",
                flush=True,
            )
        load.finish()
        cluster.exec("INSERT OR IGNORE INTO log VALUES (-1, 0)")
        cluster.converge()
    times.show()
    print(
        f"faults: {nodes} nodes, {where}, {len(kinds)} faults, {sum(load.acknowledged)} acknowledged rows and"
        f" {len(load.claims)} compare-and-sets, none missing; {load.reads} reads, none stale; {load.unknown} requests"
        f" without answer; {operations} operations on registers, linearizable",
        flush=True,
    )


check_itself()
main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
