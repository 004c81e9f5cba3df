"""The replicated state machine: keys with revisions, and the message log.

Only what the log says counts here, never this node's clock, name or memory: the same batches make
the same state on every node, and the same answers.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.machine.audit import Trail
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
from raft_agent.machine.leases import expire, grant, keep, put_leased, revoke
from raft_agent.machine.numbers import floor_in
from raft_agent.machine.puts import PutRows
from raft_agent.machine.recent import History
from raft_agent.machine.results import (
    BadCommand,
    BadValue,
    CommandResult,
    ConditionFailed,
    SettingDone,
    StateResult,
    StatesDisputed,
    VersionDone,
    WriteDone,
)
from raft_agent.machine.settings import problem_with
from raft_agent.machine.transactions import Transaction
from raft_agent.machine.upgrade import raised
from raft_agent.machine.watches import KeyChange, Message
from raft_agent.versions import CLUSTER_VERSIONS, Versions

_BAD = BadCommand()

# Later stamps are read as this one: deadlines behind it still fit 64 bits.
_LAST_TIME_MS = 1 << 62


class MachineError(RuntimeError):
    """A batch that does not follow the last one: the node's bookkeeping is broken, stop it."""


class Machine(PutRows):
    """Apply committed batches with `apply`, in order; read at any time in between.

    `version` is the cluster version in force, which says what the log may hold. A program of a
    later version is a subclass with more `versions` and a larger `vocabulary`.
    """

    versions: ClassVar[Versions] = CLUSTER_VERSIONS
    vocabulary: ClassVar[Vocabulary] = VOCABULARY

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
        results = None
        if batch.kind == BatchKind.COMMANDS:
            results = self._apply_commands(batch)
        elif batch.kind == BatchKind.CONFIGURATION:
            self.begin_behind(floor_in(batch.payload))
        self.last_applied = batch.last_index
        self.last_applied_term = batch.term
        if batch.kind == BatchKind.AUDIT:
            self._follow_audit(batch)
        if self._trail is not None:
            self._trail.add(batch, self.revision, self.time_ms)
        self.watches.deliver()
        return results

    def begin_behind(self, floor: int) -> None:
        """All revisions, sessions and leases that are given out from here on are greater than
        `floor`, and changes from before are not told any more: clients may have seen others under
        their revisions. Does nothing when it is so already.
        """
        if floor <= self.floor:
            return
        self.floor = floor
        if self.revision < floor:
            before, self.revision = self.revision, floor
            self._history = History(self.settings.history_keep, compacted_revision=floor)
            self.watches.tell_jumped(before)

    def _follow_audit(self, batch: Batch) -> None:
        if self._trail is None:
            self._trail = Trail()
        self._trail.judge(batch)

    @property
    def disputed_index(self) -> int:
        """The entry behind which no quorum of members had equal states, so that no command changes
        anything; 0 when that is not so."""
        return 0 if self._trail is None else self._trail.disputed_index

    def _apply_commands(self, batch: Batch) -> list[CommandResult]:
        payload = batch.payload
        if len(payload) < TIME.size:
            return [_BAD] * batch.count
        if self._trail is not None and self._trail.disputed_index:
            return [StatesDisputed(self._trail.disputed_index)] * batch.count
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
        takes_rows = self._takes_put_rows
        # A version that begins in this batch holds from the next one on: the leader proposes
        # nothing that needs it before it has applied this one.
        commands = self.vocabulary.split(payload, batch.count, self.version)
        while (place := len(results)) < len(commands):
            command, index = commands[place], batch.first_index + place
            kind = type(command)
            if kind is Put:
                if takes_rows and command.if_revision < 0 and self._takes_put_rows:  # type: ignore[union-attr]
                    self._put_row(commands, index, results)
                if len(results) == place:
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
            return self._sessions.open(command.ttl_ms, self.floor + index, self.time_ms)
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
