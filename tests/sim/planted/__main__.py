"""Plant faults and see how soon the simulator complains.

`python -m tests.sim.planted` runs every fault from seed 0 on until it is caught and prints the
table of docs/testing.md; `--fault NAME` one of them; `--rate` all of the first `--seeds` runs.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections import Counter

from tests.sim.planted.catalogue import FAULTS
from tests.sim.planted.fault import Fault, complaint


def _hunt(fault: Fault, seeds: int, *, every: bool) -> tuple[int, int, Counter[str]]:
    """(first seed that caught it or -1, runs that did, what they said)."""
    first, caught = -1, 0
    said: Counter[str] = Counter()
    for seed in range(seeds):
        gc.collect()
        told = complaint(fault, seed)
        if told:
            caught += 1
            said[told] += 1
            if first < 0:
                first = seed
            if not every:
                break
    return first, caught, said


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
    missed = 0
    gc.disable()
    for fault in chosen:
        first, caught, said = _hunt(fault, arguments.seeds, every=arguments.rate)
        missed += first < 0
        runs = f"run {first + 1}" if first >= 0 else f"not in {arguments.seeds} runs"
        share = f", {caught} of {arguments.seeds}" if arguments.rate else ""
        told = "; ".join(f"{rule} ({n})" for rule, n in said.most_common(4))
        print(f"| {fault.name} | {runs}{share} | {told} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
