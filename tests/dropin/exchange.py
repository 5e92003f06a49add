"""Data directories that go from one library to the other and back, after every kind of stop.

    exchange.py DIRECTORY STOP...

Each stop is tried ours -> C -> ours and C -> ours -> C: a node writes, is stopped like this, and starts with the other
library, which must have every row, writes more, and is stopped the same way. All rows are compared with plain SQLite's,
those of unfinished writes with what was acknowledged; where nobody writes at the stop, also every page with what it was.
"""

import fnmatch
import glob
import os
import sqlite3
import subprocess
import sys
import time

from cluster import C, LIBRARIES, OURS, Client, Cluster, Refused, Session, Work, content, text, wait_for, word

TURNS, WRITERS, LOAD_S, DISK_MB = 3, 8, 0.3, 96
LZ4_MAGIC = bytes.fromhex("04224d18")


class Rows:
    """What must be in a directory."""

    def __init__(self):
        self.plain = sqlite3.connect(":memory:", isolation_level=None)
        # Of those that write while the node is stopped: numbers that were acknowledged, and that were tried.
        self.acknowledged, self.tried = set(), set()
        self.content = None

    def write(self, cluster, turn):
        self.files_before = set(os.listdir(cluster.members[0].directory))
        statements = ["CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, turn INTEGER, number REAL, data BLOB)"]
        statements += ["CREATE TABLE IF NOT EXISTS w (number INTEGER PRIMARY KEY, text TEXT)"]
        for round in range(12):
            values = f"({turn}, {round}.5, zeroblob(5000)), ({turn}, NULL, x'00ff')"
            statements.append(f"INSERT INTO t (turn, number, data) VALUES {values}")
            statements.append(f"UPDATE t SET number = number + 1 WHERE turn = {turn}")
            statements.append(f"DELETE FROM t WHERE id = (SELECT min(id) FROM t WHERE turn = {turn} AND number IS NULL)")
        statements.append("CREATE INDEX IF NOT EXISTS t_number ON t (turn, number)")
        with Client(cluster.leader().address) as client:
            client.open("test.db")
            for sql in statements:
                client.exec(sql)
                self.plain.execute(sql)

    def write_concurrently(self, writer, cluster, done):
        """Until the node is gone, or refuses. Returns how the last attempt ended."""
        session = Session(cluster, 5.0)
        for number in range(writer, 1 << 40, WRITERS):
            if number in self.tried:
                continue
            self.tried.add(number)
            try:
                session.call(lambda c: c.exec(f"INSERT INTO w VALUES ({number}, 'w{number}')"))
                self.acknowledged.add(number)
            except (OSError, Refused):
                if done():
                    return

    def check(self, cluster):
        sql = "SELECT id, turn, number, data FROM t ORDER BY id"
        assert cluster.query(sql) == self.plain.execute(sql).fetchall(), "rows differ from plain SQLite's"
        found = cluster.query("SELECT number, text FROM w")
        assert all(row == (row[0], f"w{row[0]}") for row in found), "a row is damaged"
        found = {number for number, _ in found}
        assert self.acknowledged <= found, f"lost: {sorted(self.acknowledged - found)[:10]}"
        assert found <= self.tried, f"never written or given up: {sorted(found - self.tried)[:10]}"
        # What was in doubt is settled now.
        self.acknowledged, self.tried = set(found), set(found)
        with Client(cluster.leader().address) as client:
            now = content(client.dump("test.db"))
        assert now[0] == [("ok",)], now[0]
        assert self.content in (None, now), "the stop changed a page"

    def remember(self, cluster):
        with Client(cluster.leader().address) as client:
            self.content = content(client.dump("test.db"))


def quietly(stop):
    """A stop while nobody writes."""

    def run(cluster, member, rows):
        rows.remember(cluster)
        stop(cluster, member)

    return run


def stop_cleanly(_, member):
    member.stop()


def kill(_, member):
    member.kill()


def kill_under_writers(cluster, member, rows):
    rows.content = None
    work = [Work(lambda i=i: rows.write_concurrently(i, cluster, lambda: True)) for i in range(WRITERS)]
    goal = len(rows.acknowledged) + 3 * WRITERS
    wait_for("writes", lambda: len(rows.acknowledged) > goal)
    time.sleep(LOAD_S)
    member.kill()
    for each in work:
        each.finish()


def kill_on_a_full_disk(cluster, member, rows):
    rows.content = None
    cluster.exec("CREATE TABLE IF NOT EXISTS pad (payload BLOB)")
    pad = "DELETE FROM pad; INSERT INTO pad VALUES (randomblob(30000));"
    cluster.exec(f"CREATE TRIGGER IF NOT EXISTS long AFTER INSERT ON w BEGIN {pad} END")
    foreign, refusals = os.path.join(member.directory, "foreign"), []
    done = lambda: refusals.append(1) or len(refusals) > 4 * WRITERS
    work = [Work(lambda i=i: rows.write_concurrently(i, cluster, done)) for i in range(WRITERS)]
    # Also takes what the node has prepared and gives back, until nobody can write.
    while any(each.is_alive() for each in work):
        with open(foreign, "ab", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass
        time.sleep(0.05)
    for each in work:
        each.finish()
    member.kill()
    os.remove(foreign)


def recover(tool):
    def run(_, member):
        member.kill()
        before = sorted(os.listdir(member.directory))
        command = [os.environ["RECOVER"], member.directory, member.address]
        if tool == "program":
            command = [os.environ["PROGRAM"], "recover", "--from", member.directory]
            command += ["--server", f"1@{member.address}", "--yes"]
        environment = dict(os.environ, LD_LIBRARY_PATH=LIBRARIES.get(tool, ""))
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert sorted(os.listdir(member.directory)) != before, "nothing was recovered"

    return quietly(run)


def snapshots(is_compressed, stop):
    def run(cluster, member, rows):
        def new():
            """How the newest snapshot of this process begins. Others come and go meanwhile."""
            metas = fnmatch.filter(set(os.listdir(member.directory)) - rows.files_before, "snapshot-*.meta")
            try:
                with open(os.path.join(member.directory, metas[0].removesuffix(".meta")), "rb") as file:
                    return file.read(4)
            except (IndexError, FileNotFoundError):
                return None

        with open(os.path.join(LIBRARIES[member.library], "libdqlite.so.0"), "rb") as file:
            can_choose = b"dqlite_node_set_snapshot_compression" in file.read()
        magic = wait_for("a snapshot", new)
        assert (magic == LZ4_MAGIC) == (is_compressed or not can_choose), "snapshots are not as asked for"
        quietly(stop)(cluster, member, rows)

    return run


# By name: how a node is stopped, and settings of c-tests/member.c behind the latency.
STOPS = {
    "clean": (quietly(stop_cleanly), ()),
    "killed-idle": (quietly(kill), ()),
    "killed-under-writers": (kill_under_writers, ()),
    "killed-with-snapshots-under-writers": (kill_under_writers, (16, 16)),
    "killed-on-a-full-disk": (kill_on_a_full_disk, (200, 200)),
    "lz4-snapshots-clean": (snapshots(True, stop_cleanly), (16, 16, "lz4")),
    "lz4-snapshots-killed": (snapshots(True, kill), (16, 16, "lz4")),
    "raw-snapshots-clean": (snapshots(False, stop_cleanly), (16, 16, "raw")),
    "raw-snapshots-killed": (snapshots(False, kill), (16, 16, "raw")),
    "recovered-by-ours": (recover(OURS), ()),
    "recovered-by-C": (recover(C), ()),
    "recovered-by-program": (recover("program"), (16, 16)),
}


def round_trip(directory, name, libraries):
    stop, settings = STOPS[name]
    with Cluster(directory) as cluster:
        cluster.settings = (20, *settings)
        if stop is kill_on_a_full_disk:
            disk = os.path.join(cluster.directory, "node1")
            os.mkdir(disk)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", disk], check=True)
        member, rows = cluster.join(libraries[0]), Rows()
        rows.write(cluster, 0)
        for turn in range(1, TURNS + 1):
            stop(cluster, member, rows)
            member.start(libraries[turn % 2])
            rows.check(cluster)
            rows.write(cluster, turn)
        member.stop()


def round_trip_of_a_truncated_log(directory, _, libraries):
    """Node 1 leads, stores an entry that nobody else has, and is killed. The others go on, and node 1 gives its entry up;
    then everybody is killed and starts with the other library."""
    with Cluster(directory, latency_ms=40).form([libraries[0]] * 3) as cluster:
        old, *others = cluster.members
        rows = Rows()
        rows.write(cluster, 0)
        for turn in range(1, TURNS + 1):
            cluster.lead(old)
            mark = f"given up in turn {turn}".encode()
            with Client(old.address) as client:
                client.open("test.db")
                for member in others:
                    member.kill()
                client.send(8, word(0) + text(f"INSERT INTO w VALUES ({-turn}, '{mark.decode()}')"))
                wait_for("the entry on the disk", lambda: in_log(old, mark))
            old.kill()
            for member in others:
                member.start(member.library)
            rows.write(cluster, turn)
            old.start(old.library)
            cluster.converge()
            assert not in_log(old, mark), "the entry is still in the log"
            for member in cluster.members:
                member.kill()
            for member in cluster.members:
                member.start(libraries[turn % 2])
            rows.check(cluster)
            cluster.converge()


def in_log(member, mark):
    for path in glob.glob(os.path.join(member.directory, "[o0]*")):
        try:
            with open(path, "rb") as file:
                if mark in file.read():
                    return True
        except FileNotFoundError:
            pass
    return False


def main(directory, *names):
    for name in names:
        start = time.monotonic()
        trip = round_trip_of_a_truncated_log if name == "truncated" else round_trip
        for libraries in ((OURS, C), (C, OURS)):
            trip(directory, name, libraries)
        print(f"exchange: {name}: both ways and back: ok ({time.monotonic() - start:.1f} s)", flush=True)


main(*sys.argv[1:])
