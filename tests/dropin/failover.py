"""Time from kill -9 of the leader to the next acknowledged write, of a client that knows all three nodes.

    failover.py DIRECTORY LIBRARY LATENCY_MS ROUNDS

A latency of 0 leaves the library's defaults. Prints one line of a table.
"""

import random
import statistics
import sys
import time

from cluster import Cluster, Refused, Session

ROUND_S_MAX = 60


def write_until_acknowledged(cluster, number):
    """Tries again every few milliseconds, with the leader that any node names."""
    session = Session(cluster, 2.0)
    end = time.monotonic() + ROUND_S_MAX
    while True:
        try:
            session.call(lambda client: client.exec(f"INSERT OR IGNORE INTO t VALUES ({number})"))
            session.close()
            return
        except (OSError, Refused):
            assert time.monotonic() < end, f"no write for {ROUND_S_MAX} s"
            time.sleep(0.002)


def main(directory, library, latency_ms, rounds):
    times = []
    with Cluster(directory, latency_ms=latency_ms).form([library] * 3) as cluster:
        cluster.exec("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)")
        for number in range(rounds):
            cluster.converge()
            leader = cluster.leader()
            write_until_acknowledged(cluster, 2 * number)
            time.sleep(random.uniform(0.3, 1.0))
            begin = time.monotonic()
            leader.kill()
            write_until_acknowledged(cluster, 2 * number + 1)
            times.append(time.monotonic() - begin)
            leader.start(library)
            # Where leadership has not settled, this waits.
            write_until_acknowledged(cluster, 2 * number)
    milliseconds = [1000 * each for each in times]
    setting = f"latency {latency_ms} ms" if latency_ms else "defaults"
    print(
        f"{library:8}{setting:20}{rounds:6}{min(milliseconds):10.0f}{statistics.median(milliseconds):10.0f}"
        f"{max(milliseconds):10.0f}",
        flush=True,
    )


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
