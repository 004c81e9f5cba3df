"""Plant a fault: put a wrong line into the running code, and take it out again.

A fault is written as a replacement in a module's source. The text that it replaces must be there
exactly once, so a fault whose place has changed is an error and not a test that proves nothing.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType


@dataclass(frozen=True)
class Edit:
    """In the source of `module`, `old` becomes `new`."""

    module: str
    old: str
    new: str


@dataclass(frozen=True)
class Fault:
    """One wrong program. `wrong` says what it does, `rule` is what the simulator's complaint about
    it must contain (any of them), and `seed` a run in which it complains.
    """

    name: str
    wrong: str
    edits: tuple[Edit, ...]
    rules: tuple[str, ...]
    seed: int = 0


class StaleFaultError(AssertionError):
    """The code has changed under a planted fault: write the fault anew."""


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
    found = _changed(module, right, wrong)
    if not found:
        raise StaleFaultError(f"fault {fault.name} changes nothing in {path.name}")
    return found


def exchange(module_name: str, right: ast.Module, wrong: ast.Module) -> None:
    """Give the functions of a module the code that `wrong` has for them, for good."""
    for function, code in _changed(importlib.import_module(module_name), right, wrong):
        function.__code__ = code


def _changed(
    module: ModuleType, right: str | ast.Module, wrong: str | ast.Module
) -> list[tuple[FunctionType, CodeType]]:
    """The module's functions that are not the same in `wrong`, with the code they have there."""
    path = str(module.__file__)
    before = dict(_functions(compile(right, path, "exec")))
    after = dict(_functions(compile(wrong, path, "exec")))
    changed = [name for name, code in after.items() if not _is_same(before[name], code)]
    return [(_live(module, name), after[name]) for name in changed]


def _functions(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    """Functions and methods of a module by qualified name; what is within them belongs to them."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and "<" not in constant.co_qualname:
            if constant.co_flags & 0x2:  # CO_NEWLOCALS: a function; a class body has it not
                yield constant.co_qualname, constant
            else:
                yield from _functions(constant)


def _is_same(one: CodeType, other: CodeType) -> bool:
    """Whether both do the same; line numbers apart."""
    if (one.co_code, one.co_names, one.co_varnames) != (
        other.co_code,
        other.co_names,
        other.co_varnames,
    ):
        return False
    if len(one.co_consts) != len(other.co_consts):
        return False
    for mine, its in zip(one.co_consts, other.co_consts, strict=True):
        if isinstance(mine, CodeType) and isinstance(its, CodeType):
            if not _is_same(mine, its):
                return False
        elif mine != its or type(mine) is not type(its):
            return False
    return True


def _live(module: ModuleType, qualified_name: str) -> FunctionType:
    *owners, name = qualified_name.split(".")
    owner: object = module
    for part in owners:
        owner = getattr(owner, part)
    found = vars(owner)[name]
    if isinstance(found, property):
        found = found.fget
    if not isinstance(found, FunctionType):
        raise StaleFaultError(f"{module.__name__}.{qualified_name} is no plain function")
    return found
