"""One mutant on trial, in a process of its own: it is killed, or it survives.

A trial never writes to the working tree. It runs in a forked child, so a mutant that hangs, eats
memory or breaks the interpreter harms nobody. Two kinds of trial do the same at different cost:

- `by_import`: the child has imported none of our code yet, and an import hook gives it the mutated
  module in the place of the real one. For changes to what a module does when it is imported.
- `by_exchange`: everything is imported and the tests are collected before the fork, and the child
  exchanges the code of the mutated functions. For all other changes, which are nearly all.
"""

from __future__ import annotations

import ast
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from tests.sim.mutations import CONSENSUS, Mutant, parse
from tests.sim.planted.exchange import exchange
from tests.sim.planted.verdict import complaint_of

UNIT_TESTS = "tests/unit/consensus"
PYTEST_OPTIONS = ("-s", "-p", "no:cacheprovider", "-p", "no:terminal", "-o", "addopts=")
PYTEST_MODE = "--import-mode=importlib"
_PACKAGE = "raft_agent.consensus"
_MEMORY_BYTES = 4 << 30


@dataclass(frozen=True)
class Limits:
    """`seeds` of the simulator, each of `events`; CPU seconds for the unit tests and for all the
    runs of the simulator, after which a mutant counts as one that hangs. `tests`: paths of the unit
    tests.
    """

    seeds: Sequence[int]
    events: int = 2000
    unit_cpu_s: int = 40
    sim_cpu_s: int = 40
    tests: Sequence[str] = (UNIT_TESTS,)


@dataclass(frozen=True)
class Verdict:
    """`stage`: "import", "unit" or "sim" killed it, "hang" or "death" of the interpreter did, or it
    "survived". `by`: the test, or the complaint; `runs`: how many seeds were run.
    """

    stage: str
    by: str = ""
    runs: int = 0


Tell = Callable[[Verdict], None]
Trial = Callable[[Mutant | None, Tell], None]


class FirstFailure:
    """A pytest plugin: the name of the first test that failed.

    It leaves out tests that start another interpreter: that one runs the code as it is, so such a
    test would find that every mutant differs from it, which is not what it is there for.
    """

    def __init__(self) -> None:
        self.name = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if not _starts_interpreter(item)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = short_name(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.name:
            self.name = f"{short_name(report.nodeid)} can't be imported"


def _starts_interpreter(item: pytest.Item) -> bool:
    function = getattr(item, "function", None)
    return function is not None and "subprocess" in function.__code__.co_names


def in_child(trial: Trial, mutant: Mutant | None) -> tuple[int, int]:
    """Fork and hold the trial there. Returns a file descriptor, from which the verdict is read (one
    line of JSON per stage, the last one counts), and the child's process id.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return reader, child
    status = 1
    try:
        os.close(reader)
        quiet = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(quiet, descriptor)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))

        def tell(verdict: Verdict) -> None:
            line = json.dumps([verdict.stage, verdict.by, verdict.runs])
            os.write(writer, line.encode() + b"\n")

        trial(mutant, tell)
        status = 0
    finally:
        os._exit(status)


def _allow_cpu(seconds: int) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until_s = int(usage.ru_utime + usage.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until_s, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)


# --- by import


class _Loader(importlib.abc.Loader):
    def __init__(self, tree: ast.Module, path: str) -> None:
        self._tree = tree
        self._path = path

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._tree, self._path, "exec"), vars(module))  # noqa: S102


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, module: str, tree: ast.Module) -> None:
        self._name = f"{_PACKAGE}.{module}"
        self._path = str(CONSENSUS / f"{module}.py")
        self._tree = tree

    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        loader = _Loader(self._tree, self._path)
        return importlib.util.spec_from_file_location(fullname, self._path, loader=loader)


def by_import(limits: Limits) -> Trial:
    """Only where nothing of raft_agent has been imported."""

    def trial(mutant: Mutant | None, tell: Tell) -> None:
        if mutant is not None:
            sys.meta_path.insert(0, _Finder(mutant.module, mutant.tree()))
        _allow_cpu(limits.unit_cpu_s)
        tell(Verdict("hang", "at import"))
        try:
            importlib.import_module(f"{_PACKAGE}.node")
            importlib.import_module("tests.sim.run")
        except Exception:
            tell(Verdict("import", traceback.format_exc().strip().splitlines()[-1][:100]))
            return
        tell(Verdict("hang", "in the unit tests"))
        first = FirstFailure()
        status = pytest.main([*PYTEST_OPTIONS, PYTEST_MODE, "-x", *limits.tests], plugins=[first])
        if status != pytest.ExitCode.OK:
            tell(Verdict("unit", first.name or f"pytest ended with {int(status)}"))
            return
        _simulate(limits, tell)

    return trial


# --- by exchange


def by_exchange(
    limits: Limits,
    session: pytest.Session,
    first: FirstFailure,
    kills: Mapping[str, Counter[str]],
) -> Trial:
    """Within a pytest session that has collected the tests, `first` being one of its plugins.
    `kills`: for each module, how many of its mutants each test has killed so far."""

    def trial(mutant: Mutant | None, tell: Tell) -> None:
        if mutant is not None:
            try:
                exchange(f"{_PACKAGE}.{mutant.module}", parse(mutant.module), mutant.tree())
            except Exception:
                tell(Verdict("error", traceback.format_exc()))
                return
        _allow_cpu(limits.unit_cpu_s)
        tell(Verdict("hang", "in the unit tests"))
        killed = kills[mutant.module] if mutant is not None else Counter()
        items = sorted(session.items, key=lambda item: _rank(item, mutant, killed))
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if first.name:
                tell(Verdict("unit", first.name))
                return
        _simulate(limits, tell)

    return trial


def _rank(item: pytest.Item, mutant: Mutant | None, killed: Counter[str]) -> tuple[int, int]:
    """What kills soonest comes first: what has killed before, then the module's own tests; what
    draws many examples last."""
    kills = killed[short_name(item.nodeid)]
    if kills:
        return 0, -kills
    if mutant is not None and mutant.module in item.path.stem:
        return 1, 0
    draws = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    return (3 if draws or isinstance(item.parent, pytest.Class) else 2), 0


def short_name(node_id: str) -> str:
    """A test without its folder."""
    return node_id.rpartition("/")[2]


# --- the simulator


def _simulate(limits: Limits, tell: Tell) -> None:
    run_seed = importlib.import_module("tests.sim.run").run_seed
    _allow_cpu(limits.sim_cpu_s)
    for runs, seed in enumerate(limits.seeds, 1):
        tell(Verdict("hang", f"in the simulator, seed {seed}", runs))
        outcome = run_seed(seed, events=limits.events)
        if outcome.failure:
            tell(Verdict("sim", complaint_of(outcome.failure), runs))
            return
        gc.collect()
    tell(Verdict("survived", "", len(limits.seeds)))
