"""Small changes to a syntax tree, each of which should break a program that is tested well.

`mutants_of(module)` lists every one of them. What is left out, and why, is said at `_is_left_out`.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONSENSUS = Path(__file__).parents[2] / "node_agent" / "raft_agent" / "consensus"

# These only say what messages, events and effects look like; nothing in them decides anything.
_ONLY_DATA = {"__init__", "data", "effects", "events", "messages", "types"}
MODULES = tuple(sorted(path.stem for path in CONSENSUS.glob("*.py") if path.stem not in _ONLY_DATA))

Path_ = tuple[tuple[str, int | None], ...]

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitOr,
}
_TWINS = {"min": "max", "max": "min", "popleft": "pop", "bisect_right": "bisect_left"}


@dataclass(frozen=True)
class Mutant:
    """One change: in `module` (a stem of consensus/*.py) at `line`, `before` became `after`.

    `in_function`: it is in the body of a function, so nothing of it happens at import.
    """

    module: str
    line: int
    operator: str
    before: str
    after: str
    in_function: bool
    place: Path_
    replacement: ast.AST

    @property
    def name(self) -> str:
        return f"{self.module}.py:{self.line} {self.operator}: {self.before}  →  {self.after}"

    def tree(self) -> ast.Module:
        """The whole module with this change in it."""
        tree = copy.deepcopy(parse(self.module))
        parent: ast.AST = tree
        for field, index in self.place[:-1]:
            parent = _child(parent, field, index)
        field, index = self.place[-1]
        new = copy.deepcopy(self.replacement)
        if index is None:
            setattr(parent, field, new)
        else:
            getattr(parent, field)[index] = new
        return ast.fix_missing_locations(tree)


def parse(module: str) -> ast.Module:
    return ast.parse((CONSENSUS / f"{module}.py").read_text())


def mutants_of(module: str) -> list[Mutant]:
    """Every mutant of consensus/`module`.py, in the order of the source; the same each time."""
    found = []
    tree = parse(module)
    for place, node, parents in _walk(tree, (), ()):
        inside = any(
            isinstance(parent, ast.FunctionDef) and field == "body"
            for parent, (field, _) in zip(parents, place, strict=True)
        )
        for operator, replacement in _changes(node, parents):
            line = getattr(node, "lineno", 0)
            before, after = _text(node), _text(replacement)
            if ast.dump(node) != ast.dump(replacement):
                found.append(
                    Mutant(module, line, operator, before, after, inside, place, replacement)
                )
    return found


def _child(parent: ast.AST, field: str, index: int | None) -> ast.AST:
    value = getattr(parent, field)
    node: ast.AST = value if index is None else value[index]
    return node


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:60]} … {text[-27:]}"


def _walk(
    node: ast.AST, place: Path_, parents: tuple[ast.AST, ...]
) -> Iterator[tuple[Path_, ast.AST, tuple[ast.AST, ...]]]:
    """All nodes that may be changed, with the way to them."""
    for field, value in ast.iter_fields(node):
        for index, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if not isinstance(child, ast.AST) or _is_left_out(node, field, index, child):
                continue
            where = (*place, (field, index))
            above = (*parents, node)
            yield where, child, above
            yield from _walk(child, where, above)


def _calls(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and (
        (isinstance(node.func, ast.Attribute) and node.func.attr == name)
        or (isinstance(node.func, ast.Name) and node.func.id == name)
    )


def _is_note(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and _calls(node.value, "note")


def _is_of_super(node: ast.AST) -> bool:
    """`super().…(…)`: only errors have it, for their words; without it the function would not even
    be of the same kind any more, which can't be put into a running one."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and _calls(node.func.value, "super")
    )


def _is_left_out(parent: ast.AST, field: str, index: int | None, child: ast.AST) -> bool:
    """What can't change behaviour by design; every line here says why.

    Everything else is mutated, whether somebody thinks it matters or not.
    """
    # Types are for the type checker.
    if field in {"annotation", "returns"} or isinstance(child, ast.Import | ast.ImportFrom):
        return True
    if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
        return True
    # Struct options (frozen, gc) and decorators say how a class is made, not what it does.
    if field in {"decorator_list", "keywords"} and isinstance(
        parent, ast.ClassDef | ast.FunctionDef
    ):
        return True
    # __slots__ saves memory.
    if isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) == "__slots__":
        return True
    # Notes are lines for people's logs; no part of the core or of a host acts on one.
    if _is_note(child) or (
        isinstance(child, ast.If) and not child.orelse and all(map(_is_note, child.body))
    ):
        return True
    if isinstance(child, ast.Expr) and _is_of_super(child.value):
        return True
    # The words and facts of an error or of a broken invariant; the condition is mutated.
    if isinstance(parent, ast.Raise) and field == "exc":
        return True
    if _calls(parent, "require") and (field == "keywords" or (index or 0) > 0):
        return True
    # When resident batches are dropped is a matter of memory: what is not there is read from disk,
    # and the simulator runs with a limit of 0 as well. What may be dropped is mutated.
    return isinstance(child, ast.If) and ast.unparse(child.test) == (
        "self.resident_bytes <= 2 * keep_bytes"
    )


def _changes(node: ast.AST, parents: tuple[ast.AST, ...]) -> Iterator[tuple[str, ast.AST]]:
    """(operator, replacement) for one node."""
    if isinstance(node, ast.stmt):
        yield from _statement_changes(node, parents)
    elif isinstance(node, ast.Compare):
        for position, operator in enumerate(node.ops):
            changed = copy.copy(node)
            changed.ops = list(node.ops)
            changed.ops[position] = _COMPARISONS[type(operator)]()
            yield "comparison", changed
    elif isinstance(node, ast.BoolOp):
        changed_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", ast.BoolOp(changed_op, node.values)
        for position in range(len(node.values)):
            rest = node.values[:position] + node.values[position + 1 :]
            yield "operand removed", rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not removed", node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        changed_binary = ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
        yield "arithmetic", changed_binary
    elif isinstance(node, ast.IfExp):
        yield "branches swapped", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Constant):
        yield from _constant_changes(node)
    elif isinstance(node, ast.Call):
        yield from _call_changes(node)
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield "filter removed", ast.comprehension(node.target, node.iter, [], node.is_async)


def _constant_changes(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    value = node.value
    if isinstance(value, bool):
        yield "constant", ast.Constant(not value)
    elif isinstance(value, int):
        yield "constant", ast.Constant(value + 1)
        if value == 1:
            yield "constant", ast.Constant(0)


def _call_changes(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if isinstance(node.func, ast.Name):
        name = node.func.id
    if name in _TWINS:
        function = copy.copy(node.func)
        if isinstance(function, ast.Attribute):
            function.attr = _TWINS[name]
        elif isinstance(function, ast.Name):
            function.id = _TWINS[name]
        yield "twin called", ast.Call(function, node.args, node.keywords)
    for position, keyword in enumerate(node.keywords):
        if keyword.arg is not None and not _calls(node, "require"):
            rest = node.keywords[:position] + node.keywords[position + 1 :]
            yield "keyword removed", ast.Call(node.func, node.args, rest)


def _statement_changes(
    node: ast.stmt, parents: tuple[ast.AST, ...]
) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.If):
        yield "condition true", _with_test(node, True)
        yield "condition false", _with_test(node, False)
        if node.orelse:
            changed = copy.copy(node)
            changed.orelse = []
            yield "branch removed", changed
    elif isinstance(node, ast.Return) and node.value is not None:
        yield from _return_changes(node)
    elif _may_go(node, parents):
        yield "statement removed", ast.Pass()
    if isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
        yield "arithmetic", ast.AugAssign(node.target, _ARITHMETIC[type(node.op)](), node.value)


def _may_go(node: ast.stmt, parents: tuple[ast.AST, ...]) -> bool:
    """Whether it says something to take this statement out."""
    parent = parents[-1]
    if isinstance(parent, ast.If) and parent.body == [node] and not parent.orelse:
        return False  # the same as if the condition were false
    if isinstance(node, ast.Assign):
        return not _makes_a_name(node, parents)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if isinstance(node, ast.While):
        return not isinstance(node.test, ast.Constant)
    return isinstance(
        node,
        ast.For | ast.AugAssign | ast.Return | ast.Break | ast.Continue | ast.Raise | ast.Delete,
    )


def _makes_a_name(node: ast.Assign, parents: tuple[ast.AST, ...]) -> bool:
    """Without such an assignment the next use is a NameError or AttributeError: a mutant that dies
    by itself and only makes the numbers look better."""
    function = next((p for p in reversed(parents) if isinstance(p, ast.FunctionDef)), None)
    if function is None or function.name == "__init__":
        return True
    return all(isinstance(target, ast.Name) for target in node.targets)


def _with_test(node: ast.If, value: bool) -> ast.If:
    changed = copy.copy(node)
    changed.test = ast.Constant(value)
    return changed


def _return_changes(node: ast.Return) -> Iterator[tuple[str, ast.AST]]:
    value = node.value
    if isinstance(value, ast.Constant):
        return  # its value is changed as a constant
    if isinstance(value, ast.Compare | ast.BoolOp) or (
        isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
    ):
        yield "returns true", ast.Return(ast.Constant(True))
        yield "returns false", ast.Return(ast.Constant(False))
    else:
        yield "returns nothing", ast.Return(ast.Constant(None))
