"""The tables of `make bench`, from the file that it wrote.

    report.py [--markdown] RESULTS

Medians of the rounds, ours beside C's, and whether each target of the project is kept.
"""

import json
import statistics
import sys

OURS, C = "ours", "C"
PLAIN, SPECULATIVE = "execute-sqlite-off", "execute-speculative"
COLUMNS = ["rate", "p50_us", "p99_us", "p999_us", "busy_op", "leader_cpu_us_op", "follower_cpu_us_op"]
COLUMNS += ["leader_bytes_op", "device_bytes_op", "leader_mb", "load_cpu_us_op"]


class Medians:
    """By nodes, workload, clients and library: the medians of what the rounds measured."""

    def __init__(self, results):
        groups = {}
        self.refusals = {}
        for cell in results["cells"]:
            key = cell["nodes"], cell["workload"], cell["clients"], cell["library"]
            rounds = groups.setdefault(key, [])
            if "failed" not in cell:
                rounds.append(cell)
                for refusal in cell["refusals"]:
                    name = refusal["code"] or "connection"
                    counts = self.refusals.setdefault(key, {})
                    counts[name] = counts.get(name, 0) + refusal["count"]
        self.values = {
            key: {column: statistics.median(cell.get(column, 0) for cell in rounds) for column in COLUMNS}
            for key, rounds in groups.items()
            if rounds
        }
        self.keys = list(dict.fromkeys(key[:3] for key in groups))

    def both(self, nodes, workload, clients):
        return [self.values.get((nodes, workload, clients, library)) for library in (OURS, C)]


def title(nodes, workload, clients):
    if workload == "beside":
        clients = f"1 writer + {clients - 1} SELECTs"
    else:
        clients = f"{clients} client{'s' * (clients > 1)}"
    return f"{nodes} node{'s' * (nodes > 1)}, {workload}, {clients}"


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def pair(both, column, scale=1):
    return " / ".join(number(values and values[column] / scale) for values in both)


def ratio(both, column):
    ours, c = both
    return f"{ours[column] / c[column]:.2f}" if ours and c and c[column] else "-"


def rows(medians):
    for key in medians.keys:
        both = medians.both(*key)
        errors = [medians.refusals.get((*key, library)) for library in (OURS, C)]
        cells = [title(*key), pair(both, "rate"), ratio(both, "rate")]
        for column in ("p50_us", "p99_us", "p999_us"):
            cells += [pair(both, column, 1000)]
        cells += [ratio(both, "p99_us"), pair(both, "busy_op"), pair(both, "leader_cpu_us_op")]
        cells += [pair(both, "follower_cpu_us_op") if key[0] > 1 else "", pair(both, "load_cpu_us_op")]
        cells += [pair(both, "leader_bytes_op", 1000), pair(both, "device_bytes_op", 1000)]
        cells += [pair(both, "leader_mb")]
        cells += [" ".join(f"{name}: {error}" for name, error in zip((OURS, C), errors) if error)]
        yield cells


HEAD = ["ours / C", "operations/s", "ratio", "p50, ms", "p99, ms", "p99.9, ms", "p99 ratio", "BUSY/op"]
HEAD += ["leader CPU us/op", "follower CPU us/op", "clients CPU us/op", "leader kB/op", "disk kB/op", "leader MB", "other refusals"]


def table(medians):
    lines = [HEAD, *rows(medians)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join("  ".join(f"{text:<{width}}" for text, width in zip(line, widths)).rstrip() for line in lines)


def markdown(results):
    """Fewer columns than on the terminal, for docs/performance.md."""
    medians = Medians(results)
    lines = ["| | operations/s, ours | C | ratio | p50 ms | C | p99 ms | C | leader CPU us/op | C | follower | C |"]
    lines += ["|---" + "|---:" * 11 + "|"]
    for key in medians.keys:
        both = medians.both(*key)
        cells = [title(*key)]
        for column, scale in (("rate", 1), ("p50_us", 1000), ("p99_us", 1000), ("leader_cpu_us_op", 1)):
            cells += [number(values and values[column] / scale) for values in both]
            cells += [ratio(both, "rate")] if column == "rate" else []
        cells += [number(values and values["follower_cpu_us_op"]) if key[0] > 1 else "" for values in both]
        lines += ["| " + " | ".join(cells) + " |"]
    return "\n".join([surroundings(results), "", *lines, "", "```", limits(results), "```"])


def surroundings(results):
    """Where, when and how it was measured. A number means little without the load of the machine beside it."""
    machine = results["machine"]
    loads = [cell["load_average"] for cell in results["cells"]] or [0]
    return (
        f"{results['date']}, `{results['command']}`, {results['rounds']} rounds of {results['seconds']:g} s. "
        f"{machine['processors']}, {machine['memory_gb']} GB, {machine['file_system']}, Linux {machine['kernel']}, "
        f"libdqlite0 {machine['c_version']}, nice {machine['nice']}, load average {min(loads):.0f} to {max(loads):.0f}."
    )


def limit(results, name, column):
    return statistics.median(limit[column] for limit in results["limits"] if limit["name"] == name)


def limit_names(results):
    return list(dict.fromkeys(limit["name"] for limit in results["limits"]))


def limits(results):
    rows = ((name, limit(results, name, "rate"), limit(results, name, "p99_us")) for name in limit_names(results))
    return "\n".join(f"{name:<20} {rate:>12,.0f}/s   p99 {p99_us / 1000:.2f} ms" for name, rate, p99_us in rows)


def executing(results):
    """A line if it was measured: what a transaction costs before it goes to the log, beside plain SQLite (execute.rs)."""
    if PLAIN in limit_names(results):
        value = limit(results, PLAIN, "rate") / limit(results, SPECULATIVE, "rate")
        kept = "kept" if value <= 2 else "BROKEN"
        yield f"{kept:<7} executing an insert: processor time <= 2 x plain SQLite with synchronous=OFF: {value:.2f}"


# ---- targets ----


def at_least(column, times):
    return f"{column} >= {times} x C", lambda ours, c: (ours[column] / c[column], ours[column] >= times * c[column])


def at_most(column, times, text):
    return f"{column} <= {text} of C", lambda ours, c: (ours[column] / c[column], ours[column] <= times * c[column])


def no_busy():
    return "no BUSY in ours", lambda ours, _c: (ours["busy_op"], ours["busy_op"] == 0)


TARGETS = [
    *((3, "insert", clients, at_least("rate", times)) for clients, times in ((1, 3.5), (16, 12), (64, 30))),
    *((1, "insert", clients, at_least("rate", times)) for clients, times in ((1, 1.1), (16, 6), (64, 10))),
    (3, "insert", 64, at_most("p99_us", 0.1, "1/10")),
    (3, "insert", 64, no_busy()),
    *((3, workload, 16, at_least("rate", 8)) for workload in ("upsert", "transaction", "kine")),
    *((nodes, "read", 1, at_least("rate", 1.3)) for nodes in (1, 3)),
    *((nodes, "read", clients, at_least("rate", 1.2)) for nodes in (1, 3) for clients in (16, 64)),
    *((nodes, "scan", 1, at_least("rate", 20)) for nodes in (1, 3)),
    *((nodes, "scan", 1, at_most("leader_cpu_us_op", 0.5, "1/2")) for nodes in (1, 3)),
    *((3, "insert", clients, at_most("follower_cpu_us_op", 0.2, "1/5")) for clients in (1, 4, 16, 64)),
]


def verdict(kept, text, key, value):
    return f"{'kept' if kept else 'BROKEN':<7} {title(*key)}: {text}: {value:.2f}"


def targets(medians):
    """A line for each target whose cells were measured."""
    measured = set(medians.keys)
    for nodes, workload, clients, (text, judge) in TARGETS:
        both = medians.both(nodes, workload, clients)
        if all(both):
            value, kept = judge(*both)
            yield verdict(kept, text, (nodes, workload, clients), value)
    for nodes in sorted({key[0] for key in measured}):
        alone, beside = (medians.values.get((nodes, "beside", clients, OURS)) for clients in (1, 17))
        if alone and beside:
            value = beside["p99_us"] / alone["p99_us"]
            yield verdict(value <= 2, "p99_us of the writer <= 2 x without SELECTs", (nodes, "beside", 17), value)
    for key in sorted(key for key in measured if key[2] == 1 and all(medians.both(*key))):
        ours, c = medians.both(*key)
        for column in ("p50_us", "p99_us"):
            yield verdict(ours[column] <= c[column], f"{column} no worse than C", key, ours[column] / c[column])


def tables(results):
    medians = Medians(results)
    parts = [surroundings(results), table(medians), limits(results), "\n".join([*executing(results), *targets(medians)])]
    return "\n\n".join(["", *(part for part in parts if part)])


def main():
    arguments = sys.argv[1:]
    with open(arguments[-1]) as file:
        results = json.load(file)
    print(markdown(results) if "--markdown" in arguments else tables(results))


if __name__ == "__main__":
    main()
