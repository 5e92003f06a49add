"""Runs the cells of `make peers`, and prints the tables: peers.sh has the settings.

    peers.py DIRECTORY RESULTS
    peers.py --tables RESULTS

Round by round, each library gets a cluster of its own for every number of nodes and every payload; the libraries take
turns, and who begins changes with the rounds. RESULTS is written after every cluster.
"""

import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from report import number

OURS = "ours"
# Our core on the log that the others have; the others.
CORES = ["our-core", "raft-rs", "openraft", "async-raft"]
# Only the first one waits for the disk before it acknowledges, as we do.
PRODUCTS = ["hiqlite", "hiqlite-async", "hiqlite-interval"]
TARGET = "hiqlite"
# A cluster ends this long after the time of its cells: elections, and what a slow disk has queued.
PATIENCE_S = 180
COLUMNS = ["rate", "p50_us", "p99_us", "cpu_us_op", "per_sync"]


def words(name, default):
    return os.environ.get(name, default).split()


class Settings:
    def __init__(self):
        only = words("PEERS_ONLY", " ".join(CORES + PRODUCTS))
        unknown = [name for name in only if name not in CORES + PRODUCTS]
        assert not unknown, f"PEERS_ONLY: {unknown[0]} is none of {', '.join(CORES + PRODUCTS)}"
        self.cores = [name for name in CORES if name in only]
        self.products = [name for name in PRODUCTS if name in only]
        self.proposers = [int(word) for word in words("PEERS_PROPOSERS", "1 16 64")]
        self.nodes = [int(word) for word in words("PEERS_NODES", "1 3")]
        self.payloads = [int(word) for word in words("PEERS_PAYLOADS", "128 4096")]
        self.rounds = int(os.environ.get("PEERS_ROUNDS", 3))
        self.seconds = float(os.environ.get("PEERS_SECONDS", 3))
        self.warm_up_ms = int(os.environ.get("PEERS_WARM_UP_MS", 1000))

    def patience_s(self):
        return PATIENCE_S + len(self.proposers) * (self.seconds + self.warm_up_ms / 1000)

    def clusters(self):
        """What each round measures: part, nodes, payload, libraries. A payload of 0 is a row that is inserted."""
        for nodes in self.nodes:
            if self.cores:
                for payload in self.payloads:
                    yield "core", nodes, payload, [OURS, *self.cores]
            if self.products:
                yield "product", nodes, 0, [OURS, *self.products]

    def command(self):
        given = [f"{name}='{value}'" for name, value in sorted(os.environ.items()) if name.startswith("PEERS_")]
        return " ".join([*given, "make peers"])


class Failed(Exception):
    pass


def in_process(settings, library, nodes, payload, directory):
    """One cluster of benches/peers: a line of JSON for each number of proposers."""
    data = tempfile.mkdtemp(dir=directory)
    proposers = ",".join(map(str, settings.proposers))
    times = [str(settings.warm_up_ms), str(int(settings.seconds * 1000))]
    command = [os.environ["PEERS"], library, str(nodes), str(payload), proposers, *times, data]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=settings.patience_s())
    except subprocess.TimeoutExpired as expired:
        raise Failed(f"not done after {expired.timeout:.0f} s") from expired
    finally:
        shutil.rmtree(data, ignore_errors=True)
    if done.returncode != 0:
        raise Failed(done.stderr.strip()[-500:] or f"exit code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def whole_library(settings, nodes, directory):
    """Our side of the products: servers, and clients that are C programs, of benches/load."""
    results = os.path.join(directory, "load.json")
    environment = dict(
        os.environ,
        BENCH_LIBRARIES=OURS,
        BENCH_WORKLOADS="insert",
        BENCH_CLIENTS=" ".join(map(str, settings.proposers)),
        BENCH_NODES=str(nodes),
        BENCH_ROUNDS="1",
        BENCH_SECONDS=str(settings.seconds),
        BENCH_WARM_UP_MS=str(settings.warm_up_ms),
        BENCH_LIMITS="0",
        BENCH_RESULTS=results,
        BENCH_DIR=directory,
    )
    done = subprocess.run(["sh", "benches/load/bench.sh"], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed((done.stderr or done.stdout).strip()[-500:])
    with open(results) as file:
        cells = json.load(file)["cells"]
    for cell in cells:
        followers = (nodes - 1) * cell["follower_cpu_us_op"]
        cell["cpu_us_op"] = cell["leader_cpu_us_op"] + followers + cell["load_cpu_us_op"]
        cell["per_sync"] = 0
        cell["proposers"] = cell["clients"]
    return [{column: cell[column] for column in ["proposers", *COLUMNS]} for cell in cells]


def say(line):
    print(f"peers: {line}", flush=True)


def title(part, nodes, payload, proposers=None):
    names = {"core": ("proposer", f"{payload} bytes"), "product": ("client", "insert")}
    who, what = names[part]
    text = f"{nodes} node{'s' * (nodes > 1)}, {what}"
    return f"{text}, {proposers} {who}{'s' * (proposers > 1)}" if proposers else text


class Run:
    def __init__(self, settings, directory, path):
        self.settings, self.directory, self.path = settings, directory, path
        self.results = dict(
            date=datetime.date.today().isoformat(),
            command=settings.command(),
            machine=machine(directory),
            seconds=settings.seconds,
            rounds=settings.rounds,
            cells=[],
        )

    def everything(self):
        begun = time.monotonic()
        clusters = list(self.settings.clusters())
        for round in range(1, self.settings.rounds + 1):
            for position, (part, nodes, payload, libraries) in enumerate(clusters):
                for library in libraries if round % 2 else libraries[::-1]:
                    self.cluster(round, part, nodes, payload, library)
                done = (round - 1) * len(clusters) + position + 1
                left = (time.monotonic() - begun) / done * (self.settings.rounds * len(clusters) - done)
                say(f"about {left / 60:.0f} min left")

    def cluster(self, round, part, nodes, payload, library):
        name = f"round {round}, {title(part, nodes, payload)}, {library}"
        key = dict(round=round, part=part, nodes=nodes, payload=payload, library=library)
        key["load_average"] = os.getloadavg()[0]
        try:
            if part == "product" and library == OURS:
                samples = whole_library(self.settings, nodes, self.directory)
            else:
                samples = in_process(self.settings, library, nodes, payload, self.directory)
            say(f"{name}: " + ", ".join(f"{sample['proposers']}: {sample['rate']:,.0f}/s" for sample in samples))
        except Failed as failed:
            say(f"{name}: FAILED: {failed}")
            samples = [dict(proposers=proposers, failed=str(failed)) for proposers in self.settings.proposers]
        self.results["cells"] += [{**key, **sample} for sample in samples]
        with open(self.path + ".new", "w") as file:
            json.dump(self.results, file, indent=1)
        os.replace(self.path + ".new", self.path)


def machine(directory):
    with open("/proc/cpuinfo") as file:
        model = next((line.split(": ")[1].strip() for line in file if line.startswith("model name")), "?")
    kind = subprocess.run(["stat", "-f", "-c", "%T", directory], stdout=subprocess.PIPE, text=True).stdout.strip()
    return f"{os.cpu_count()} x {model}, {kind}, Linux {platform.release()}, nice {os.nice(0)}"


# ---- tables ----


def medians(results, part):
    """By nodes, payload and proposers, by library: the medians of the rounds that did not fail."""
    groups = {}
    for cell in results["cells"]:
        if cell["part"] == part:
            case = groups.setdefault((cell["nodes"], cell["payload"], cell["proposers"]), {})
            case.setdefault(cell["library"], []).extend([] if "failed" in cell else [cell])
    return {
        case: {
            library: {column: statistics.median(cell[column] for cell in cells) for column in COLUMNS}
            for library, cells in libraries.items()
            if cells
        }
        for case, libraries in groups.items()
    }


def libraries_of(results, part):
    names = [OURS, *CORES, *PRODUCTS]
    found = {cell["library"] for cell in results["cells"] if cell["part"] == part}
    return [name for name in names if name in found]


def markdown(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(row, widths)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def rates(part, cases, libraries):
    head = ["acknowledged a second"]
    for library in libraries:
        head += [library] if library == OURS else [library, "ratio"]
    rows = [head]
    for case, found in cases.items():
        ours = found.get(OURS)
        row = [title(part, *case)]
        for library in libraries:
            values = found.get(library)
            row.append(number(values and values["rate"]))
            if library != OURS:
                row.append(f"{ours['rate'] / values['rate']:.2f}" if ours and values and values["rate"] else "-")
        rows.append(row)
    return markdown(rows)


def costs(part, cases, libraries):
    """p50 and p99 in ms, processor time, and commands of one sync where known: in the order of the libraries."""
    columns = [("p50, ms", "p50_us", 1000), ("p99, ms", "p99_us", 1000), ("CPU us/op", "cpu_us_op", 1)]
    columns += [("commands/sync", "per_sync", 1)] if part == "core" else []
    rows = [[", ".join(libraries), *(name for name, _, _ in columns)]]
    for case, found in cases.items():
        each = [found.get(library) for library in libraries]
        cells = [" / ".join(number(values and values[key] / scale) for values in each) for _, key, scale in columns]
        rows.append([title(part, *case), *cells])
    return markdown(rows)


def targets(cases):
    for case, found in cases.items():
        if OURS in found and TARGET in found:
            ratio = found[OURS]["rate"] / max(found[TARGET]["rate"], 1e-9)
            yield f"{'kept' if ratio > 1 else 'BROKEN':<7} {title('product', *case)}: ahead of {TARGET}: {ratio:.2f}"


def tables(results):
    loads = [cell["load_average"] for cell in results["cells"]] or [0]
    parts = [
        f"{results['date']}, `{results['command']}`, {results['rounds']} rounds of {results['seconds']:g} s. "
        f"{results['machine']}, load average {min(loads):.1f} to {max(loads):.1f}."
    ]
    for part in ("core", "product"):
        cases, libraries = medians(results, part), libraries_of(results, part)
        if cases:
            parts += [rates(part, cases, libraries), costs(part, cases, libraries)]
        if part == "product":
            parts += ["\n".join(targets(cases))]
    return "\n\n".join(part for part in parts if part)


def main():
    if sys.argv[1] == "--tables":
        with open(sys.argv[2]) as file:
            print(tables(json.load(file)))
        return
    directory, path = sys.argv[1:]
    run = Run(Settings(), directory, path)
    try:
        run.everything()
    finally:
        print("\n" + tables(run.results), flush=True)
    sys.exit(any(cell["library"] == OURS and "failed" in cell for cell in run.results["cells"]))


main()
