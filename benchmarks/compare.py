"""This project beside etcd and PySyncObj: `python -m benchmarks.compare`.

Each with three nodes on this machine, this one and etcd with fsync on every node, PySyncObj
without. They take turns within each round, and the figures are ratios within a round, because a
machine that is busy for a while slows all of them down. What is not installed is left out: etcd
comes from Debian's etcd-server and etcd-client, the rest from `pip install 'raft-ebpf[bench]'`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.agents import Load, RaftctlFailed, Run, agents, end_in_order, run_load
from benchmarks.others import Etcd, PySyncObj

# Two systems answer "how many" with the same sizes: those of `etcdctl check perf`.
_KEY_BYTES, _VALUE_BYTES = 256, 1024
_SMALL_KEY_BYTES, _SMALL_VALUE_BYTES = 16, 256

LOADS = {
    "put 1000 x 1, 1 KiB": Load(1000, 1, key_size=_KEY_BYTES, value_size=_VALUE_BYTES),
    "put 8 x 125, 1 KiB": Load(8, 125, key_size=_KEY_BYTES, value_size=_VALUE_BYTES),
    "put 8 x 128, 256 B": Load(8, 128),
    "put 1 x 1, 256 B": Load(1, 1),
    "get 8 x 128": Load(8, 128, op="get"),
    "get 1000 x 1": Load(1000, 1, op="get"),
    "stale get 8 x 128 at a follower": Load(8, 128, op="get", consistency="stale"),
    "stale get 1000 x 1 at a follower": Load(1000, 1, op="get", consistency="stale"),
}
ETCD_MANY = "etcd check perf, 1 KiB"
ETCD_ONE = "etcd 1 x 1, 256 B"
PYSYNCOBJ = "PySyncObj 1000 in flight, 1 KiB"

# (what it says, of which case, beside which, which figure)
RATIOS = (
    ("1000 x 1 writes to etcd's", "put 1000 x 1, 1 KiB", ETCD_MANY, "ops_per_s"),
    ("8 x 128 writes to etcd's", "put 8 x 128, 256 B", ETCD_MANY, "ops_per_s"),
    ("one client's median latency to etcd's", "put 1 x 1, 256 B", ETCD_ONE, "p50_ms"),
    # PySyncObj writes from within its process: a thousand in flight, and no clients to serve.
    ("1,000 in flight, writes to PySyncObj's", "put 8 x 125, 1 KiB", PYSYNCOBJ, "ops_per_s"),
    ("1000 x 1 writes to PySyncObj's", "put 1000 x 1, 1 KiB", PYSYNCOBJ, "ops_per_s"),
)

Figures = dict[str, float]
Round = dict[str, Figures]


def complaint(load: Load, run: Run) -> str:
    """Why the figure can't be believed; "" when everything fits."""
    bench = run.bench
    if bench["errors"] or bench["unknown"]:
        return f"{bench['errors']} errors, {bench['unknown']} unknown outcomes"
    if load.op == "get":
        return ""
    if run.committed < bench["ops"]:
        return f"{bench['ops']} writes were answered and {run.committed} committed"
    data = run.committed * (load.key_size + load.value_size)
    short = [name for name, written in run.written_bytes.items() if written < data]
    return f"{', '.join(short)} wrote less than the {data} bytes of data" if short else ""


def measure_agents(seconds: float) -> Round:
    found: Round = {}
    with agents() as cluster:
        for name, load in LOADS.items():
            at = cluster.follower() if name.startswith("stale") else ""
            try:
                run = run_load(cluster, load, at=at, seconds=seconds)
            except RaftctlFailed as failure:
                print(f"{name}: {failure}", file=sys.stderr)
                continue
            problem = complaint(load, run)
            if problem:
                print(f"{name}: {problem}", file=sys.stderr)
            found[name] = {
                "ops_per_s": run.bench["ops_per_s"],
                "p50_ms": run.bench["p50_ms"],
                "p99_ms": run.bench["p99_ms"],
                "errors": run.bench["errors"],
                "unknown": run.bench["unknown"],
                "is_sound": not problem,
                "committed": run.committed,
                "written_bytes": min(run.written_bytes.values()),
            }
    return found


def measure_etcd(seconds: float) -> Round:
    found: Round = {}
    with Etcd.running() as etcd:
        try:
            found[ETCD_ONE] = etcd.one_client(seconds, _SMALL_KEY_BYTES, _SMALL_VALUE_BYTES)
        except ImportError:
            print("etcd-client-py is not installed: no latency of etcd", file=sys.stderr)
        found[ETCD_MANY] = {"ops_per_s": etcd.check_perf()}
    return found


def measure_pysyncobj(seconds: float) -> Round:
    with PySyncObj.running() as cluster:
        return {PYSYNCOBJ: cluster.load(seconds, 1000, _KEY_BYTES, _VALUE_BYTES)}


def run_rounds(rounds: int, seconds: float, kept: Path | None) -> list[Round]:
    """Every system once in each round, in the opposite order every other time; `kept`: a file for
    the rounds that are done."""
    systems: list[Callable[[float], Round]] = [measure_agents]
    systems += [measure_etcd] if Etcd.version() else []
    systems += [measure_pysyncobj] if PySyncObj.version() else []
    done: list[Round] = []
    for number in range(rounds):
        found: Round = {}
        for system in systems if number % 2 == 0 else reversed(systems):
            found |= system(seconds)
        done.append(found)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(done, indent=1) + "\n")
        print(f"round {number + 1} of {rounds} is done", file=sys.stderr)
    return done


def spread(values: list[float], digits: int = 0) -> str:
    """The median, and the lowest and highest in brackets."""
    if not values:
        return "not measured"
    low, high = min(values), max(values)
    middle = statistics.median(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def tables(done: list[Round]) -> str:
    """The rounds in Markdown: figures, then ratios."""
    lines = ["| case | operations/s | p50 ms | p99 ms | errors, unknown |", "|---|--:|--:|--:|--:|"]
    for name in [*LOADS, ETCD_MANY, ETCD_ONE, PYSYNCOBJ]:
        runs = [found[name] for found in done if name in found]
        if not runs:
            continue
        rates = [run["ops_per_s"] for run in runs]
        p50, p99 = (
            spread([run[key] for run in runs], 2) if key in runs[0] else ""
            for key in ("p50_ms", "p99_ms")
        )
        bad = sum(int(run.get("errors", 0) + run.get("unknown", 0)) for run in runs)
        lines.append(f"| {name} | {spread(rates)} | {p50} | {p99} | {bad} |")
    lines += ["", "| ratio within a round | median (lowest to highest) |", "|---|--:|"]
    for text, ours, theirs, key in RATIOS:
        ratios = [
            found[ours][key] / found[theirs][key]
            for found in done
            if ours in found and found.get(theirs, {}).get(key)
        ]
        lines.append(f"| {text} | {spread(ratios, 2)} |")
    return "\n".join(lines)


def versions() -> str:
    etcd, pysyncobj = Etcd.version() or "not here", PySyncObj.version() or "not here"
    return f"etcd {etcd}, PySyncObj {pysyncobj}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path, help="keep all rounds in this file")
    arguments = parser.parse_args()
    end_in_order()
    done = run_rounds(arguments.rounds, arguments.seconds, arguments.json)
    print(f"{versions()}, {len(done)} rounds\n\n{tables(done)}")
    return 0 if all(run.get("is_sound", True) for found in done for run in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
