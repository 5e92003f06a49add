"""Upgrades a cluster of Debian's dqlite-demo from Debian's packages to ours and back, under load.

    swap.py ROOT

ROOT is a Debian with Debian's packages installed, /debian with the same as files and /ours with ours. The network is
private (namespaces.sh). Called by swap.sh.
"""

import glob
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request

from cluster import C, OURS, VOTER, Client, Cluster, Member, Refused, Session, Work, wait_for

ROOT = sys.argv[1]
DATABASE = "test.db"
# The daemon of go-dqlite gives a node that comes back its role within half a minute.
ROLES_PATIENCE_S = 90
[LIBRARY] = (os.path.join(path, "libdqlite.so.0") for path in glob.glob(f"{ROOT}/usr/lib/*-linux-gnu"))


def chroot(*command, status=0):
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["chroot", ROOT, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.stdout.decode(errors="replace")
    assert done.returncode == status, f"{' '.join(command)}: exit code {done.returncode}\n{text}"
    return text


def say(text):
    print(f"deb_swap: {text}", flush=True)


class Demo(Member):
    """A process of Debian's dqlite-demo, which uses the library that is installed when it starts."""

    # Whether any of them has run with our library: until then nothing that happens can be its fault.
    met_ours = False

    def __init__(self, id):
        self.id = id
        self.address, self.api = f"127.0.0.1:{9000 + id}", f"127.0.0.1:{8000 + id}"
        self.directory, self.log = f"/data/{self.address}", f"{ROOT}/node{id}.log"
        self.process = None

    def start(self, library):
        self.library = library
        Demo.met_ours |= library == OURS
        # The trace tells the one crash of a C node that is not ours to answer for, see Member.stop.
        command = ["chroot", ROOT, "env", "LIBRAFT_TRACE=1", "dqlite-demo", "--dir", "/data", "--verbose"]
        command += ["--api", self.api, "--db", self.address]
        if self.id > 1:
            command += ["--join", "127.0.0.1:9001"]
        with open(self.log, "ab") as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        wait_for(f"node {self.id} to listen, see {self.log}", self.listens, ROLES_PATIENCE_S)
        assert self.uses_installed_library(), f"node {self.id} does not use the installed library"

    def listens(self):
        assert self.process.poll() is None, f"node {self.id} has ended with {self.process.poll()}, see {self.log}"
        try:
            # A spare, as the second of two is, need not know who leads; it answers all the same.
            with Client(self.address) as client:
                client.leader()
            with urllib.request.urlopen(f"http://{self.api}/absent", timeout=5):
                return True
        except (OSError, Refused):
            return False

    def uses_installed_library(self):
        """False after the file was replaced: the process keeps the one that it started with."""
        with open(f"/proc/{self.process.pid}/maps") as maps:
            inodes = {int(line.split()[4]) for line in maps if "libdqlite.so.0" in line}
        assert len(inodes) == 1, f"node {self.id} has {len(inodes)} libraries"
        return inodes == {os.stat(LIBRARY).st_ino}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(ROLES_PATIENCE_S)
        self.process.stdout.close()
        self.process = None
        # The runtime of Go turns a crash in C into an exit code, unless it is ending itself.
        if self.library == C and status in (2, -signal.SIGSEGV, -signal.SIGABRT):
            if self.stopped_in_truncation():
                say(f"note: node {self.id} with the C library crashed: it was stopped in a truncation")
                return
            if not Demo.met_ours:
                say(f"note: node {self.id} with the C library crashed at its stop, in a cluster that has only such nodes")
                return
        assert status == 0, f"node {self.id} with {self.library} ended with {status}, see {self.log}"


class Demos(Cluster):
    """The ids of the servers are made by go-dqlite, so members are known by their addresses."""

    def __init__(self):
        self.members = [Demo(id) for id in (1, 2, 3)]
        self.databases = set()

    def find_leader(self, timeout_s=2.0):
        for member in self.members:
            try:
                with Client(member.address, timeout_s) as client:
                    _, address = client.leader()
                with Client(address, timeout_s) as client:
                    if client.leader()[1] == address:
                        return next(each for each in self.members if each.address == address)
            except (OSError, Refused, ValueError):
                continue
        return None

    def wait_for_voters(self):
        def told():
            try:
                return self.on_leader(lambda client: list(client.servers().values())) == [VOTER] * 3
            except AssertionError:
                return False

        wait_for("three voters", told, ROLES_PATIENCE_S)


class Load:
    """Writers that never pause: two on the protocol, one through the HTTP servers of dqlite-demo."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.stopping = threading.Event()
        self.acknowledged = [0, 0, 0]
        cluster.exec("CREATE TABLE IF NOT EXISTS t (writer INTEGER, n INTEGER, PRIMARY KEY (writer, n))", DATABASE)
        self.work = [Work(lambda i=i: self.insert(i)) for i in (0, 1)] + [Work(self.put)]

    def insert(self, writer):
        session = Session(self.cluster, 5.0, DATABASE)
        while not self.stopping.is_set():
            number = self.acknowledged[writer] + 1
            try:
                session.call(lambda client: client.exec(f"INSERT OR IGNORE INTO t VALUES ({writer}, {number})"))
                self.acknowledged[writer] = number
            except (OSError, Refused):
                pass
            time.sleep(0.005)
        session.close()

    def put(self):
        for member in itertools.cycle(self.cluster.members):
            if self.stopping.is_set():
                break
            number = self.acknowledged[2] + 1
            request = urllib.request.Request(f"http://{member.api}/key-{number}", f"{number}".encode(), method="PUT")
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    if answer.read().strip() == b"done":
                        self.acknowledged[2] = number
            except OSError:
                pass
            time.sleep(0.01)

    def wait_for_progress(self):
        before = list(self.acknowledged)
        wait_for(
            lambda: f"all writers to go on; from {before}, at {self.acknowledged}",
            lambda: all(now > then + 5 for now, then in zip(self.acknowledged, before)),
            ROLES_PATIENCE_S,
        )

    def check(self):
        """Every acknowledged row is there."""
        *inserted, put = list(self.acknowledged)
        for writer, count in enumerate(inserted):
            [(found,)] = self.cluster.query(f"SELECT count(*) FROM t WHERE writer = {writer} AND n <= {count}", DATABASE)
            assert found == count, f"writer {writer}: {found} rows of {count} acknowledged ones"
        wanted = f"key = 'key-' || value AND CAST(value AS INTEGER) BETWEEN 1 AND {put}"
        [(found,)] = self.cluster.query(f"SELECT count(*) FROM model WHERE {wanted}", "demo")
        assert found == put, f"dqlite-demo: {found} rows of {put} acknowledged ones"


def versions():
    packages = chroot("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n").splitlines()
    return dict(line.split(" ", 1) for line in packages)


def check_packages(installed_before):
    """Debian's own checks, and go-dqlite is what it was and works."""
    assert chroot("dpkg", "--verify") == "", chroot("dpkg", "--verify")
    assert chroot("dpkg", "--audit") == "", chroot("dpkg", "--audit")
    chroot("apt-get", "check")
    changed = {name for name, state in installed_before.items() if versions().get(name) != state}
    assert changed <= {"libdqlite0", "libdqlite-dev"}, f"changed or removed: {changed}"
    assert chroot("dpkg", "-S", "/usr/bin/dqlite") == "go-dqlite: /usr/bin/dqlite\n"
    shown = chroot("dqlite", "-s", "127.0.0.1:9001,127.0.0.1:9002,127.0.0.1:9003", "demo", "SELECT 1 + 1")
    assert shown == "2\n", shown


def install(cluster, load, folder, installed_before):
    """The files are replaced while all nodes run with the old ones and take writes."""
    files = [f"/{folder}/{name}" for name in sorted(os.listdir(f"{ROOT}/{folder}"))]
    chroot("dpkg", "-i", *files)
    check_packages(installed_before)
    for member in cluster.members:
        assert member.process.poll() is None and not member.uses_installed_library()
    load.wait_for_progress()
    load.check()
    say(f"dpkg -i {' '.join(os.path.basename(file) for file in files)}: the nodes go on with the old library: ok")


def restart_each(cluster, load, library):
    """The second one is killed, the others are stopped."""
    led = set()
    for turn, member in enumerate(cluster.members):
        led.add(cluster.leader().library)
        (member.kill if turn == 1 else member.stop)()
        if turn != 1 and library == OURS:
            chroot("dqlite-dir", "check", member.directory)
        load.wait_for_progress()
        member.start(library)
        cluster.wait_for_voters()
        load.wait_for_progress()
        load.check()
        led.add(cluster.leader().library)
        say(f"node {member.id} runs with {library}; {sum(load.acknowledged)} acknowledged rows, none missing")
    return led


def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", f"{ROOT}/proc"], check=True)
    installed_before = versions()
    cluster = Demos()
    for member in cluster.members:
        member.start(C)
    cluster.wait_for_voters()
    load = Load(cluster)
    load.wait_for_progress()
    check_packages(installed_before)
    say(f"three nodes of dqlite-demo with libdqlite0 {installed_before['libdqlite0'].split()[0]}: ok")

    install(cluster, load, "ours", installed_before)
    led = restart_each(cluster, load, OURS)
    install(cluster, load, "debian", installed_before)
    led |= restart_each(cluster, load, C)
    chroot("dpkg", "-r", "dqlite-tools")
    check_packages(installed_before)
    assert versions() == installed_before, "the way back left something behind"
    assert led == {C, OURS}, led

    load.stopping.set()
    for each in load.work:
        each.finish()
    load.check()
    cluster.databases.add("demo")
    cluster.converge(ROLES_PATIENCE_S)
    rows = sum(load.acknowledged)
    for member in cluster.members:
        member.stop()
    say(f"to our packages and back, {rows} acknowledged rows, none missing: ok")


main()
