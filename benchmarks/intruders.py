"""What 10,000 refused connections a minute cost those who are let in: `python -m
benchmarks.intruders`.

Three agents under TLS on loopback; clients write at the leader over its Unix socket. With intruders
of all kinds (`tests/e2e/intruders.py`) at the leader's address and without, in the order A B B A,
in one cluster; medians of the ratios of neighbours. The intruders' own part of the handshakes is
computed on this machine, too, in a thread that gives way to others (nice 19).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.agents import PATIENT, Agents, Load, agents, end_in_order, run_load
from tests.e2e.intruders import Papers, flood

BAR = 2.0
PER_S = 10_000 / 60
NAMES = ["node-01", "node-02", "node-03"]


class Flood:
    """Intruders in a thread of their own; `count`: how many there were."""

    def __init__(self, papers: Papers, port: int) -> None:
        self.count = 0
        self._papers = papers
        self._port = port

    @contextmanager
    def coming(self) -> Iterator[None]:
        """They come within this block."""
        loop = asyncio.new_event_loop()
        ends = asyncio.Event()

        def run() -> None:
            # sched(7): on Linux the nice value is the thread's own.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
            address = ("127.0.0.1", self._port)
            self.count += loop.run_until_complete(flood(self._papers, address, PER_S, ends))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(ends.set)
            thread.join()
            loop.close()


def p99_ms(cluster: Agents, load: Load, seconds: float) -> float:
    run = run_load(cluster, load, seconds=seconds, warmup_s=0.5)
    print(
        f"  {run.bench['ops_per_s']:,.0f} writes/s, median {run.bench['p50_ms']:.2f} ms, "
        f"p99 {run.bench['p99_ms']:.2f} ms, {run.bench['errors']} errors",
        file=sys.stderr,
    )
    return float(run.bench["p99_ms"])


def main(rounds: int, seconds: float, load: Load) -> bool:
    """Whether the bar is kept."""
    found: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(prefix="raft-bench-intruders-") as folder:
        papers = Papers(Path(folder), NAMES)
        with agents(extra=PATIENT + papers.section) as cluster:
            flood = Flood(papers, cluster.port(cluster.leader()))
            term = cluster.status(cluster.leader())["term"]
            for turn in range(rounds):
                for with_intruders in (True, False) if turn % 2 else (False, True):
                    if not with_intruders:
                        found[False].append(p99_ms(cluster, load, seconds))
                        continue
                    with flood.coming():
                        found[True].append(p99_ms(cluster, load, seconds))
            elections = cluster.status(cluster.leader())["term"] - term
    pairs = list(zip(found[True], found[False], strict=True))
    ratio = statistics.median(theirs / quiet for theirs, quiet in pairs)
    print(
        f"{load.clients} clients x {load.pipeline}, {rounds} pairs of {seconds:g} s, "
        f"{flood.count} intruders: p99 {statistics.median(found[False]):.2f} ms without, "
        f"{statistics.median(found[True]):.2f} ms with them, median of the ratios {ratio:.2f} "
        f"(bar: {BAR}); {elections} elections"
    )
    return ratio < BAR


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--pipeline", type=int, default=1)
    options = parser.parse_args()
    end_in_order()
    chosen = Load(clients=options.clients, pipeline=options.pipeline)
    sys.exit(0 if main(options.rounds, options.seconds, chosen) else 1)
