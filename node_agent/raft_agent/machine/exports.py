"""Exported maps: which prefixes of the store stand in maps of the kernel, and what fits there.

All of it is decided by the log, alike on every node: whoever puts a key that does not fit under an
exported prefix is refused, so a map can always hold what the store does. What the kernel of one
node does with it is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec

from raft_agent.machine.entry import Entry
from raft_agent.machine.export_types import (
    FieldError,
    FieldType,
    field_type,
    key_type,
    value_type,
)
from raft_agent.machine.results import (
    BadValue,
    ConditionFailed,
    LimitReached,
    StateResult,
    WriteDone,
)
from raft_agent.machine.store import Listing, Store
from raft_agent.machine.watches import KeyChange

MAX_EXPORTS = 64
# Names that ever were exported, whose layouts are remembered.
MAX_NAMES = 1024
MAX_ENTRIES = 1 << 20
MAX_PREFIX_BYTES = 1024
# Of the keys that keep a map from being exported so many are named.
_NAMED = 5

_MAP = re.compile(r"[a-z][a-z0-9_]{0,31}")
_GROUP = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_.-]{0,31})?")
KINDS = ("hash", "lpm_trie")

_Positive = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Export(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The keys below `prefix` stand in the map `map` of this `kind`, at most `max_entries`. `key`
    and `value` name their types. `group` may read its pin. `with_revision`: behind each value
    stands its revision, a u64.
    """

    prefix: str
    map: str
    kind: str
    key: str
    value: str
    max_entries: _Positive
    group: str = ""
    with_revision: bool = False

    @property
    def layout(self) -> str:
        """What programs that read the map depend on."""
        revision = " revision" if self.with_revision else ""
        return f"{self.kind} {self.key} {self.value}{revision} {self.max_entries}"


class Layout(msgspec.Struct, frozen=True, array_like=True):
    """The last layout under this map's name; `version` counts them from 1 on."""

    map: str
    version: int
    layout: str


class MapChange(msgspec.Struct, frozen=True, gc=False):
    """`key` of the map `map` has this `value` (None: it is gone), both as the map's bytes."""

    map: str
    key: bytes
    value: bytes | None


class Shape(msgspec.Struct, frozen=True):
    """An export, ready to be used: how its keys and values become bytes."""

    export: Export
    version: int
    key: FieldType
    value: FieldType

    def encode_key(self, key: str) -> bytes:
        """Of a key of the store. Raises FieldError."""
        return self.key.encode(key.removeprefix(self.export.prefix).encode())

    def encode_value(self, value: bytes, revision: int) -> bytes:
        """Raises FieldError."""
        field = self.value.encode(value)
        if not self.export.with_revision:
            return field
        # As a C struct of the two: the revision begins at a multiple of its own size.
        padded = -(-len(field) // 8) * 8
        return field.ljust(padded, b"\0") + revision.to_bytes(8, "little")

    def decode_value(self, field: bytes) -> tuple[bytes, int]:
        """(the store's value, its revision or 0 where there is none)."""
        revision = int.from_bytes(field[-8:], "little") if self.export.with_revision else 0
        return self.value.decode(field[: self.value.size]), revision

    @property
    def value_size(self) -> int:
        """In bytes, with the revision."""
        return len(self.encode_value(self.value.decode(bytes(self.value.size)), 0))

    def text_of(self, key: bytes) -> str:
        """The key of the store that stands for this key of the map."""
        return self.export.prefix + self.key.decode(key).decode()


class Exports:
    """What is exported, by map. `changes` gathers what happens to the maps while somebody wants to
    know (`track`); `declared_index` moves when what is exported changes.
    """

    def __init__(self) -> None:
        self.changes: list[MapChange] = []
        self.declared_index = 0
        self._tracks = False
        self._shapes: dict[str, Shape] = {}
        self._counts: dict[str, int] = {}
        self._layouts: dict[str, Layout] = {}
        # For the one look that every write takes.
        self.prefixes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self._shapes)

    def __iter__(self) -> Iterator[Shape]:
        return iter(self._shapes.values())

    def get(self, name: str) -> Shape | None:
        return self._shapes.get(name)

    def count(self, name: str) -> int:
        """How many keys stand in this map."""
        return self._counts[name]

    def track(self, wanted: bool) -> None:
        """Gather in `changes` from now on, or no longer."""
        self._tracks = wanted
        self.changes = []

    def frozen(self) -> tuple[list[Export], list[Layout]]:
        """For a snapshot."""
        return [shape.export for shape in self], list(self._layouts.values())

    def put_back(
        self, exports: Sequence[Export], layouts: Sequence[Layout], store: Listing
    ) -> None:
        """What a snapshot holds, once its keys are in the store. Raises FieldError."""
        self._layouts = {layout.map: layout for layout in layouts}
        for export in exports:
            self._insert(export, len(_all(store, export.prefix)))

    # --- what may be written ----------------------------------------------------------------------

    def refusal(self, key: str, value: bytes, *, is_there: bool) -> StateResult | None:
        """Why `key` can't have this value, when it is below an exported prefix; `is_there`: it has
        one."""
        shape = self.shape_of(key)
        if shape is None:
            return None
        problem = _unfit(shape, key, value)
        if problem:
            return BadValue(problem)
        if not is_there and self._counts[shape.export.map] >= shape.export.max_entries:
            return _full(shape)
        return None

    def refusal_of_all(
        self, puts: Sequence[tuple[str, bytes]], gone: Sequence[str], store: Store
    ) -> StateResult | None:
        """The same for a transaction, which puts these keys and removes others that are there."""
        grown: dict[str, int] = {}
        for key, value in puts:
            shape = self.shape_of(key)
            if shape is None:
                continue
            problem = _unfit(shape, key, value)
            if problem:
                return BadValue(problem)
            if store.get(key) is None:
                grown[shape.export.map] = grown.get(shape.export.map, 0) + 1
        for key in gone:
            shape = self.shape_of(key)
            if shape is not None:
                grown[shape.export.map] = grown.get(shape.export.map, 0) - 1
        for name, count in grown.items():
            if count > 0 and self._counts[name] + count > self._shapes[name].export.max_entries:
                return _full(self._shapes[name])
        return None

    def shape_of(self, key: str) -> Shape | None:
        """Of the map that `key` stands in. No two prefixes begin alike, so there is one at most."""
        if not key.startswith(self.prefixes):
            return None
        return next(shape for shape in self._shapes.values() if key.startswith(shape.export.prefix))

    def changed(self, change: KeyChange, *, was_there: bool) -> None:
        """This has happened to a key, which fits; `was_there`: it had a value before."""
        shape = self.shape_of(change.key)
        if shape is None:
            return
        name, value = shape.export.map, change.value
        self._counts[name] += (value is not None) - was_there
        if self._tracks:
            field = None if value is None else shape.encode_value(value, change.revision)
            self.changes.append(MapChange(name, shape.encode_key(change.key), field))

    # --- what is exported -------------------------------------------------------------------------

    def add(self, export: Export, store: Store, index: int) -> StateResult:
        """Export it from now on. One that is there as it is stays."""
        known = self._shapes.get(export.map)
        if known is not None and known.export == export:
            return WriteDone(store.revision)
        if known is not None:
            again = f"remove it first: export remove {export.map}"
            return BadValue(f'The map "{export.map}" is exported otherwise; {again}')
        problem = problem_of(export) or problem_together(
            export, [shape.export for shape in self._shapes.values()]
        )
        if problem:
            return BadValue(problem)
        key, value = key_type(export.key), value_type(export.value)
        if len(self._shapes) >= MAX_EXPORTS:
            return LimitReached("exported maps", MAX_EXPORTS)
        if export.map not in self._layouts and len(self._layouts) >= MAX_NAMES:
            return LimitReached("names of exported maps, past ones too", MAX_NAMES)
        entries = _all(store, export.prefix)
        problem = _unfit_ones(Shape(export, 0, key, value), entries)
        if problem:
            return BadValue(problem)
        self._insert(export, len(entries))
        self.declared_index = index
        return WriteDone(store.revision)

    def remove(self, name: str, store: Store, index: int) -> StateResult:
        """No longer export it. The keys stay."""
        if name not in self._shapes:
            # 0 stands for "does not exist", as with keys.
            return ConditionFailed(0)
        del self._shapes[name]
        del self._counts[name]
        self._see_prefixes()
        self.declared_index = index
        return WriteDone(store.revision, 1)

    def was_declared(self, name: str) -> bool:
        """Whether a map of this name is exported, or was at any time."""
        return name in self._layouts

    def _insert(self, export: Export, count: int) -> None:
        last = self._layouts.get(export.map)
        if last is None or last.layout != export.layout:
            version = 1 if last is None else last.version + 1
            last = self._layouts[export.map] = Layout(export.map, version, export.layout)
        self._shapes[export.map] = Shape(
            export, last.version, field_type(export.key), field_type(export.value)
        )
        self._counts[export.map] = count
        self._see_prefixes()

    def _see_prefixes(self) -> None:
        self.prefixes = tuple(shape.export.prefix for shape in self._shapes.values())


def problem_of(export: Export) -> str:
    """Why there can't be such a map; "" when there can."""
    name, prefix = export.map, export.prefix
    try:
        key = key_type(export.key)
        value_type(export.value)
    except FieldError as error:
        return str(error)
    if _MAP.fullmatch(name) is None:
        return f'"{name[:40]}" is no map\'s name: a lower-case letter, then up to 31 of a-z 0-9 _'
    if not prefix or len(prefix.encode()) > MAX_PREFIX_BYTES:
        return f"A prefix has 1 to {MAX_PREFIX_BYTES} bytes"
    if export.kind not in KINDS:
        return f'A map\'s kind is one of {", ".join(KINDS)}, not "{export.kind[:40]}"'
    if key.is_prefix != (export.kind == "lpm_trie"):
        wanted = "ipv4_prefix or ipv6_prefix" if export.kind == "lpm_trie" else "no prefix type"
        return f"The keys of a map of the kind {export.kind} are {wanted}, not {export.key}"
    if not 1 <= export.max_entries <= MAX_ENTRIES:
        return f"max_entries is from 1 to {MAX_ENTRIES}, not {export.max_entries}"
    if _GROUP.fullmatch(export.group) is None:
        return f'"{export.group[:40]}" is no group\'s name'
    return ""


def problem_together(export: Export, others: Sequence[Export]) -> str:
    """Why it can't be exported beside these; "" when it can."""
    prefix = export.prefix
    for other in others:
        if other.map == export.map:
            return f'Two maps can\'t have the name "{export.map}"'
        if prefix.startswith(other.prefix) or other.prefix.startswith(prefix):
            return (
                f'The prefix "{prefix}" and "{other.prefix}" of the map "{other.map}" have keys in '
                "common"
            )
    return ""


def _all(store: Listing, prefix: str) -> list[Entry]:
    return store.list(prefix, 1 << 62)[0]


def _unfit(shape: Shape, key: str, value: bytes) -> str:
    try:
        shape.encode_key(key)
    except FieldError as error:
        return f'The key "{key[:80]}" does not fit the exported map {shape.export.map}: {error}'
    try:
        shape.encode_value(value, 0)
    except FieldError as error:
        return (
            f'The value of "{key[:80]}" does not fit the exported map {shape.export.map}: {error}'
        )
    return ""


def _unfit_ones(shape: Shape, entries: Sequence[Entry]) -> str:
    problems = [problem for entry in entries if (problem := _unfit(shape, entry.key, entry.value))]
    if problems:
        more = len(problems) - _NAMED
        named = "; ".join(problems[:_NAMED])
        return named + (f"; and {more} more keys" if more > 0 else "")
    if len(entries) > shape.export.max_entries:
        return (
            f'There are {len(entries)} keys below "{shape.export.prefix}", more than max_entries, '
            f"{shape.export.max_entries}"
        )
    return ""


def _full(shape: Shape) -> LimitReached:
    export = shape.export
    return LimitReached(f'keys below "{export.prefix}" in the map {export.map}', export.max_entries)
