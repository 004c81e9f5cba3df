"""The blocks that a snapshot consists of.

A block is the MessagePack array [section, [item, …]], each item an array. The first block holds the
header, the last one says how many items there were; the sections between come in their order. Keys
come in theirs, so that a machine is built anew without sorting.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from raft_agent.machine.exports import Export, Layout
from raft_agent.machine.results import StateResult
from raft_agent.machine.sessions import OneShot


class SnapshotError(ValueError):
    """The blocks are no snapshot that this program can read; the text says why."""


class SnapshotVersionError(SnapshotError):
    """Another version of this program can read them; `advice` says which."""

    def __init__(self, what: str, advice: str) -> None:
        self.advice = advice
        super().__init__(what)


class Section(enum.IntEnum):
    """What the items of a block are."""

    HEADER = 0
    KEYS = 1
    MESSAGES = 2
    HISTORY = 3
    SESSIONS = 4
    RESULTS = 5
    ONE_SHOTS = 6
    END = 7
    LEASES = 8
    LEASE_KEYS = 9
    TRAIL = 10
    EXPORTS = 11
    LAYOUTS = 12


class Header(msgspec.Struct, frozen=True):
    """What there is only once. `settings` by name, so that later versions may have others.

    `version`: the cluster version in force. All members know it, so it is what the state is written
    in: whoever does not know it can't read the rest.
    """

    last_applied: int
    last_applied_term: int
    revision: int
    time_ms: int
    messages_dropped: int
    compacted_revision: int
    settings: dict[str, int]
    version: int


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A KeyChange as an array, which ends before `lease` when there is none."""

    key: str
    value: bytes | None
    revision: int
    index: int
    lease: int = 0


class Portion(msgspec.Struct, frozen=True):
    """What becomes one block. The items are immutable and only referenced."""

    section: Section
    items: Sequence[Any]


_encode = msgspec.msgpack.Encoder().encode

# The items of each section as arrays; what is not here is one already.
_TO_ARRAYS: dict[Section, Callable[[Any], object]] = {
    Section.KEYS: lambda e: (e.key, e.value, e.revision, e.create_revision, e.version),
    Section.MESSAGES: lambda m: (m.index, m.time_ms, m.node, m.text),
    Section.HISTORY: lambda c: (
        (c.key, c.value, c.revision, c.index, c.lease)
        if c.lease
        else (c.key, c.value, c.revision, c.index)
    ),
    Section.SESSIONS: lambda s: (s.id, s.ttl_ms, s.deadline_ms, s.acked_below),
    Section.RESULTS: lambda r: (r[0], r[1], r[2].index, r[2].term, r[2].result),
    Section.LEASES: lambda lease: (
        lease.id,
        lease.ttl_ms,
        lease.renewed_index,
        lease.renewed_ms,
    ),
}

_ITEMS: dict[Section, msgspec.msgpack.Decoder[list[Any]]] = {
    section: msgspec.msgpack.Decoder(list[item])  # type: ignore[valid-type]
    for section, item in {
        Section.HEADER: Header,
        Section.KEYS: tuple[str, bytes, int, int, int],
        Section.MESSAGES: tuple[int, int, str, str],
        Section.HISTORY: Change,
        Section.SESSIONS: tuple[int, int, int, int],
        Section.RESULTS: tuple[int, int, int, int, StateResult],
        Section.ONE_SHOTS: OneShot,
        Section.END: int,
        Section.LEASES: tuple[int, int, int, int],
        Section.LEASE_KEYS: tuple[int, str],
        Section.TRAIL: tuple[int, int],
        Section.EXPORTS: Export,
        Section.LAYOUTS: Layout,
    }.items()
}
_BLOCK = msgspec.msgpack.Decoder(tuple[Section, msgspec.Raw])


def encode_block(portion: Portion) -> bytes:
    """The bytes of one block. Needs nothing but the portion, so a thread may do it."""
    to_array = _TO_ARRAYS.get(portion.section)
    items = portion.items if to_array is None else [to_array(item) for item in portion.items]
    return _encode((portion.section, items))


def item_bytes(portion: Portion, block: bytes) -> bytes:
    """What `block`, which is that portion's, says of the items alone: the same bytes, however they
    are cut into portions."""
    count = len(portion.items)
    head = 1 if count < 1 << 4 else 3 if count < 1 << 16 else 5
    return block[2 + head :]


def decode_block(block: bytes) -> tuple[Section, list[Any]]:
    try:
        section, raw = _BLOCK.decode(block)
        return section, _ITEMS[section].decode(raw)
    except (ValueError, OverflowError, RecursionError) as error:
        raise SnapshotError(f"a block of the snapshot can't be read: {error}") from error


def check_counts(counts: list[int], written: list[int]) -> None:
    if counts != written:
        raise SnapshotError(f"the snapshot should hold {written} items, but has {counts}")
