"""Torture a cluster of real agents: `python -m tests.torture --minutes 10 --seed 1`.

Seeds follow each other until the time is over, one cluster each. A run that fails keeps its
history, logs and data, and the command that repeats its plan is printed; one that goes well leaves
nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.torture import report
from tests.torture.ending import end_in_order
from tests.torture.run import WEIGHTS, torture
from tests.torture.world import Options, missing

RUN_MINUTES = 5.0


def options_of(seed: int) -> Options:
    """Every other cluster has clocks that drift; every fourth begins with five voters."""
    return Options(seed, voters=5 if seed % 4 == 3 else 3, skewed=seed % 2 == 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=RUN_MINUTES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--run-minutes", type=float, default=RUN_MINUTES, help="for each seed")
    parser.add_argument("--only", default="", help="kinds of strikes, with commas between them")
    parser.add_argument("--keep", action="store_true", help="keep the files of all runs")
    parser.add_argument("--json", type=Path, help="add a line for each run to this file")
    arguments = parser.parse_args()
    end_in_order()
    reason = missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    kinds = arguments.only.split(",") if arguments.only else list(WEIGHTS)
    weights = {kind: WEIGHTS[kind] for kind in kinds}
    ends = time.monotonic() + arguments.minutes * 60
    failed, seed, all_strikes = 0, arguments.seed, Counter[str]()
    while seed == arguments.seed or time.monotonic() + 30 < ends:
        minutes = min(arguments.run_minutes, max((ends - time.monotonic()) / 60, 0.2))
        directory = Path(tempfile.mkdtemp(prefix=f"raft-torture-{seed}-"))
        verdict = torture(directory, options_of(seed), minutes, weights)
        print(report.text(verdict), flush=True)
        if arguments.json:
            report.append(verdict, arguments.json)
        if verdict.complaints:
            failed += 1
            print(report.again(seed, minutes, directory, arguments.only))
        elif not arguments.keep:
            shutil.rmtree(directory)
        all_strikes += verdict.strikes
        seed += 1
    print(f"{seed - arguments.seed} runs, {failed} failed, {all_strikes.total()} strikes")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
