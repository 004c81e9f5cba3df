"""Plant faults and see how soon they are noticed.

`python -m tests.sim.planted` runs every fault from seed 0 on until it is caught, and prints the
table of docs/testing.md. `--rate` makes all of the `--seeds` runs and counts; `--fault NAME`
takes one fault only. A fault with a test of the core to catch it is given to that one.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections import Counter

from tests.sim.planted.catalogue import FAULTS
from tests.sim.planted.fault import Fault, complaint, fails_unit_test

HEADER = ("fault", "what it does", "runs", "caught in run", "caught by")


def _in_runs(fault: Fault, seeds: int, *, every: bool) -> tuple[int, tuple[str, ...]]:
    """(first seed that caught it or -1, cells of the table)."""
    first, caught = -1, 0
    said: Counter[str] = Counter()
    for seed in range(seeds):
        gc.collect()
        told = complaint(fault, seed)
        if told:
            caught += 1
            said[told] += 1
            first = seed if first < 0 else first
            if not every:
                break
    runs = str(first + 1) if first >= 0 else f"none of {seeds}"
    if every and caught:
        runs += f" ({caught} of {seeds})"
    runs_of = fault.focus.__name__ if fault.scenario is None else "rescue"
    return first, (runs_of, runs, "; ".join(rule for rule, _ in said.most_common(3)))


def _in_unit_test(fault: Fault) -> tuple[int, tuple[str, ...]]:
    module, _, function = fault.unit_test.partition(":")
    noticed = fails_unit_test(fault)
    return (0, ("-", "-", f"{module}.py: {function}")) if noticed else (-1, ("-", "-", "nothing"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.planted", description=__doc__)
    parser.add_argument("--fault", help="only this one")
    parser.add_argument("--seeds", type=int, default=300, help="give up after so many runs")
    parser.add_argument("--rate", action="store_true", help="run all the seeds and count")
    arguments = parser.parse_args()
    chosen = [fault for fault in FAULTS if arguments.fault in (None, fault.name)]
    if not chosen:
        print(f"no fault is called {arguments.fault}", file=sys.stderr)
        return 2
    gc.disable()
    missed = 0
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for fault in chosen:
        if fault.unit_test:
            first, cells = _in_unit_test(fault)
        else:
            first, cells = _in_runs(fault, arguments.seeds, every=arguments.rate)
        missed += first < 0
        print(f"| {' | '.join((f'`{fault.name}`', fault.wrong, *cells))} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
