"""The commands that the replicated log holds, and the payload of a batch of them.

A command is a MessagePack array whose first element is its number, which is never used twice. The
payload of a COMMANDS batch is the leader's wall clock in milliseconds since 1970 (u64, little
endian) and then one MessagePack array of its commands, with a head of 32 bits: encoding and
decoding them all in one go costs a quarter of doing it one by one. Every node must read the same
bytes the same way for ever, so fields are neither skipped nor guessed.

A command that a later version brings goes into LATER with that version.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from raft_agent.machine.exports import Export
from raft_agent.machine.transactions import Compare, Operation

TIME = struct.Struct("<Q")
# MessagePack's "array 32".
_ARRAY = struct.Struct(">BI")
_ARRAY_32 = 0xDD


class Put(
    msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True, gc=False
):
    """Set a key. `if_revision`: only when its revision is this one (0: absent, -1: always)."""

    key: str
    value: bytes
    if_revision: int = -1


class Delete(
    msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True, gc=False
):
    """Remove a key. `if_revision` as for Put."""

    key: str
    if_revision: int = -1


class SendMessage(
    msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True, gc=False
):
    """Append a text to the message log; `node` is the name of the node it was given to."""

    text: str
    node: str


class PutLeased(
    msgspec.Struct, frozen=True, array_like=True, tag=10, forbid_unknown_fields=True, gc=False
):
    """Set a key that ends with the lease `lease`; the rest as for Put."""

    key: str
    value: bytes
    if_revision: int
    lease: int


class GrantLease(
    msgspec.Struct, frozen=True, array_like=True, tag=11, forbid_unknown_fields=True, gc=False
):
    """Begin a lease that ends when it is not kept alive for `ttl_ms`."""

    ttl_ms: int


class RevokeLease(
    msgspec.Struct, frozen=True, array_like=True, tag=12, forbid_unknown_fields=True, gc=False
):
    """End a lease now, and its keys with it."""

    lease: int


class Transact(
    msgspec.Struct, frozen=True, array_like=True, tag=13, forbid_unknown_fields=True, gc=False
):
    """Do `then` when all `compares` hold, else `otherwise`; all of it, or nothing."""

    compares: list[Compare]
    then: list[Operation]
    otherwise: list[Operation]


RareStateCommand: TypeAlias = PutLeased | GrantLease | RevokeLease | Transact
StateCommand: TypeAlias = Put | Delete | SendMessage | RareStateCommand


class KeepLease(
    msgspec.Struct, frozen=True, array_like=True, tag=14, forbid_unknown_fields=True, gc=False
):
    """Give a lease all of its time again."""

    lease: int


class ExpireLease(
    msgspec.Struct, frozen=True, array_like=True, tag=15, forbid_unknown_fields=True, gc=False
):
    """End a lease, and its keys with it, unless it was renewed behind the log index
    `renewed_index`."""

    lease: int
    renewed_index: int


class OpenSession(
    msgspec.Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True, gc=False
):
    """Begin a session that ends when it is not used for `ttl_ms` of the log's time."""

    ttl_ms: int


class KeepSession(
    msgspec.Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True, gc=False
):
    """Use the session `session` for nothing else than that it lives on."""

    session: int


class CloseSession(
    msgspec.Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True, gc=False
):
    """End the session `session` now; its results are forgotten."""

    session: int


class InSession(
    msgspec.Struct, frozen=True, array_like=True, tag=7, forbid_unknown_fields=True, gc=False
):
    """Apply `command` unless the session has applied a command of this `sequence` before. The
    client has the results of all sequences below `acked_below`; they may be forgotten.
    """

    session: int
    sequence: int
    acked_below: int
    command: StateCommand


class Once(
    msgspec.Struct, frozen=True, array_like=True, tag=8, forbid_unknown_fields=True, gc=False
):
    """Apply `command` unless one of this `request_id` (16 bytes) was applied before, and only while
    the log's time is not beyond `deadline_ms`.
    """

    request_id: bytes
    deadline_ms: int
    command: StateCommand


class SetSetting(
    msgspec.Struct, frozen=True, array_like=True, tag=9, forbid_unknown_fields=True, gc=False
):
    """Change a setting that all nodes share."""

    name: str
    value: int


class AddExport(
    msgspec.Struct, frozen=True, array_like=True, tag=20, forbid_unknown_fields=True, gc=False
):
    """Have the keys below a prefix stand in a map of the kernel, on every node."""

    export: Export


class RemoveExport(
    msgspec.Struct, frozen=True, array_like=True, tag=21, forbid_unknown_fields=True, gc=False
):
    """No longer export the map `map`; its keys stay."""

    map: str


class RaiseVersion(
    msgspec.Struct, frozen=True, array_like=True, tag=18, forbid_unknown_fields=True, gc=False
):
    """From here on the log may hold what the cluster version `version` brought. All members have
    promised to know it (see `upgrade`). It never goes down."""

    version: int


# What is not as frequent as plain writes and those of sessions.
RareCommand: TypeAlias = (
    Once
    | OpenSession
    | KeepSession
    | CloseSession
    | SetSetting
    | KeepLease
    | ExpireLease
    | AddExport
    | RemoveExport
    | RaiseVersion
    | RareStateCommand
)
Command: TypeAlias = StateCommand | InSession | RareCommand

_RAW_LIST_DECODER = msgspec.msgpack.Decoder(list[msgspec.Raw])

encode_command = msgspec.msgpack.Encoder().encode

# What decoding foreign bytes can raise; msgspec's errors and UnicodeDecodeError are ValueErrors.
COMMAND_ERRORS = (ValueError, OverflowError, RecursionError)


def encode_commands(commands: Sequence[Command]) -> bytes | memoryview:
    """The commands' encodings back to back, as `join_commands` takes them."""
    if len(commands) == 1:
        return encode_command(commands[0])
    encoded = encode_command(commands)
    count = len(commands)
    head = 1 if count < 1 << 4 else 3 if count < 1 << 16 else 5
    return memoryview(encoded)[head:]


def join_commands(time_ms: int, count: int, parts: Sequence[bytes | memoryview]) -> bytes:
    """The payload of one COMMANDS batch of `count` commands, whose encodings are in `parts`;
    `time_ms` is the leader's wall clock."""
    return b"".join((TIME.pack(time_ms), _ARRAY.pack(_ARRAY_32, count), *parts))


class Vocabulary:
    """The commands that a program knows. `command`: all of them; `later`: those which the first
    cluster version did not have, each with the version that brought it.

    A version that is not in force yet counts for nothing, whatever this program knows: members that
    do not know its commands and members that do must find the same in the log.
    """

    def __init__(self, command: Any = Command, later: Mapping[type, int] | None = None) -> None:
        self._decode: Callable[[Any], Command] = msgspec.msgpack.Decoder(command).decode
        self._decode_list: Callable[[Any], list[Command]] = msgspec.msgpack.Decoder(
            list[command]
        ).decode
        self._later = dict(later or {})
        self._newest = max(self._later.values(), default=1)

    def needed(self, commands: Iterable[Command]) -> int:
        """The lowest cluster version that has all these commands."""
        if not self._later:
            return 1
        return max((self._needed(command) for command in commands), default=1)

    def _needed(self, command: Command) -> int:
        kind = type(command)
        inner = type(command.command) if isinstance(command, InSession | Once) else kind
        return max(self._later.get(kind, 1), self._later.get(inner, 1))

    def split(
        self, payload: memoryview | bytes, count: int, version: int
    ) -> Sequence[Command | None]:
        """The `count` commands of a payload, None in place of each that the cluster version
        `version` does not have. When the payload does not hold exactly so many items, all of them
        are None.
        """
        body = memoryview(payload)[TIME.size :]
        commands: Sequence[Command | None]
        try:
            commands = self._decode_list(body)
        except COMMAND_ERRORS:
            commands = self._split_one_by_one(body)
        if version < self._newest:
            commands = [
                None if command is None or self._needed(command) > version else command
                for command in commands
            ]
        return commands if len(commands) == count else [None] * count

    def _split_one_by_one(self, body: memoryview) -> list[Command | None]:
        commands: list[Command | None] = []
        try:
            items = _RAW_LIST_DECODER.decode(body)
        except COMMAND_ERRORS:
            return []
        for item in items:
            try:
                commands.append(self._decode(item))
            except COMMAND_ERRORS:
                commands.append(None)
        return commands


LATER: dict[type, int] = {}
"""The commands that came after the first cluster version, each with the one that brought it."""

VOCABULARY = Vocabulary(Command, LATER)
