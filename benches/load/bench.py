"""Runs the cells of `make bench`: bench.sh has the settings, report.py the tables.

    bench.py DIRECTORY RESULTS

Round by round, for every number of nodes and every workload, a new cluster of each library runs; they take turns cell by
cell, with a database of their own for each. RESULTS is written after every cell, so an interrupted run is not lost.
"""

import datetime
import functools
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import report
from cluster import C, LIBRARIES, OURS, Cluster

WORKLOADS = "insert transaction batch upsert read scan mix large kine beside"
BESIDE_CLIENTS = [1, 17]
# A cell ends this long after its time: what is under way may have to wait for sixteen long SELECTs.
PATIENCE_S = 400


def words(name, default):
    return os.environ.get(name, default).split()


def setting(name, default):
    return float(os.environ.get(name, default))


class Settings:
    def __init__(self):
        self.workloads = words("BENCH_WORKLOADS", WORKLOADS)
        self.clients = [int(word) for word in words("BENCH_CLIENTS", "1 4 16 64")]
        self.nodes = [int(word) for word in words("BENCH_NODES", "1 3")]
        self.libraries = words("BENCH_LIBRARIES", f"{OURS} {C}")
        self.rounds = int(setting("BENCH_ROUNDS", 3))
        self.seconds = setting("BENCH_SECONDS", 5)
        self.warm_up_ms = setting("BENCH_WARM_UP_MS", 1000)
        self.limits = os.environ.get("BENCH_LIMITS", "1") != "0"

    def clients_of(self, workload):
        return BESIDE_CLIENTS if workload == "beside" else self.clients

    def cells(self):
        each = sum(len(self.clients_of(workload)) for workload in self.workloads)
        return each * len(self.nodes) * self.rounds * len(self.libraries)

    def command(self):
        given = [f"{name}='{value}'" for name, value in sorted(os.environ.items()) if name.startswith("BENCH_")]
        return " ".join([*given, "make bench"])


def read(path):
    with open(path) as file:
        return file.read()


class Usage:
    """What a process has used until now. Its processor time is the sum of its threads', in nanoseconds: that of
    /proc/PID/stat has steps of 10 ms, too much for a cell of few operations."""

    def __init__(self, pid):
        self.threads = {}
        for thread in os.listdir(f"/proc/{pid}/task"):
            try:
                self.threads[thread] = int(read(f"/proc/{pid}/task/{thread}/schedstat").split()[0])
            except OSError:
                continue  # it has just ended
        lines = dict(line.split(": ") for line in read(f"/proc/{pid}/io").splitlines())
        self.bytes = int(lines["write_bytes"])

    def cpu_us_since(self, before):
        return sum(ns - before.threads.get(thread, 0) for thread, ns in self.threads.items()) / 1000


def resident_mb(pid):
    line = next(line for line in read(f"/proc/{pid}/status").splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def device_bytes(directory):
    """What the disk below a directory was given to write, by everybody; 0 for a file system without one. The bytes of
    /proc/PID/io are no measure where the page cache has large folios: one page that is written counts as all of its folio."""
    number = os.stat(directory).st_dev
    try:
        return int(read(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").split()[6]) * 512
    except OSError:
        return 0


def usage(cluster):
    return {member.id: Usage(member.process.pid) for member in cluster.members}


def measure(settings, cluster, workload, clients):
    """One cell; the members of the result that end in _op are for each operation done."""
    leader = cluster.leader().id
    command = [
        *(os.environ["LOAD"], workload, str(clients), str(settings.warm_up_ms), str(settings.seconds * 1000)),
        *(f"{workload}-{clients}", *(member.address for member in cluster.members)),
    ]
    errors = tempfile.TemporaryFile("w+")
    load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    patience = threading.Timer(settings.seconds + PATIENCE_S, load.kill)
    patience.start()
    samples = []
    for mark in ("begin", "end"):
        if load.stdout.readline().strip() == mark:
            samples.append((usage(cluster), device_bytes(cluster.directory)))
    output = load.stdout.read()
    status = load.wait()
    patience.cancel()
    if status != 0:
        errors.seek(0)
        return {"failed": errors.read().strip() or f"ended by signal {-status}, after {PATIENCE_S} s at the latest"}
    result = json.loads(output)
    (before, device_before), (after, device_after) = samples
    done = max(result["done"] + result["beside"], 1)
    cpu = {id: after[id].cpu_us_since(before[id]) / done for id in after}
    followers = [cpu[id] for id in cpu if id != leader]
    result["rate"] = result["done"] / result["seconds"]
    result["busy_op"] = result["busy"] / done
    result["load_cpu_us_op"] = result["load_cpu_us"] / done
    result["leader_cpu_us_op"] = cpu[leader]
    result["follower_cpu_us_op"] = sum(followers) / len(followers) if followers else 0
    result["leader_bytes_op"] = (after[leader].bytes - before[leader].bytes) / done
    result["device_bytes_op"] = (device_after - device_before) / done
    result["leader_mb"] = resident_mb(cluster.member(leader).process.pid)
    result["leader_changed"] = cluster.leader().id != leader
    return result


def say(line):
    print(f"bench: {line}", flush=True)


def brief(result):
    if "failed" in result:
        return "failed"
    return f"{result['rate']:,.0f}/s, p99 {result['p99_us'] / 1000:,.2f} ms"


class Run:
    def __init__(self, settings, directory, path):
        self.settings, self.directory, self.path = settings, directory, path
        self.begun = time.monotonic()
        self.finished = 0
        self.results = {
            "date": datetime.date.today().isoformat(),
            "command": settings.command(),
            "machine": machine(directory),
            "seconds": settings.seconds,
            "rounds": settings.rounds,
            "cells": [],
            "limits": [],
        }

    def save(self):
        with open(self.path + ".new", "w") as file:
            json.dump(self.results, file, indent=1)
        os.replace(self.path + ".new", self.path)

    def everything(self):
        for round in range(1, self.settings.rounds + 1):
            if self.settings.limits:
                self.limits(round)
            for nodes in self.settings.nodes:
                for workload in self.settings.workloads:
                    self.workload(round, nodes, workload)

    def limits(self, round):
        limits = [os.environ["LIMITS"], self.directory, str(self.settings.seconds * 200)]
        execute = [os.environ["EXECUTE"], self.directory]
        run = functools.partial(subprocess.run, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE_S)
        for line in "".join(run(command).stdout for command in (limits, execute)).splitlines():
            name, rate, p99_us = line.split()
            self.results["limits"].append(dict(round=round, name=name, rate=float(rate), p99_us=float(p99_us)))
        self.save()

    def workload(self, round, nodes, workload):
        # Who begins changes with the rounds.
        libraries = self.settings.libraries if round % 2 else self.settings.libraries[::-1]
        clusters = {library: Cluster(self.directory, latency_ms=0) for library in libraries}
        try:
            for library in libraries:
                clusters[library].form([library] * nodes)
            for clients in self.settings.clients_of(workload):
                cells = {}
                for library in libraries:
                    cells[library] = measure(self.settings, clusters[library], workload, clients)
                    self.note(round, nodes, workload, clients, library, cells[library])
                self.progress(round, nodes, workload, clients, cells)
        finally:
            for cluster in clusters.values():
                cluster.__exit__()
                shutil.rmtree(cluster.directory, ignore_errors=True)

    def note(self, round, nodes, workload, clients, library, result):
        cell = dict(round=round, nodes=nodes, workload=workload, clients=clients, library=library, **result)
        cell["load_average"] = os.getloadavg()[0]
        self.results["cells"].append(cell)
        self.save()

    def progress(self, round, nodes, workload, clients, cells):
        self.finished += len(cells)
        took = time.monotonic() - self.begun
        left = took / self.finished * (self.settings.cells() - self.finished)
        both = "; ".join(f"{library} {brief(cells[library])}" for library in self.settings.libraries)
        say(f"round {round}, {report.title(nodes, workload, clients)}: {both} (about {left / 60:.0f} min left)")
        for library, cell in cells.items():
            if "failed" in cell:
                say(f"{library}: {cell['failed']}")


def machine(directory):
    lines = read("/proc/cpuinfo").splitlines()
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "?")
    kind = subprocess.run(["stat", "-f", "-c", "%T", directory], stdout=subprocess.PIPE, text=True).stdout.strip()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    package = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "libdqlite0"], stdout=subprocess.PIPE, text=True)
    return {
        "processors": f"{os.cpu_count()} x {model}",
        "memory_gb": round(memory_gb),
        "file_system": kind,
        "kernel": platform.release(),
        "nice": os.nice(0),
        "c_version": package.stdout or "?",
    }


def main():
    directory, path = sys.argv[1:]
    settings = Settings()
    for library in settings.libraries:
        assert library in LIBRARIES, f"BENCH_LIBRARIES: {library} is not one of {', '.join(LIBRARIES)}"
    # Whoever interrupts it gets the tables of what was measured.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = Run(settings, directory, path)
    say(f"{settings.cells()} cells of {settings.seconds:g} s, results in {path}")
    try:
        run.everything()
    finally:
        print(report.tables(run.results), flush=True)
    failed = [cell for cell in run.results["cells"] if cell["library"] == OURS and "failed" in cell]
    sys.exit(1 if failed else 0)


main()
