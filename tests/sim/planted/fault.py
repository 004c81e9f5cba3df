"""Plant a fault: put a wrong line into the running code, and take it out again.

A fault is written as a replacement in a module's source. The text that it replaces must be there
exactly once, so a fault whose place has changed is an error and not a test that proves nothing.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType

from raft_agent.consensus.invariants import BrokenInvariantError
from tests.sim.cluster import Cluster
from tests.sim.options import options_for
from tests.sim.planted.exchange import changed_functions
from tests.sim.planted.focus import Focus, no_audits, no_exports, swarm
from tests.sim.planted.verdict import complaint_of


@dataclass(frozen=True)
class Edit:
    """In the source of `module`, `old` becomes `new`."""

    module: str
    old: str
    new: str


@dataclass(frozen=True)
class Fault:
    """One wrong program. `wrong` says what it does; what the simulator says of it must contain one
    of `rules`. `focus` narrows the runs in which it is looked for; `seed` is one that catches it.

    `scenario`: the run of a seed, in the place of the swarm's.
    `unit_test` ("module:function"): the test of the core that catches it, where simulated runs do
    so too rarely to be relied on.
    """

    name: str
    wrong: str
    edits: tuple[Edit, ...]
    rules: tuple[str, ...]
    focus: Focus = swarm
    seed: int = 0
    unit_test: str = ""
    scenario: Callable[[int], object] | None = None


class StaleFaultError(AssertionError):
    """The code has changed under a planted fault: write the fault anew."""


def complaint(fault: Fault, seed: int) -> str:
    """What the simulator says of the fault in run `seed`; "" when it does not notice it."""
    with planted(fault):
        try:
            if fault.scenario is not None:
                fault.scenario(seed)
            else:
                Cluster(seed, fault.focus(no_exports(no_audits(options_for(seed))))).run()
        except Exception:
            return complaint_of(traceback.format_exc())
    return ""


def fails_unit_test(fault: Fault) -> bool:
    """Whether the fault's own test of the core notices it."""
    module, _, function = fault.unit_test.partition(":")
    test = getattr(importlib.import_module(f"tests.unit.consensus.{module}"), function)
    with planted(fault):
        try:
            for arguments in _cases(test):
                test(*arguments)
        except (AssertionError, BrokenInvariantError):
            return True
    return False


def _cases(test: FunctionType) -> list[tuple[object, ...]]:
    """What a test is called with: nothing, or one after the other what its mark lists."""
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            names, cases = mark.args
            return (
                list(cases)
                if "," in names or not isinstance(names, str)
                else [(case,) for case in cases]
            )
    return [()]


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """The fault is in the code within this block."""
    originals: list[tuple[FunctionType, CodeType]] = []
    try:
        for module_name in dict.fromkeys(edit.module for edit in fault.edits):
            edits = [edit for edit in fault.edits if edit.module == module_name]
            for function, code in _replacements(fault, module_name, edits):
                originals.append((function, function.__code__))
                function.__code__ = code
        yield
    finally:
        for function, code in reversed(originals):
            function.__code__ = code


def _replacements(
    fault: Fault, module_name: str, edits: list[Edit]
) -> list[tuple[FunctionType, CodeType]]:
    module = importlib.import_module(module_name)
    path = Path(module.__file__ or "")
    right = wrong = path.read_text()
    for edit in edits:
        if right.count(edit.old) != 1:
            raise StaleFaultError(
                f"fault {fault.name}: {path.name} holds {right.count(edit.old)} times, not once:\n"
                f"{edit.old}"
            )
        wrong = wrong.replace(edit.old, edit.new)
    found = changed_functions(module, right, wrong)
    if not found:
        raise StaleFaultError(f"fault {fault.name} changes nothing in {path.name}")
    return found
