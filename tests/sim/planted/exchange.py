"""Give running functions other code, without importing anything anew.

Whoever holds the function, a bound method or a subclass has the other code with it.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType


class ExchangeError(RuntimeError):
    """What is to be exchanged is no plain function or method."""


def exchange(module_name: str, right: ast.Module, wrong: ast.Module) -> None:
    """Give the functions of a module the code that `wrong` has for them, for good."""
    for function, code in changed_functions(importlib.import_module(module_name), right, wrong):
        function.__code__ = code


def changed_functions(
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
    elif isinstance(found, classmethod | staticmethod):
        found = found.__func__
    if not isinstance(found, FunctionType):
        raise ExchangeError(f"{module.__name__}.{qualified_name} is no plain function")
    return found
