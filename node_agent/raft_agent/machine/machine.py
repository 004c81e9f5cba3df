"""The replicated state machine: keys with revisions, and the message log.

Only what the log says counts here, never this node's clock, name or memory: the same batches make
the same state on every node, and the same answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import ClassVar, TypeAlias

import msgspec

from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.machine.commands import (
    TIME,
    VOCABULARY,
    AddExport,
    CloseSession,
    Delete,
    ExpireLease,
    GrantLease,
    InSession,
    KeepLease,
    KeepSession,
    Once,
    OpenSession,
    Put,
    PutLeased,
    RaiseVersion,
    RareCommand,
    RareStateCommand,
    RemoveExport,
    RevokeLease,
    SendMessage,
    SetSetting,
    StateCommand,
    Vocabulary,
)
from raft_agent.machine.entry import Entry
from raft_agent.machine.exports import Exports
from raft_agent.machine.index import KeyIndex
from raft_agent.machine.leases import Leases, expire, grant, keep, put_leased, revoke
from raft_agent.machine.recent import History, MessageLog
from raft_agent.machine.results import (
    BadCommand,
    BadValue,
    CommandResult,
    ConditionFailed,
    SettingDone,
    StateResult,
    VersionDone,
    WriteDone,
)
from raft_agent.machine.sessions import OneShots, Sessions
from raft_agent.machine.settings import SharedSettings, problem_with
from raft_agent.machine.snapshot import Header, Reader, SnapshotView, encode_block
from raft_agent.machine.transactions import Transaction
from raft_agent.machine.upgrade import raised
from raft_agent.machine.watches import KeyChange, Message, WatchRegistry
from raft_agent.versions import CLUSTER_VERSIONS, Versions

# Inside the class `list` is the method, so its types need names from outside.
Entries: TypeAlias = list[Entry]
Messages: TypeAlias = list[Message]
Changes: TypeAlias = list[KeyChange]
Views: TypeAlias = list[SnapshotView]

_BAD = BadCommand()

# Later stamps are read as this one: deadlines behind it still fit 64 bits.
_LAST_TIME_MS = 1 << 62

# What an encoded entry has about besides its key and value. Many small keys are mostly that.
_ENTRY_BYTES = 64

# What `adopt` takes over: everything but the watches.
_STATE = (
    "last_applied",
    "last_applied_term",
    "revision",
    "time_ms",
    "settings",
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
    "_views",
)


class MachineError(RuntimeError):
    """A batch that does not follow the last one: the node's bookkeeping is broken, stop it."""


class Machine:
    """Apply committed batches with `apply`, in order; read at any time in between.

    `version` is the cluster version in force, which says what the log may hold. A program of a
    later version is a subclass with more `versions` and a larger `vocabulary`.
    """

    versions: ClassVar[Versions] = CLUSTER_VERSIONS
    vocabulary: ClassVar[Vocabulary] = VOCABULARY

    def __init__(self, *, messages_keep: int = 100_000, history_keep: int = 10_000) -> None:
        self.last_applied = 0
        self.last_applied_term = 0
        self.revision = 0
        self.time_ms = 0
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
        # Snapshots being taken, which want to know what a key was before it changes.
        self._views: Views = []

    def apply(self, batch: Batch) -> list[CommandResult] | None:
        """One result per entry, in their order; None for a batch that holds no commands.

        Raises MachineError when the batch does not start right after `last_applied`, VersionError
        when it raises the version to one that this program does not know.
        """
        if batch.first_index != self.last_applied + 1:
            raise MachineError(
                f"batch starts at index {batch.first_index}, but {self.last_applied} was the last "
                "one applied; this must never happen: keep the data directory and report it"
            )
        results = self._apply_commands(batch) if batch.kind == BatchKind.COMMANDS else None
        self.last_applied = batch.last_index
        self.last_applied_term = batch.term
        self.watches.deliver()
        return results

    def _apply_commands(self, batch: Batch) -> list[CommandResult]:
        payload = batch.payload
        if len(payload) < TIME.size:
            return [_BAD] * batch.count
        # Clocks of different leaders differ; what people read must not go back.
        time_ms = min(TIME.unpack_from(payload)[0], _LAST_TIME_MS)
        if time_ms > self.time_ms:
            self.time_ms = time_ms
            self._sessions.expire(time_ms)
            self._one_shots.expire(time_ms)
        term = self._term = batch.term
        time_ms = self.time_ms
        in_session = self._sessions.apply_once
        apply = self._apply_to_state
        put = self._put
        results: list[CommandResult] = []
        add = results.append
        index = batch.first_index
        # A version that begins in this batch holds from the next one on: the leader proposes
        # nothing that needs it before it has applied this one.
        for command in self.vocabulary.split(payload, batch.count, self.version):
            kind = type(command)
            if kind is Put:
                add(put(command, index))  # type: ignore[arg-type]
            elif kind is InSession:
                add(in_session(command, index, term, time_ms, apply))  # type: ignore[arg-type]
            elif kind is SendMessage:
                add(self._send(command, index))  # type: ignore[arg-type]
            elif kind is Delete:
                add(self._delete(command, index))  # type: ignore[arg-type]
            elif command is None:
                add(_BAD)
            else:
                add(self._apply_other(command, index))  # type: ignore[arg-type]
            index += 1
        self._note_changes()
        return results

    def _note_changes(self) -> None:
        if self._changes:
            self._history.extend(self._changes)
            self._changes = []

    def _apply_other(self, command: RareCommand, index: int) -> CommandResult:
        if isinstance(command, Once):
            return self._one_shots.apply_once(
                command, index, self._term, self.time_ms, self._apply_to_state
            )
        if isinstance(command, OpenSession):
            return self._sessions.open(command.ttl_ms, index, self.time_ms)
        if isinstance(command, KeepSession):
            return self._sessions.keep(command.session, self.time_ms)
        if isinstance(command, CloseSession):
            return self._sessions.close(command.session, self.time_ms)
        if isinstance(command, SetSetting):
            return self._set(command)
        if isinstance(command, AddExport | RemoveExport):
            if isinstance(command, AddExport):
                return self.exports.add(command.export, self, index)
            return self.exports.remove(command.map, self, index)
        if isinstance(command, KeepLease):
            return keep(self, command.lease, index)
        if isinstance(command, ExpireLease):
            return expire(self, command.lease, command.renewed_index, index)
        if isinstance(command, RaiseVersion):
            self.version = raised(self.version, command.version, self.versions)
            return VersionDone(self.version)
        return self._apply_to_state(command, index)

    def _apply_to_state(self, command: StateCommand, index: int) -> StateResult:
        kind = type(command)
        if kind is Put:
            return self._put(command, index)  # type: ignore[arg-type]
        if kind is Delete:
            return self._delete(command, index)  # type: ignore[arg-type]
        if kind is SendMessage:
            return self._send(command, index)  # type: ignore[arg-type]
        return self._apply_rare(command, index)  # type: ignore[arg-type]

    def _apply_rare(self, command: RareStateCommand, index: int) -> StateResult:
        if isinstance(command, PutLeased):
            return put_leased(self, command, index)
        if isinstance(command, GrantLease):
            return grant(self, command.ttl_ms, index)
        if isinstance(command, RevokeLease):
            return revoke(self, command.lease, index)
        transaction = Transaction(self, index)
        return transaction.apply(command.compares, command.then, command.otherwise)

    def _set(self, command: SetSetting) -> CommandResult:
        name, value = command.name, command.value
        problem = problem_with(name, value)
        if problem:
            return BadValue(problem)
        self._note_changes()  # those that came before a smaller history_keep
        self.settings = msgspec.structs.replace(self.settings, **{name: value})
        self._message_log.set_keep(self.settings.messages_keep)
        self._history.set_keep(self.settings.history_keep)
        return SettingDone(self.revision)

    def _put(self, command: Put, index: int) -> StateResult:
        key = command.key
        old = self._entries.get(key)
        if command.if_revision >= 0:
            actual = 0 if old is None else old.revision
            if actual != command.if_revision:
                return ConditionFailed(actual)
        if self.exports.prefixes:
            refusal = self.exports.refusal(key, command.value, is_there=old is not None)
            if refusal is not None:
                return refusal
        if self._views:
            self._remember(key, old)
        revision = self.revision + 1
        self.revision = revision
        if old is None:
            self._index.add(key)
            self._entries[key] = Entry(key, command.value, revision, revision, 1)
        else:
            # The old key object lives on in dict and index; a second copy would cost memory.
            key = old.key
            if self._lease_of:
                self.leases.detach(key)
            self._entries[key] = Entry(
                key, command.value, revision, old.create_revision, old.version + 1
            )
        change = KeyChange(key, command.value, revision, index)
        self._changes.append(change)
        if self.exports.prefixes:
            self.exports.changed(change, was_there=old is not None)
        if self.watches.watches_keys:
            self.watches.key_changed(change)
        return WriteDone(revision)

    def _delete(self, command: Delete, index: int) -> StateResult:
        key = command.key
        old = self._entries.get(key)
        actual = 0 if old is None else old.revision
        if command.if_revision >= 0 and command.if_revision != actual:
            return ConditionFailed(actual)
        if old is None:
            return WriteDone(self.revision)
        if self._views:
            self._remember(key, old)
        self.revision += 1
        del self._entries[key]
        self._index.remove(key)
        if self._lease_of:
            self.leases.detach(key)
        change = KeyChange(old.key, None, self.revision, index)
        self._changes.append(change)
        if self.exports.prefixes:
            self.exports.changed(change, was_there=True)
        if self.watches.watches_keys:
            self.watches.key_changed(change)
        return WriteDone(self.revision, 1)

    def change(
        self, key: str, value: bytes | None, *, revision: int, index: int, lease: int
    ) -> None:
        """One change of a command that may make several (see `Store`)."""
        old = self._entries.get(key)
        if self._views:
            self._remember(key, old)
        self.revision = revision
        if old is not None:
            key = old.key
            self.leases.detach(key)
        if value is None:
            del self._entries[key]
            self._index.remove(key)
        elif old is None:
            self._index.add(key)
            self._entries[key] = Entry(key, value, revision, revision, 1)
        else:
            self._entries[key] = Entry(key, value, revision, old.create_revision, old.version + 1)
        if value is not None and lease:
            self.leases.attach(key, lease)
        change = KeyChange(key, value, revision, index, lease)
        self._changes.append(change)
        if self.exports.prefixes:
            self.exports.changed(change, was_there=old is not None)
        if self.watches.watches_keys:
            self.watches.key_changed(change)

    def _remember(self, key: str, old: Entry | None) -> None:
        for view in self._views:
            view.remember(key, old)

    def _send(self, command: SendMessage, index: int) -> StateResult:
        message = Message(index, self.time_ms, command.node, command.text)
        self._message_log.append(message)
        if self.watches.watches_messages:
            self.watches.message_added(message)
        return WriteDone(self.revision)

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
        the view, for every change costs a little more while it is open."""
        view = self._view()
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
        return SnapshotView(
            header,
            entries=self._entries,
            index=self._index,
            messages=self._message_log.frozen(),
            history=self._history.frozen(),
            sessions=self._sessions.frozen(),
            one_shots=self._one_shots.frozen(),
            leases=self.leases.frozen(),
            exports=self.exports.frozen(),
            views=self._views,
        )

    @classmethod
    def restore(cls, blocks: Iterable[bytes]) -> Machine:
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
        )
        machine._history.set_keep(machine.settings.history_keep)
        return machine

    def adopt(self, other: Machine) -> None:
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
