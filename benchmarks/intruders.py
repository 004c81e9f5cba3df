"""What 10,000 refused connections a minute cost those who are let in: `python -m
benchmarks.intruders`.

Three agents under TLS on loopback; clients write at the leader over its Unix socket, in turns: with
no intruders, with intruders of all kinds (`tests/e2e/intruders.py`) at the leader's address, and
with the same ones at an agent that has nothing to do with the cluster. The intruders' own part of
the handshakes is computed on this machine, too, and where the processors have more to do than they
can, that alone costs the clients; the third kind of turn shows how much. Medians of the ratios of
neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import operator
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

    def __init__(self, papers: Papers) -> None:
        self.count = 0
        self._papers = papers

    @contextmanager
    def coming(self, port: int) -> Iterator[None]:
        """They come to this port within this block."""
        loop = asyncio.new_event_loop()
        ends = asyncio.Event()

        def run() -> None:
            # sched(7): on Linux the nice value is the thread's own.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
            address = ("127.0.0.1", port)
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


def measure(
    cluster: Agents, ports: dict[str, int], flood: Flood, load: Load, *, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """The p99 of each round's turns in milliseconds, by where the intruders came."""
    turns = ["nowhere", *ports]
    found: dict[str, list[float]] = {turn: [] for turn in turns}
    for number in range(rounds):
        first = number % len(turns)
        for turn in turns[first:] + turns[:first]:
            print(f"intruders come {turn}", file=sys.stderr)
            if turn == "nowhere":
                found[turn].append(p99_ms(cluster, load, seconds))
                continue
            with flood.coming(ports[turn]):
                found[turn].append(p99_ms(cluster, load, seconds))
    return found


def main(rounds: int, seconds: float, load: Load) -> bool:
    """Whether the bar is kept."""
    with tempfile.TemporaryDirectory(prefix="raft-bench-intruders-") as folder:
        papers = Papers(Path(folder), NAMES)
        extra = PATIENT + papers.section
        with agents(extra=extra) as cluster, agents(1, extra=extra) as other:
            leader = cluster.leader()
            ports = {"to the leader": cluster.port(leader), "elsewhere": other.port("node-01")}
            flood = Flood(papers)
            term = cluster.status(leader)["term"]
            found = measure(cluster, ports, flood, load, rounds=rounds, seconds=seconds)
            elections = cluster.status(cluster.leader())["term"] - term
    at_leader = found["to the leader"]
    ratios = {
        turn: statistics.median(map(operator.truediv, at_leader, found[turn]))
        for turn in ("nowhere", "elsewhere")
    }
    medians = ", ".join(f"{statistics.median(p99):.1f} ms {turn}" for turn, p99 in found.items())
    print(
        f"{load.clients} clients x {load.pipeline}, {rounds} rounds with turns of {seconds:g} s, "
        f"{flood.count} intruders: p99 {medians}; with intruders at the leader "
        f"{ratios['nowhere']:.2f} times that without any (bar: {BAR}), {ratios['elsewhere']:.2f} "
        f"times that with them elsewhere; {elections} elections"
    )
    return bool(ratios["nowhere"] < BAR)


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
