"""Run the simulator: `python -m tests.sim.run --seed N [--trace]`, `… --seeds A:B`."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass

from tests.sim.cluster import Cluster
from tests.sim.options import EVENTS, options_for
from tests.sim.trace import Tracer


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. `failure`: the traceback, or "". `cpu_s`: what it cost."""

    seed: int
    events: int
    trace_hash: int
    seen: Counter[str]
    failure: str = ""
    cpu_s: float = 0.0


def run_seed(
    seed: int, *, nodes: int | None = None, events: int = EVENTS, tracer: Tracer | None = None
) -> Outcome:
    """Run one seed to its end, whatever comes."""
    started_s = time.process_time()
    cluster = Cluster(seed, options_for(seed, nodes=nodes, events=events), tracer)
    failure = ""
    collecting = gc.isenabled()
    # A run makes few cycles but many objects: looking for the former costs a fifth of the time.
    gc.disable()
    try:
        cluster.run()
    except Exception:
        failure = traceback.format_exc()
    finally:
        if collecting:
            gc.enable()
    cpu_s = time.process_time() - started_s
    return Outcome(seed, cluster.events, cluster.trace_hash, cluster.seen, failure, cpu_s)


def replay_command(seed: int, nodes: int | None = None, events: int = EVENTS) -> str:
    """What replays a run exactly."""
    command = f".venv/bin/python -m tests.sim.run --seed {seed}"
    if nodes is not None:
        command += f" --nodes {nodes}"
    if events != EVENTS:
        command += f" --events {events}"
    return command


def _one(arguments: argparse.Namespace) -> int:
    tracer = Tracer(print) if arguments.trace else None
    seed = arguments.seed
    options = options_for(seed, nodes=arguments.nodes, events=arguments.events)
    print(f"seed {seed}: {options}")
    outcome = run_seed(seed, nodes=arguments.nodes, events=arguments.events, tracer=tracer)
    print(f"{outcome.events} events, trace {outcome.trace_hash & (1 << 64) - 1:016x}")
    print(", ".join(f"{name} {count}" for name, count in sorted(outcome.seen.items())))
    if outcome.failure:
        print(outcome.failure, file=sys.stderr)
        print(
            "replay: " + replay_command(seed, arguments.nodes, arguments.events) + " --trace",
            file=sys.stderr,
        )
        return 1
    return 0


def _summary(failure: str) -> str:
    """The exception without where it came from."""
    lines = failure.splitlines()
    raised = max(number for number, line in enumerate(lines) if not line.startswith(" "))
    first = next(
        (n for n, line in enumerate(lines) if line.startswith(("tests.", "raft_agent."))), raised
    )
    return lines[first]


def _job(job: tuple[int, int | None, int]) -> Outcome:
    seed, nodes, events = job
    outcome = run_seed(seed, nodes=nodes, events=events)
    if seed % 64 == 0:
        gc.collect()
    return outcome


def _many(arguments: argparse.Namespace) -> int:
    first, _, last = arguments.seeds.partition(":")
    seeds = range(int(first), int(last)) if last else range(int(first))
    jobs = [(seed, arguments.nodes, arguments.events) for seed in seeds]
    started = time.perf_counter()
    seen: Counter[str] = Counter()
    events = failures = done = 0
    cpu_s = 0.0
    with multiprocessing.Pool(arguments.processes) as pool:
        for outcome in pool.imap_unordered(_job, jobs, chunksize=4):
            done += 1
            events += outcome.events
            cpu_s += outcome.cpu_s
            seen.update(outcome.seen)
            if outcome.failure:
                failures += 1
                print(f"seed {outcome.seed} failed: {_summary(outcome.failure)}")
                print(
                    "  replay: " + replay_command(outcome.seed, arguments.nodes, arguments.events)
                )
    seconds = time.perf_counter() - started
    if arguments.coverage:
        for name, count in sorted(seen.items()):
            print(f"{count:10} {name}")
    print(
        f"{done} schedules, {events} events, {failures} failed\n"
        f"{seconds:.1f} s with {arguments.processes} process(es): "
        f"{done / seconds * 3600:.0f} schedules/h, {events / seconds:.0f} events/s\n"
        f"{cpu_s:.1f} s of one core: "
        f"{done / cpu_s * 3600:.0f} schedules/h, {events / cpu_s:.0f} events/s"
    )
    return 1 if failures else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.run", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="run this one and say what happened in it")
    which.add_argument("--seeds", metavar="A:B", help="run A, A+1, … B-1 (or 0 … B-1)")
    parser.add_argument("--trace", action="store_true", help="print every event (with --seed)")
    parser.add_argument("--coverage", action="store_true", help="print what happened how often")
    parser.add_argument("--nodes", type=int, help="this many nodes instead of the seed's choice")
    parser.add_argument("--events", type=int, default=EVENTS, help="events before healing")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    return _one(arguments) if arguments.seed is not None else _many(arguments)


if __name__ == "__main__":
    sys.exit(main())
