"""The whole state: read piece by piece while the machine goes on, built anew from its blocks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Any

from raft_agent.machine.blocks import (
    Header,
    Portion,
    Section,
    SnapshotError,
    SnapshotVersionError,
    check_counts,
    decode_block,
)
from raft_agent.machine.entry import Entry
from raft_agent.machine.export_types import FieldError
from raft_agent.machine.exports import Export, Exports, Layout
from raft_agent.machine.index import KeyIndex
from raft_agent.machine.leases import Lease, Leases
from raft_agent.machine.pieces import letting_go
from raft_agent.machine.recent import History, MessageLog
from raft_agent.machine.results import Repeated, StateResult
from raft_agent.machine.sessions import OneShot, OneShots, Session, Sessions
from raft_agent.machine.settings import SETTINGS, problem_with
from raft_agent.machine.store import Listing
from raft_agent.machine.watches import KeyChange, Message
from raft_agent.versions import CLUSTER_VERSIONS, Versions, advise, other_version

# A block holds about this much, or one item that is larger.
BLOCK_BYTES = 128 << 10
BLOCK_ITEMS = 500

# What is looked at together while a block is filled.
_SOME_ITEMS = 32

_SHARDS = 256
# No index, revision or time comes near it.
_LAST_NUMBER = (1 << 63) - 1


class _Remembered:
    """What keys were, in many small dicts: one that holds hundreds of thousands keeps the loop
    waiting each time it has to grow, for all of it moves then."""

    __slots__ = ("_count", "_shards")

    def __init__(self) -> None:
        self._count = 0
        self._shards: list[dict[str, Entry | None]] = [{} for _ in range(_SHARDS)]

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        return key in self._shards[hash(key) % _SHARDS]

    def add(self, key: str, old: Entry | None) -> None:
        """`key` must not be in here."""
        self._shards[hash(key) % _SHARDS][key] = old
        self._count += 1

    def pop(self, key: str) -> Entry | None:
        """`key` must be in here."""
        self._count -= 1
        return self._shards[hash(key) % _SHARDS].pop(key)


class SnapshotView:
    """The state as it was when the view was made: `next_items` until that gives None, then `close`.

    The keys alone are read from the living machine, which tells what they were before it changes
    them (`remember`), unless all of them are in the pieces `all_keys`, in their order; everything
    else is shared and copied by whoever changes it.
    """

    def __init__(
        self,
        header: Header,
        *,
        entries: dict[str, Entry],
        all_keys: list[Iterable[Entry]] | None,
        index: KeyIndex,
        messages: Iterator[Message],
        history: Iterator[KeyChange],
        sessions: list[Session],
        one_shots: Iterator[OneShot],
        leases: list[Lease],
        exports: tuple[list[Export], list[Layout]],
        trail: tuple[int, int] | None,
        views: list[SnapshotView],
    ) -> None:
        self.header = header
        self._exports = exports
        self._trail = trail
        self._entries = entries
        self._all_keys = all_keys or []
        self._index = index
        self._views = views
        # The last key that was read; those up to it may change as they like.
        self._cursor: str | None = None
        self._keys_done = self.has_all_keys = all_keys is not None
        # What keys that are still to be read were; None: they did not exist.
        self._before = _Remembered()
        self._before_index = KeyIndex()
        self._counts = [0] * len(Section)
        self._limit = BLOCK_ITEMS
        # As many keys as may fit into a block, going by the last one: to look at more costs time.
        self._fitting = BLOCK_ITEMS
        self._portions = self._walk(messages, history, sessions, one_shots, leases)

    def remember(self, key: str, old: Entry | None) -> None:
        """`key` is about to change and is `old` now (None: it does not exist)."""
        if self._keys_done or key in self._before:
            return
        if self._cursor is None or key > self._cursor:
            self._before.add(key, old)
            if old is not None:
                self._before_index.add(old.key)

    def next_items(self, limit: int = BLOCK_ITEMS) -> Portion | None:
        """The next items for `encode_block`, at most `limit`; None at the end."""
        self._limit = limit
        return next(self._portions, None)

    def close(self) -> None:
        """Nothing more will be read."""
        if self in self._views:
            self._views.remove(self)
        self._keys_done = True
        self._all_keys = []
        self._before = _Remembered()
        self._before_index = KeyIndex()
        self._portions.close()

    def _walk(
        self,
        messages: Iterator[Message],
        history: Iterator[KeyChange],
        sessions: list[Session],
        one_shots: Iterator[OneShot],
        leases: list[Lease],
    ) -> Generator[Portion, None, None]:
        yield Portion(Section.HEADER, [self.header])
        yield from self._cut(Section.KEYS, letting_go(self._all_keys), _entry_bytes)
        while not self._keys_done:
            yield self._counted(Section.KEYS, self._next_keys())
        yield from self._cut(Section.MESSAGES, messages, lambda message: len(message.text))
        yield from self._cut(Section.HISTORY, history, _change_bytes)
        yield from self._cut(Section.SESSIONS, sessions, lambda _: 0)
        results = (
            (session.id, sequence, first)
            for session in sessions
            for sequence, first in session.results.items()
        )
        yield from self._cut(Section.RESULTS, results, lambda _: 0)
        yield from self._cut(Section.ONE_SHOTS, one_shots, lambda _: 0)
        yield from self._cut(Section.LEASES, leases, lambda _: 0)
        # The keys of each in their order, which no node's past has a part in.
        leased = ((lease.id, key) for lease in leases for key in sorted(lease.keys))
        yield from self._cut(Section.LEASE_KEYS, leased, lambda item: len(item[1]))
        if self._trail is not None:
            yield self._counted(Section.TRAIL, [self._trail])
        exports, layouts = self._exports
        yield from self._cut(Section.EXPORTS, exports, lambda export: len(export.prefix))
        yield from self._cut(Section.LAYOUTS, layouts, lambda _: 0)
        yield Portion(Section.END, self._counts)

    def _next_keys(self) -> list[Entry]:
        """The keys of one block; fewer, when many were passed over that did not exist."""
        cursor, before = self._cursor, self._before
        limit = min(self._limit, self._fitting)
        keys = list(islice(_behind(self._index, cursor), limit))
        if before:
            # The smallest `limit` of both together are among the smallest of each.
            keys = sorted({*keys, *islice(_behind(self._before_index, cursor), limit)})[:limit]
        entries: list[Entry] = []
        size = 0
        for key in keys:
            if size >= BLOCK_BYTES:
                self._fitting = 2 * len(entries)
                return entries
            self._cursor = key
            entry = self._forget(key) if key in before else self._entries[key]
            if entry is not None:
                entries.append(entry)
                size += len(key) + len(entry.value)
        if len(keys) < limit:
            self._keys_done = True
        self._fitting = BLOCK_ITEMS
        return entries

    def _forget(self, key: str) -> Entry | None:
        # At once and not all together at the end, which would be a pause.
        entry = self._before.pop(key)
        if entry is not None:
            self._before_index.remove(key)
        return entry

    def _cut(
        self, section: Section, items: Iterable[Any], size_of: Callable[[Any], int]
    ) -> Iterator[Portion]:
        portion: list[Any] = []
        size = 0
        remaining = iter(items)
        while some := list(islice(remaining, _SOME_ITEMS)):
            more = sum(map(size_of, some))
            if size + more < BLOCK_BYTES and len(portion) + len(some) < self._limit:
                portion += some
                size += more
                continue
            for item in some:
                portion.append(item)
                size += size_of(item)
                if len(portion) >= self._limit or size >= BLOCK_BYTES:
                    yield self._counted(section, portion)
                    portion, size = [], 0
        if portion:
            yield self._counted(section, portion)

    def _counted(self, section: Section, items: list[Any]) -> Portion:
        self._counts[section] += len(items)
        return Portion(section, items)


def _behind(index: KeyIndex, cursor: str | None) -> Iterator[str]:
    return index.at_or_after("") if cursor is None else index.after(cursor)


def _entry_bytes(entry: Entry) -> int:
    return len(entry.key) + len(entry.value)


def _change_bytes(change: KeyChange) -> int:
    return len(change.key) + len(change.value or b"")


def survey(blocks: Iterable[bytes]) -> tuple[Header, dict[Section, int]]:
    """The header of these blocks, all of which are read, and how many items each section has.

    Keeps nothing else in memory. Raises SnapshotError.
    """
    numbered = iter(blocks)
    header = Reader(islice(numbered, 1)).header
    counts: dict[Section, int] = {}
    written: list[int] = []
    for block in numbered:
        section, items = decode_block(block)
        if section is Section.END:
            written = items
        else:
            counts[section] = counts.get(section, 0) + len(items)
    check_counts([counts.get(section, 0) for section in Section], written)
    return header, counts


class Reader:
    """Reads `header` at once, and everything else with `fill`. Both raise SnapshotError.

    `known`: the cluster versions whose states can be read.
    """

    def __init__(self, blocks: Iterable[bytes], known: Versions = CLUSTER_VERSIONS) -> None:
        self._blocks = iter(blocks)
        section, items = decode_block(next(self._blocks, b""))
        if section is not Section.HEADER or len(items) != 1:
            raise SnapshotError("the snapshot does not begin with its header")
        self.header: Header = items[0]
        version = self.header.version
        if version not in known:
            what = other_version("the state in it", version, known)
            raise SnapshotVersionError(what, advise(version, known))
        unknown = sorted(set(self.header.settings) - set(SETTINGS))
        if unknown:
            raise SnapshotVersionError(
                f"this program does not know its settings {', '.join(unknown)}",
                "Install the raft-agent that wrote it, or a later one",
            )
        numbers = (
            self.header.last_applied,
            self.header.last_applied_term,
            self.header.revision,
            self.header.time_ms,
            self.header.messages_dropped,
            self.header.compacted_revision,
        )
        if not all(0 <= number <= _LAST_NUMBER for number in numbers):
            raise SnapshotError(f"its header says what can't be: {numbers}")
        for name, value in self.header.settings.items():
            if problem := problem_with(name, value):
                raise SnapshotError(problem)

    def fill(
        self,
        *,
        entries: dict[str, Entry],
        index: KeyIndex,
        messages: MessageLog,
        history: History,
        sessions: Sessions,
        one_shots: OneShots,
        leases: Leases,
        exports: Exports,
        store: Listing,
        put_trail: Callable[[int, int], None],
    ) -> None:
        """Put everything into these, which are empty; `store` reads what is in `entries`, and
        `put_trail` gets what an audit began."""
        exported: list[Export] = []
        layouts: list[Layout] = []
        last_key: str | None = None

        def add_key(item: tuple[str, bytes, int, int, int]) -> None:
            nonlocal last_key
            entry = Entry(*item)
            if last_key is not None and entry.key <= last_key:
                raise SnapshotError(f"the key {entry.key[:40]!r} is not in its place")
            last_key = entry.key
            entries[entry.key] = entry
            index.append(entry.key)

        def add_result(item: tuple[int, int, int, int, StateResult]) -> None:
            session_id, sequence, log_index, term, result = item
            sessions.put_back_result(session_id, sequence, Repeated(log_index, term, result))

        def add_leased(item: tuple[int, str]) -> None:
            lease, key = item
            if key not in entries or lease not in leases:
                raise SnapshotError(f"the snapshot binds the key {key!r} to the lease {lease}")
            # The store's own object of the key; a second copy would cost memory.
            leases.attach(entries[key].key, lease)

        add: dict[Section, Callable[[Any], None]] = {
            Section.KEYS: add_key,
            Section.MESSAGES: lambda item: messages.append(Message(*item)),
            Section.HISTORY: lambda item: history.append(
                KeyChange(item.key, item.value, item.revision, item.index, item.lease)
            ),
            Section.SESSIONS: lambda item: sessions.put_back(Session(*item)),
            Section.RESULTS: add_result,
            Section.ONE_SHOTS: one_shots.put_back,
            Section.LEASES: lambda item: leases.put_back(Lease(*item)),
            Section.LEASE_KEYS: add_leased,
            Section.TRAIL: lambda item: put_trail(*item),
            Section.EXPORTS: exported.append,
            Section.LAYOUTS: layouts.append,
        }
        counts = [0] * len(Section)
        for block in self._blocks:
            section, items = decode_block(block)
            if section is Section.END:
                self._check_end(counts, items)
                try:
                    exports.put_back(exported, layouts, store)
                except FieldError as error:
                    raise SnapshotError(f"the snapshot exports what can't be: {error}") from error
                return
            if section not in add:
                raise SnapshotError(f"the snapshot has a block of the section {section} too many")
            counts[section] += len(items)
            add_one = add[section]
            try:
                for item in items:
                    add_one(item)
            except LookupError as error:
                what = f"an item of its section {section.name} does not fit the others"
                raise SnapshotError(f"{what}: {error!r}") from error
        raise SnapshotError("the snapshot ends before its last block")

    def _check_end(self, counts: list[int], written: list[int]) -> None:
        check_counts(counts, written)
        if next(self._blocks, None) is not None:
            raise SnapshotError("something follows the last block of the snapshot")
