"""What the state machine holds, how it is read, and how it becomes a snapshot and comes from one.

`machine.py` has what changes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import ClassVar, Self, TypeAlias

import msgspec

from raft_agent.machine.audit import Trail
from raft_agent.machine.blocks import Header, encode_block
from raft_agent.machine.entry import Entry
from raft_agent.machine.exports import Exports
from raft_agent.machine.index import KeyIndex
from raft_agent.machine.leases import Leases
from raft_agent.machine.recent import History, MessageLog
from raft_agent.machine.sessions import OneShots, Sessions
from raft_agent.machine.settings import SharedSettings
from raft_agent.machine.snapshot import Reader, SnapshotView
from raft_agent.machine.watches import KeyChange, Message, WatchRegistry
from raft_agent.versions import CLUSTER_VERSIONS, Versions

# Inside the class `list` is the method, so its types need names from outside.
Entries: TypeAlias = list[Entry]
Messages: TypeAlias = list[Message]
Changes: TypeAlias = list[KeyChange]
Views: TypeAlias = list[SnapshotView]
Pieces: TypeAlias = list[Iterable[Entry]]

# To look up so many keys takes the loop two milliseconds, which is less than to keep apart what
# writes change meanwhile.
KEYS_AT_ONCE = 10_000

# What an encoded entry has about besides its key and value. Many small keys are mostly that.
_ENTRY_BYTES = 64

# What `adopt` takes over: everything but the watches.
_STATE = (
    "last_applied",
    "last_applied_term",
    "revision",
    "time_ms",
    "settings",
    "floor",
    "version",
    "_entries",
    "_index",
    "exports",
    "leases",
    "_lease_of",
    "_message_log",
    "_history",
    "_sessions",
    "_one_shots",
    "_trail",
    "_views",
)


class State:
    """`version` is the cluster version in force, which says what the log may hold."""

    versions: ClassVar[Versions] = CLUSTER_VERSIONS

    def __init__(self, *, messages_keep: int = 100_000, history_keep: int = 10_000) -> None:
        self.last_applied = 0
        self.last_applied_term = 0
        self.revision = 0
        self.time_ms = 0
        # Not in snapshots: it comes with their configuration, and `begin_behind`.
        self.floor = 0
        self.settings = SharedSettings(messages_keep, history_keep)
        self.version = 1
        self._term = 0
        self.watches = WatchRegistry()
        self._entries: dict[str, Entry] = {}
        self._index = KeyIndex()
        self.exports = Exports()
        self.leases = Leases()
        # At hand, because every write of a key that is there looks into it.
        self._lease_of = self.leases.lease_of
        self._message_log = MessageLog(messages_keep)
        self._history = History(history_keep)
        # Of the batch that is being applied, on their way into the history.
        self._changes: Changes = []
        self._sessions = Sessions()
        self._one_shots = OneShots()
        # From the first audit entry on.
        self._trail: Trail | None = None
        # Snapshots being taken, which want to know what a key was before it changes.
        self._views: Views = []
        self.keys_at_once = KEYS_AT_ONCE

    def get(self, key: str) -> Entry | None:
        """The key as it stands now, or None."""
        return self._entries.get(key)

    def list(
        self, prefix: str = "", limit: int = 1000, after: str = "", *, max_bytes: int = 1 << 62
    ) -> tuple[Entries, bool]:
        """(entries, more): keys that start with `prefix` and come after the key `after`, in byte
        order; at most `limit` of them, and none after those that reach about `max_bytes` in all as
        they are encoded.
        """
        index = self._index
        from_start = not after or after < prefix
        walk = index.at_or_after(prefix) if from_start else index.after(after)
        entries: Entries = []
        size = 0
        for key in walk:
            if not key.startswith(prefix):
                break
            if len(entries) >= limit or size >= max_bytes:
                return entries, True
            entry = self._entries[key]
            entries.append(entry)
            size += len(key) + len(entry.value) + _ENTRY_BYTES
        return entries, False

    @property
    def messages_dropped(self) -> int:
        """The index of the newest message that was dropped to keep no more than messages_keep."""
        return self._message_log.dropped

    def messages(self, limit: int) -> Messages:
        """The newest `limit` messages, newest first."""
        return self._message_log.newest(limit)

    def messages_after(self, index: int, limit: int = 1 << 62) -> Messages:
        """Messages with a log index greater than `index`, oldest first, at most `limit`."""
        return self._message_log.after(index, limit)

    @property
    def compacted_revision(self) -> int:
        """The history of keys begins behind this revision."""
        return self._history.compacted_revision

    def changes_since(self, revision: int, limit: int = 1 << 62) -> Changes:
        """Changes with this revision or a greater one, oldest first, at most `limit`. What is not
        beyond `compacted_revision` is missing."""
        return self._history.since(revision, limit)

    def key_count(self) -> int:
        """How many keys there are."""
        return len(self._entries)

    def lease_of(self, key: str) -> int:
        """The lease that the key ends with, or 0."""
        return self.leases.lease_of.get(key, 0)

    def session_count(self) -> int:
        """How many sessions there are."""
        return len(self._sessions)

    def one_shot_count(self) -> int:
        """How many writes without a session are remembered."""
        return len(self._one_shots)

    # --- snapshots --------------------------------------------------------------------------------

    def begin_snapshot(self) -> SnapshotView:
        """The state of this moment, which can be read piece by piece while `apply` goes on. Close
        the view, for every change costs a little more while it is open; but with no more keys than
        `keys_at_once`, since all of them are looked up at once then."""
        view = self._view()
        if not view.has_all_keys:
            self._views.append(view)
        return view

    def _view(self) -> SnapshotView:
        header = Header(
            last_applied=self.last_applied,
            last_applied_term=self.last_applied_term,
            revision=self.revision,
            time_ms=self.time_ms,
            messages_dropped=self.messages_dropped,
            compacted_revision=self.compacted_revision,
            settings={
                name: getattr(self.settings, name) for name in self.settings.__struct_fields__
            },
            version=self.version,
        )
        entries = self._entries
        all_keys: Pieces | None = None
        if len(entries) <= self.keys_at_once:
            all_keys = [[entries[key] for key in keys] for keys in self._index.buckets()]
        return SnapshotView(
            header,
            entries=entries,
            all_keys=all_keys,
            index=self._index,
            messages=self._message_log.frozen(),
            history=self._history.frozen(),
            sessions=self._sessions.frozen(),
            one_shots=self._one_shots.frozen(),
            leases=self.leases.frozen(),
            exports=self.exports.frozen(),
            trail=None if self._trail is None else msgspec.structs.astuple(self._trail),
            views=self._views,
        )

    @classmethod
    def restore(cls, blocks: Iterable[bytes]) -> Self:
        """The machine whose snapshot these blocks are. May run in a thread of its own.

        Raises SnapshotError when they are not all blocks of one snapshot, in their order.
        """
        reader = Reader(blocks, cls.versions)
        header = reader.header
        machine = cls(**header.settings)
        machine.last_applied = header.last_applied
        machine.last_applied_term = header.last_applied_term
        machine.revision = header.revision
        machine.time_ms = header.time_ms
        machine.version = header.version
        machine._message_log = MessageLog(
            machine.settings.messages_keep, dropped_before=header.messages_dropped
        )
        # There may be more than is to be kept, for that is dropped little by little; and what those
        # have who did not restore must not go here.
        machine._history = History(None, compacted_revision=header.compacted_revision)

        def put_trail(applied: int, disputed_index: int) -> None:
            machine._trail = Trail(applied, disputed_index)

        reader.fill(
            entries=machine._entries,
            index=machine._index,
            messages=machine._message_log,
            history=machine._history,
            sessions=machine._sessions,
            one_shots=machine._one_shots,
            leases=machine.leases,
            exports=machine.exports,
            store=machine,
            put_trail=put_trail,
        )
        machine._history.set_keep(machine.settings.history_keep)
        return machine

    def adopt(self, other: State) -> None:
        """Take over the state of `other`, which gets this one's. Watches stay and are told; a view
        goes on to read the state that it began with."""
        revision = self.revision
        for name in _STATE:
            mine = getattr(self, name)
            setattr(self, name, getattr(other, name))
            setattr(other, name, mine)
        self.watches.tell_jumped(revision)

    def dismantle(self) -> None:
        """Free the state piece by piece, so that a thread can do it without holding up the others
        for as long as millions of objects take. The machine must not be used any more."""
        if self._views:
            return
        entries = self._entries
        while entries:
            entries.popitem()
        self._index.dismantle()
        self._message_log.dismantle()
        self._history.dismantle()
        self._sessions.dismantle()
        self._one_shots.dismantle()

    def digest(self) -> str:
        """32 hexadecimal digits over the whole state; equal exactly for equal states."""
        state = hashlib.blake2b(digest_size=16)
        view = self._view()
        while (portion := view.next_items()) is not None:
            state.update(encode_block(portion))
        return state.hexdigest()
