"""Clusters of processes for the scenarios of this directory: a small client of the protocol, nodes that run
c-tests/member.c with our library or Debian's, and bounded waits."""

import hashlib
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import tempfile
import threading
import time

from network import Loopback

PATIENCE_S = 30
OURS, C = "ours", "C"
LIBRARIES = {OURS: os.environ.get("OUR_LIBRARY_PATH"), C: os.environ.get("C_LIBRARY_PATH")}
VOTER, STANDBY, SPARE = 0, 1, 2
ROWS_DONE, ROWS_PART = 0xFFFFFFFFFFFFFFFF, 0xEEEEEEEEEEEEEEEE
BUSY, BUSY_RECOVERY = 5, 261
# C-raft's trace: of a leader that stored an entry, of a follower whose log is in conflict with the leader's.
STORED, TRUNCATES = "leader: written 1 entries", "log mismatch -> truncate"


class Refused(Exception):
    """The node answered with a failure. The connection stays usable."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


def word(number):
    return struct.pack("<Q", number)


def text(value):
    raw = value.encode() + b"\0"
    return raw + bytes(-len(raw) % 8)


class Reader:
    """Reads the body of a message from front to back."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def word(self):
        self.at += 8
        return struct.unpack_from("<Q", self.body, self.at - 8)[0]

    def bytes(self, size):
        start = self.at
        self.at += size + -size % 8
        return self.body[start : start + size]

    def text(self):
        raw = self.bytes(self.body.index(b"\0", self.at) - self.at + 1)
        return raw[:-1].decode()

    def value(self, code):
        if code == 2:
            return struct.unpack("<d", self.bytes(8))[0]
        if code in (3, 10):
            return self.text()
        if code == 4:
            return self.bytes(self.word())
        number = struct.unpack("<q", self.bytes(8))[0]
        return None if code == 5 else number


class Client:
    """One connection. OSError when it breaks or times out, Refused when the node says no."""

    def __init__(self, address, timeout_s=10.0):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(word(1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def receive_exactly(self, size):
        data = bytearray()
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise ConnectionError("closed by the node")
            data += piece
        return bytes(data)

    def receive(self):
        words, kind = struct.unpack("<IB", self.receive_exactly(8)[:5])
        reader = Reader(self.receive_exactly(words * 8))
        if kind == 0:
            raise Refused(reader.word(), reader.text())
        return kind, reader

    def call(self, kind, body, expected):
        self.send(kind, body)
        return self.expect(expected)

    def send(self, kind, body):
        self.socket.sendall(struct.pack("<IBBH", len(body) // 8, kind, 0, 0) + body)

    def expect(self, expected):
        answered, reader = self.receive()
        if answered != expected:
            raise ConnectionError(f"answer of type {answered} instead of {expected}")
        return reader

    def leader(self):
        """Id and address of the leader, (0, "") if none is known."""
        reader = self.call(0, word(0), 1)
        return reader.word(), reader.text()

    def open(self, name):
        self.ask_open(name)
        self.answer_open()

    def exec(self, sql):
        """The number of rows changed."""
        reader = self.call(8, word(0) + text(sql), 6)
        reader.word()
        return reader.word()

    def query(self, sql):
        self.ask(sql)
        return self.answer()

    # The two halves of open and query, for those who do not wait for the answers.

    def ask_open(self, name):
        self.send(3, text(name) + word(0) + text("volatile"))

    def answer_open(self):
        self.expect(4)

    def ask(self, sql):
        self.send(9, word(0) + text(sql))

    def answer(self):
        return self.rows(self.expect(7))

    def rows(self, reader):
        rows = []
        while True:
            columns = [reader.text() for _ in range(reader.word())]
            while True:
                mark = reader.at
                if (end := reader.word()) in (ROWS_DONE, ROWS_PART):
                    break
                reader.at = mark
                codes = reader.bytes((len(columns) + 15) // 16 * 8)
                row = [codes[i // 2] >> (4 * (i % 2)) & 15 for i in range(len(columns))]
                rows.append(tuple(reader.value(code) for code in row))
            if end == ROWS_DONE:
                return rows
            _, reader = self.receive()

    def add(self, id, address):
        self.call(12, word(id) + text(address), 8)

    def assign(self, id, role):
        self.call(13, word(id) + word(role), 8)

    def remove(self, id):
        self.call(14, word(id), 8)

    def dump(self, name):
        """The files of a database by name."""
        reader = self.call(15, text(name), 9)
        files = {}
        for _ in range(reader.word()):
            file = reader.text()
            files[file] = reader.bytes(reader.word())
        return files

    def servers(self):
        """Role by id."""
        reader = self.call(16, word(1), 3)
        return {id: role for id, _, role in [(reader.word(), reader.text(), reader.word()) for _ in range(reader.word())]}

    def transfer(self, id):
        self.call(17, word(id), 8)


def content(files):
    """What SQLite sees in a dump, whether the WAL is merged into the main file or beside it: its verdict, the hash of
    every page, and the rows."""
    with tempfile.TemporaryDirectory() as directory:
        for name, data in files.items():
            with open(os.path.join(directory, name), "wb") as file:
                file.write(data)
        name = next(name for name in files if not name.endswith("-wal"))
        database = sqlite3.connect(os.path.join(directory, name))
        try:
            check = database.execute("PRAGMA integrity_check").fetchall()
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with open(os.path.join(directory, name), "rb") as file:
                pages = hashlib.sha256(file.read()).hexdigest()
            return check, pages, tuple(database.iterdump())
        finally:
            database.close()


class Member:
    def __init__(self, id, directory, settings, network):
        self.id, self.settings = id, settings
        self.directory = os.path.join(directory, f"node{id}")
        self.log = os.path.join(directory, f"node{id}.log")
        self.address = network.address(id)
        self.command = [*network.command(id), os.environ["MEMBER"]]
        self.process = None
        self.library = None

    def start(self, library):
        self.library = library
        arguments = [*self.command, str(self.id), self.address, self.directory, *map(str, self.settings)]
        environment = dict(os.environ, LD_LIBRARY_PATH=LIBRARIES[library])
        with open(self.log, "ab") as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=log)
        if self.process.stdout.readline() != b"ready\n":
            raise AssertionError(f"node {self.id} with {library} did not start, see {self.log}")
        with open(f"/proc/{self.process.pid}/maps") as maps:
            assert os.path.realpath(LIBRARIES[library] + "/libdqlite.so.0") in maps.read(), "the wrong library"

    def running(self):
        return self.process is not None

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()
        self.process = None

    def stop(self):
        self.process.terminate()
        status = self.process.wait(PATIENCE_S)
        self.process.stdout.close()
        self.process = None
        if self.library == C and status in (-signal.SIGABRT, -signal.SIGSEGV) and self.stopped_in_truncation():
            print(f"note: node {self.id} with the C library crashed: it was stopped in a truncation", flush=True)
            return
        assert status == 0, f"node {self.id} with {self.library} ended with {status}, see {self.log}"

    def stopped_in_truncation(self):
        """Whether the C library was told to stop while a thread of it truncated the log: C-raft before 0.17.1 then
        frees what that thread works with (docs/ARCHITECTURE.md, section 11). Known only with C-raft's trace: while it
        truncates it completes no write."""
        truncating = False
        for line in self.trace():
            if TRUNCATES in line:
                truncating = True
            elif "I/O completed on follower: status 0" in line:
                truncating = False
            elif "new_state:0" in line:
                return truncating
        return False

    def traced(self, what):
        return sum(what in line for line in self.trace())

    def trace(self):
        """What was logged since the node started."""
        with open(self.log, "rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace").splitlines()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)


class Cluster:
    """Nodes 1, 2, ... all voters once `form` returns."""

    def __init__(self, directory, latency_ms=20, threshold=0, trailing=0, network=None):
        self.directory = tempfile.mkdtemp(dir=directory)
        self.settings = (latency_ms, threshold, trailing)
        self.network = network or Loopback()
        self.members = []
        self.databases = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for member in self.members:
            if member.running():
                member.kill()

    def form(self, libraries):
        for library in libraries:
            self.join(library)
        return self

    def join(self, library, role=VOTER):
        member = Member(len(self.members) + 1, self.directory, self.settings, self.network)
        member.start(library)
        self.members.append(member)
        if member.id > 1:
            self.add(member, role)
        return member

    def add(self, member, role=VOTER):
        def once(client):
            servers = client.servers()
            if member.id not in servers:
                client.add(member.id, member.address)
            if role != SPARE and servers.get(member.id, SPARE) != role:
                client.assign(member.id, role)

        self.on_leader(once)

    def member(self, id):
        return next(member for member in self.members if member.id == id)

    def find_leader(self, timeout_s=2.0):
        """The member that leads, as a running member says and as it confirms itself; None if there is none."""
        for member in self.members:
            if not member.running():
                continue
            try:
                with Client(member.address, timeout_s) as client:
                    id, address = client.leader()
                    if id == 0:
                        continue
                leader = self.member(id)
                if leader.running():
                    with Client(address, timeout_s) as client:
                        if client.leader()[0] == id:
                            return leader
            except (OSError, Refused):
                continue
        return None

    def leader(self):
        return wait_for("a leader", self.find_leader)

    def on_leader(self, request, timeout_s=PATIENCE_S, database="test.db"):
        """Tries until the leader has done it. Only for what may be done twice."""
        last = [None]
        self.databases.add(database)

        def attempt():
            leader = self.find_leader()
            if leader is None:
                return None
            try:
                with Client(leader.address, timeout_s) as client:
                    client.open(database)
                    return (request(client),)
            except (OSError, Refused) as error:
                last[0] = error
                return None

        return wait_for(lambda: f"a leader that does it; last: {last[0]!r}", attempt, timeout_s)[0]

    def exec(self, sql, database="test.db"):
        return self.on_leader(lambda client: client.exec(sql), database=database)

    def query(self, sql, database="test.db"):
        return self.on_leader(lambda client: client.query(sql), database=database)

    def lead(self, member):
        """Moves leadership to a member."""

        def once(client):
            if client.leader()[0] != member.id:
                client.transfer(member.id)

        wait_for(f"node {member.id} to lead", lambda: self.on_leader(once) or self.find_leader() is member)

    def converge(self, seconds=PATIENCE_S):
        """Waits until all running members hold the same databases, and returns the content of test.db."""

        def contents(member):
            with Client(member.address) as client:
                return {name: content(client.dump(name)) for name in self.databases}

        def equal():
            try:
                first, *others = [contents(member) for member in self.members if member.running()]
            except (OSError, Refused, sqlite3.Error):
                return None
            return first if all(each == first for each in others) else None

        equal_contents = wait_for("equal databases", equal, seconds)
        for name, (check, *_) in equal_contents.items():
            assert check == [("ok",)], f"{name}: {check}"
        return equal_contents["test.db"]


def wait_for(what, condition, seconds=PATIENCE_S):
    """The first true value of the condition."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for " + (what() if callable(what) else what))
        time.sleep(0.01)


class Session:
    """A client that stays with the leader and looks for the new one when it has to. Not shared by threads."""

    def __init__(self, cluster, timeout_s=2.0, database="test.db"):
        self.cluster, self.timeout_s, self.database = cluster, timeout_s, database
        cluster.databases.add(database)
        self.client = None

    def call(self, request):
        """Raises what went wrong; the next call starts over with the leader of then."""
        try:
            if self.client is None:
                leader = self.cluster.find_leader(self.timeout_s)
                if leader is None:
                    raise ConnectionError("no leader")
                self.client = Client(leader.address, self.timeout_s)
                self.client.open(self.database)
            return request(self.client)
        except (OSError, Refused) as error:
            if not (isinstance(error, Refused) and error.code in (BUSY, BUSY_RECOVERY)):
                self.close()
            raise

    def close(self):
        if self.client is not None:
            self.client.socket.close()
            self.client = None


class Work(threading.Thread):
    """A thread whose exception fails the scenario when it is joined."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self.function, self.error = function, None
        self.start()

    def run(self):
        try:
            self.function()
        except BaseException as error:
            self.error = error

    def finish(self):
        self.join(2 * PATIENCE_S)
        assert not self.is_alive(), "a client hangs"
        if self.error is not None:
            raise self.error
