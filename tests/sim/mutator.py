"""Change the core in every small way there is, and see whether the tests notice.

`python -m tests.sim.mutator` tries every mutant of consensus/*.py: first the unit tests of the
core, then simulated runs. It prints each survivor and the table of docs/testing.md. `--module`
restricts it, `--lines A:B` too; `--sample N --rng-seed S` takes some of the mutants. With `--tests`
only these unit tests are tried, which is quicker where they are meant to kill all.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import random
import selectors
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import Phase, settings

from tests.sim.mutant_trial import (
    PYTEST_MODE,
    PYTEST_OPTIONS,
    UNIT_TESTS,
    FirstFailure,
    Limits,
    Trial,
    Verdict,
    by_exchange,
    by_import,
    in_child,
)
from tests.sim.mutations import MODULES, Mutant, mutants_of

_ROOT = Path(__file__).parents[2]
KILLED_BY = ("import", "unit", "sim", "hang", "death")


class TrialError(RuntimeError):
    """A trial could not be held: the fault is the mutator's, or the code does not pass as it is."""


class _Pool:
    """So many trials at once. A line for each verdict goes to `report` as it falls."""

    def __init__(self, processes: int, report: TextIO) -> None:
        self._processes = processes
        self._report = report
        self._selector = selectors.DefaultSelector()
        self._running = 0
        self.verdicts: dict[Mutant, Verdict] = {}
        self.kills: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def run(self, trial: Trial, mutants: list[Mutant]) -> None:
        """Try all of them; but first the code as it is, which must survive."""
        self._start(trial, None)
        self._wait()
        for mutant in mutants:
            if self._running == self._processes:
                self._wait()
            self._start(trial, mutant)
        while self._running:
            self._wait()

    def _start(self, trial: Trial, mutant: Mutant | None) -> None:
        reader, child = in_child(trial, mutant)
        self._selector.register(reader, selectors.EVENT_READ, (mutant, child, []))
        self._running += 1

    def _wait(self) -> None:
        """Until at least one trial is over."""
        running = self._running
        while running == self._running:
            for key, _ in self._selector.select():
                mutant, child, told = key.data
                data = os.read(key.fd, 1 << 16)
                told.append(data)
                if not data:
                    self._selector.unregister(key.fd)
                    os.close(key.fd)
                    self._running -= 1
                    self._end(mutant, _verdict(child, b"".join(told)))

    def _end(self, mutant: Mutant | None, verdict: Verdict) -> None:
        if verdict.stage == "error":
            raise TrialError(f"{mutant.name if mutant else 'no mutant'}: {verdict.by}")
        if mutant is None:
            if verdict.stage != "survived":
                raise TrialError(f"the code as it is does not pass: {verdict}")
            return
        self.verdicts[mutant] = verdict
        if verdict.stage == "unit":
            self.kills[mutant.module][verdict.by] += 1
        line = f"{verdict.stage}\t{verdict.runs}\t{verdict.by}\t{mutant.name}"
        print(line, file=self._report, flush=True)


def _verdict(child: int, told: bytes) -> Verdict:
    _, status = os.waitpid(child, 0)
    lines = told.splitlines()
    verdict = Verdict(*json.loads(lines[-1])) if lines else Verdict("death", "at its start")
    if verdict.stage == "hang" and not os.WIFSIGNALED(status):
        # It ended by itself while a stage was under way: the interpreter gave up.
        return Verdict("death", verdict.by, verdict.runs)
    return verdict


class _Session:
    """A pytest plugin: once the tests are collected, trials are held with them."""

    def __init__(self, pool: _Pool, limits: Limits, mutants: list[Mutant]) -> None:
        self._pool = pool
        self._limits = limits
        self._mutants = mutants
        self.first = FirstFailure()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        # What is imported here is not imported again in each child.
        importlib.import_module("tests.sim.run")
        gc.collect()
        gc.freeze()
        trial = by_exchange(self._limits, session, self.first, self._pool.kills)
        self._pool.run(trial, self._mutants)
        return True


def try_all(
    mutants: list[Mutant], limits: Limits, processes: int, report: TextIO
) -> dict[Mutant, Verdict]:
    """Raises TrialError when the code does not pass as it is."""
    # None of the installed plugins is needed, and each of them costs every trial time. Nor is the
    # smallest example of a failure, which may take long to find, or its memory in a file.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile(
        "mutants", deadline=None, database=None, derandomize=True, phases=phases
    )
    settings.load_profile("mutants")
    pool = _Pool(processes, report)
    at_import = [mutant for mutant in mutants if not mutant.in_function]
    if at_import:
        pool.run(by_import(limits), at_import)
    session = _Session(pool, limits, [mutant for mutant in mutants if mutant.in_function])
    status = pytest.main(
        [*PYTEST_OPTIONS, PYTEST_MODE, *limits.tests], plugins=[session, session.first]
    )
    if len(pool.verdicts) != len(mutants):
        raise TrialError(f"pytest ended with {int(status)} {session.first.name}")
    return {mutant: pool.verdicts[mutant] for mutant in mutants}


def chosen(arguments: argparse.Namespace) -> list[Mutant]:
    """The mutants that the command line asks for."""
    modules = arguments.module or MODULES
    mutants = [mutant for module in modules for mutant in mutants_of(module)]
    if arguments.lines:
        first, _, last = arguments.lines.partition(":")
        mutants = [m for m in mutants if int(first) <= m.line <= int(last or first)]
    if arguments.sample and arguments.sample < len(mutants):
        picked = random.Random(arguments.rng_seed).sample(range(len(mutants)), arguments.sample)
        mutants = [mutants[number] for number in sorted(picked)]
    return mutants


def table(verdicts: dict[Mutant, Verdict]) -> list[str]:
    """Per module: how many there are, how many died, and of what."""
    lines = [
        "| module | mutants | killed | unit tests | simulator | import | hang or death |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    counts: dict[str, Counter[str]] = {}
    for mutant, verdict in verdicts.items():
        counts.setdefault(mutant.module, Counter())[verdict.stage] += 1
    for module, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        killed = sum(count[stage] for stage in KILLED_BY)
        share = killed / count.total() if count else 0.0
        lines.append(
            f"| {module} | {count.total()} | {killed} ({share:.1%}) | {count['unit']} | "
            f"{count['sim']} | {count['import']} | {count['hang'] + count['death']} |"
        )
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutator", description=__doc__)
    parser.add_argument("--module", action="append", choices=MODULES, help="only this one")
    parser.add_argument("--lines", metavar="A:B", help="only mutants of these lines")
    parser.add_argument("--sample", type=int, help="only so many, drawn by chance")
    parser.add_argument("--rng-seed", type=int, default=0, help="of that draw")
    parser.add_argument("--list", action="store_true", help="print the mutants, try none")
    parser.add_argument("--seeds", metavar="A:B", default="0:50", help="of the simulator")
    parser.add_argument("--events", type=int, default=2000, help="of each simulated run")
    parser.add_argument("--tests", nargs="+", default=[UNIT_TESTS], help="the unit tests to try")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--report", type=Path, help="a file that gets a line per mutant")
    parser.add_argument("--at-least", type=float, default=0.0, help="fail below this share killed")
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    os.chdir(_ROOT)
    mutants = chosen(arguments)
    if arguments.list:
        print("\n".join(mutant.name for mutant in mutants))
        return 0
    first, _, last = arguments.seeds.partition(":")
    limits = Limits(range(int(first), int(last)), arguments.events, tests=arguments.tests)
    started = time.monotonic()
    try:
        with (arguments.report or Path(os.devnull)).open("w") as report:
            verdicts = try_all(mutants, limits, arguments.processes, report)
    except TrialError as error:
        print(error, file=sys.stderr)
        return 2
    for mutant, verdict in verdicts.items():
        if verdict.stage == "survived":
            print(f"survived: {mutant.name}")
    print("\n".join(table(verdicts)))
    killed = sum(verdict.stage in KILLED_BY for verdict in verdicts.values())
    share = killed / len(mutants) if mutants else 1.0
    print(f"{killed} of {len(mutants)} killed ({share:.1%}) in {time.monotonic() - started:.0f} s")
    return 1 if share < arguments.at_least else 0


if __name__ == "__main__":
    sys.exit(main())
