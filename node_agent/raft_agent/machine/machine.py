"""The replicated state machine: keys with revisions, and the message log.

Only what the log says counts here, never this node's clock, name or memory: the same batches make
the same state on every node, and the same answers.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.machine.commands import (
    COMMAND_ERRORS,
    LENGTH,
    TIME,
    Delete,
    Put,
    SendMessage,
    decode_command,
)
from raft_agent.machine.index import KeyIndex
from raft_agent.machine.watches import KeyChange, Message, WatchRegistry


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A key as it stands. `revision` is the store's at its last put, `create_revision` at its
    first; `version` counts the puts since then, from 1.
    """

    key: str
    value: bytes
    revision: int
    create_revision: int
    version: int


class WriteDone(msgspec.Struct, frozen=True, gc=False):
    """`revision` is the store's after the command; `deleted` counts the keys it removed."""

    revision: int
    deleted: int = 0


class ConditionFailed(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed: the key is at `actual_revision` (0: it does not exist)."""

    actual_revision: int


class BadCommand(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed: the log holds bytes here that are no command of this version."""


CommandResult: TypeAlias = WriteDone | ConditionFailed | BadCommand

# Inside the class `list` is the method, so its types need names from outside.
Entries: TypeAlias = list[Entry]
Messages: TypeAlias = list[Message]

_BAD = BadCommand()


class MachineError(RuntimeError):
    """A batch that does not follow the last one: the node's bookkeeping is broken, stop it."""


class Machine:
    """Apply committed batches with `apply`, in order; read at any time in between."""

    def __init__(self, *, messages_keep: int = 100_000) -> None:
        self.last_applied = 0
        self.last_applied_term = 0
        self.revision = 0
        self.time_ms = 0
        # The index of the newest message that was dropped to keep no more than messages_keep.
        self.messages_dropped = 0
        self.watches = WatchRegistry()
        self._entries: dict[str, Entry] = {}
        self._index = KeyIndex()
        self._messages_keep = messages_keep
        # Dropping one by one from the front of a list would move all the others each time.
        self._messages_slack = max(1024, messages_keep // 8)
        self._messages: list[Message] = []

    def apply(self, batch: Batch) -> list[CommandResult] | None:
        """One result per entry, in their order; None for a batch that holds no commands.

        Raises MachineError when the batch does not start right after `last_applied`.
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
        size = len(payload)
        count = batch.count
        if size < TIME.size:
            return [_BAD] * count
        # Clocks of different leaders differ; what people read must not go back.
        self.time_ms = max(self.time_ms, TIME.unpack_from(payload)[0])
        results: list[CommandResult] = []
        add = results.append
        put = self._put
        length_at = LENGTH.unpack_from
        start = TIME.size + LENGTH.size
        for index in range(batch.first_index, batch.first_index + count):
            end = start + length_at(payload, start - LENGTH.size)[0] if start <= size else size + 1
            if end > size:
                # Lengths that don't add up: what follows can't be told apart, on any node.
                add(_BAD)
                start = size + 1
                continue
            try:
                command = decode_command(payload[start:end])
            except COMMAND_ERRORS:
                add(_BAD)
            else:
                kind = type(command)
                if kind is Put:
                    add(put(command, index))  # type: ignore[arg-type]
                elif kind is SendMessage:
                    add(self._send(command, index))  # type: ignore[arg-type]
                else:
                    add(self._delete(command, index))  # type: ignore[arg-type]
            start = end + LENGTH.size
        return results

    def _put(self, command: Put, index: int) -> CommandResult:
        key = command.key
        old = self._entries.get(key)
        if command.if_revision >= 0:
            actual = 0 if old is None else old.revision
            if actual != command.if_revision:
                return ConditionFailed(actual)
        revision = self.revision + 1
        self.revision = revision
        if old is None:
            self._index.add(key)
            self._entries[key] = Entry(key, command.value, revision, revision, 1)
        else:
            # The old key object lives on in dict and index; a second copy would cost memory.
            self._entries[key] = Entry(
                old.key, command.value, revision, old.create_revision, old.version + 1
            )
        if self.watches.watches_keys:
            self.watches.key_changed(KeyChange(key, command.value, revision, index))
        return WriteDone(revision)

    def _delete(self, command: Delete, index: int) -> CommandResult:
        key = command.key
        old = self._entries.get(key)
        actual = 0 if old is None else old.revision
        if command.if_revision >= 0 and command.if_revision != actual:
            return ConditionFailed(actual)
        if old is None:
            return WriteDone(self.revision)
        self.revision += 1
        del self._entries[key]
        self._index.remove(key)
        if self.watches.watches_keys:
            self.watches.key_changed(KeyChange(key, None, self.revision, index))
        return WriteDone(self.revision, 1)

    def _send(self, command: SendMessage, index: int) -> CommandResult:
        message = Message(index, self.time_ms, command.node, command.text)
        messages = self._messages
        messages.append(message)
        surplus = len(messages) - self._messages_keep
        if surplus > 0:
            self.messages_dropped = messages[surplus - 1].index
            if surplus > self._messages_slack:
                del messages[:surplus]
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
        order; at most `limit` of them, and none after those that reach `max_bytes` in all.
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
            size += len(key) + len(entry.value)
        return entries, False

    def messages(self, limit: int) -> Messages:
        """The newest `limit` messages, newest first."""
        kept = self._messages
        first = max(len(kept) - min(limit, self._messages_keep), 0)
        return kept[first:][::-1]

    def messages_after(self, index: int, limit: int = 1 << 62) -> Messages:
        """Messages with a log index greater than `index`, oldest first, at most `limit`."""
        kept = self._messages
        first = max(bisect_right(kept, index, key=_index_of), len(kept) - self._messages_keep, 0)
        return kept[first : first + limit]

    def key_count(self) -> int:
        """How many keys there are."""
        return len(self._entries)

    def digest(self) -> str:
        """32 hexadecimal digits over the whole state; equal exactly for equal states."""
        encode = msgspec.msgpack.Encoder().encode
        state = hashlib.blake2b(digest_size=16)
        state.update(
            encode(
                (
                    self.last_applied,
                    self.last_applied_term,
                    self.revision,
                    self.time_ms,
                    self.messages_dropped,
                    self._messages_keep,
                )
            )
        )
        for key in self._index.at_or_after(""):
            state.update(encode(self._entries[key]))
        for message in self.messages_after(-1):
            state.update(encode(message))
        return state.hexdigest()


_index_of: Callable[[Message], int] = lambda message: message.index  # noqa: E731
