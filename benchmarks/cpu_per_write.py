"""What a write costs, before and after a change: `python -m benchmarks.cpu_per_write BEFORE AFTER`.

BEFORE and AFTER are two checkouts. Each gets a cluster of its own, and they take turns, so what
else the machine does falls on both. Throughput goes up and down with it by a factor of two; the
processor time that each process takes for a write does so far less, and where everything runs on
the same cores it decides the throughput. Other work can only make it more, so beside the median
the lowest of many short rounds says something, too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.agents import (
    PATIENT,
    Agents,
    Load,
    RaftctlFailed,
    Run,
    agents,
    end_in_order,
    run_load,
)

LOADS = {
    "1000 x 1, 1 KiB": Load(1000, 1, key_size=256, value_size=1024),
    "8 x 128, 256 B": Load(8, 128),
    "1 x 1, 256 B": Load(1, 1),
}
_TRIES = 5
_COLUMNS = ("leader", "follower", "load generator", "all", "writes/s", "p50 ms")

# By column; microseconds of processor time a write where the column is a process.
Figures = dict[str, float]


def sound_run(cluster: Agents, load: Load, seconds: float) -> Run:
    """Again, when somebody else's work has the cluster elect another leader meanwhile."""
    for _ in range(_TRIES):
        try:
            run = run_load(cluster, load, seconds=seconds, warmup_s=0.5)
        except RaftctlFailed as failure:
            print(failure, file=sys.stderr)
            continue
        bench = run.bench
        if not bench["errors"] and not bench["unknown"] and run.committed >= bench["ops"]:
            return run
        print(f"not sound: {bench['error_codes']}, {bench['unknown']} unknown", file=sys.stderr)
    raise RuntimeError(f"no sound run in {_TRIES} tries: is this machine too busy?")


def write_cost(cluster: Agents, load: Load, seconds: float) -> Figures:
    """Of one run. The agents' time is divided by what was committed, warm-up included."""
    run = sound_run(cluster, load, seconds)
    bench = run.bench
    followers = [cpu_s for name, cpu_s in run.cpu_s.items() if name != run.leader]
    leader = run.cpu_s[run.leader] * 1e6 / run.committed
    follower = statistics.mean(followers) * 1e6 / run.committed
    generator = bench["generator_cpu"] * 1e6 / bench["ops_per_s"]
    return {
        "leader": leader,
        "follower": follower,
        "load generator": generator,
        "all": leader + len(followers) * follower + generator,
        "writes/s": bench["ops_per_s"],
        "p50 ms": bench["p50_ms"],
    }


def idle_cost(cluster: Agents, seconds: float) -> Figures:
    """Percent of a core."""
    leader = cluster.leader()
    before = cluster.usage()
    time.sleep(seconds)
    after = cluster.usage()
    used = {name: (after[name].cpu_s - before[name].cpu_s) / seconds * 100 for name in after}
    followers = [percent for name, percent in used.items() if name != leader]
    return {"leader": used[leader], "follower": statistics.mean(followers)}


def compare(checkouts: list[Path], names: list[str], rounds: int, seconds: float) -> None:
    """Prints medians over the rounds, and of the ratios within a round."""
    found: dict[str, list[list[Figures]]] = {name: [[] for _ in checkouts] for name in names}
    with ExitStack() as stack:
        clusters = [
            stack.enter_context(
                agents(environment={"PYTHONPATH": f"{path}/node_agent:{path}/cli"}, extra=PATIENT)
            )
            for path in checkouts
        ]
        for number in range(rounds):
            order = range(len(clusters)) if number % 2 == 0 else reversed(range(len(clusters)))
            for place in order:
                for name in names:
                    figures = (
                        idle_cost(clusters[place], 4 * seconds)
                        if name == "idle"
                        else write_cost(clusters[place], LOADS[name], seconds)
                    )
                    found[name][place].append(figures)
    for name in names:
        _print(name, found[name])


def _print(name: str, runs: list[list[Figures]]) -> None:
    unit = "percent of a core" if name == "idle" else "us a write"
    print(f"\n{name}: {unit}; per checkout the median and the lowest of {len(runs[0])} rounds")
    for column in (column for column in _COLUMNS if column in runs[0][0]):
        values = [[run[column] for run in of_one] for of_one in runs]
        line = f"  {column:<15}" + "".join(
            f"{statistics.median(of_one):>12,.2f} {min(of_one):>10,.2f}" for of_one in values
        )
        if len(runs) == 2 and all(values[0]):
            ratios = [after / before for before, after in zip(*values, strict=True)]
            low, high = min(ratios), max(ratios)
            line += f"   x {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})"
            line += f", of the lowest x {min(values[1]) / min(values[0]):.3f}"
        print(line)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu_per_write", description=__doc__)
    parser.add_argument("checkouts", type=Path, nargs="+", metavar="CHECKOUT", help="one or two")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run")
    parser.add_argument(
        "--case", action="append", choices=[*LOADS, "idle"], help="only this one; may be repeated"
    )
    arguments = parser.parse_args()
    end_in_order()
    checkouts = [path.resolve() for path in arguments.checkouts]
    names = arguments.case or [*LOADS, "idle"]
    compare(checkouts, names, arguments.rounds, arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
