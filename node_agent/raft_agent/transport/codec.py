"""The core's messages as frames and back; pure functions.

The frame's header (`wire`, `bpf/raft_wire.h`) carries the sender's member id, the message's `term`
and `request_id`, and in `count` the number of log entries within (0 where there are none); flags
are 0. The body holds the other fields, little endian, without padding; a boolean is one byte, 0 or
1. A body has exactly the length that its fields need.

====================  ============================================================  ==============
frame type            body                                                          bytes
====================  ============================================================  ==============
PRE_VOTE              last_index u64, last_term u64                                 16
PRE_VOTE_REPLY        granted u8                                                    1
REQUEST_VOTE          last_index u64, last_term u64, transfer u8                    17
VOTE_REPLY            granted u8                                                    1
APPEND_ENTRIES        prev_index u64, prev_term u64, commit_index u64, session u64, 32 + batches
                      then the batch records back to back (`consensus.batch`)
APPEND_REPLY          session u64, match_index u64, hint_index u64, hint_term u64,  33
                      success u8
HEARTBEAT             session u64, commit_index u64, as_of_us u64,                  32
                      as_of_index u64
HEARTBEAT_REPLY       session u64, withheld_us u64, stamp_us u64                    24
TIMEOUT_NOW           nothing                                                       0
READ_INDEX            lease u8                                                      1
READ_INDEX_REPLY      index u64                                                     8
BOOTSTRAP_ASK         MessagePack [name, address, [names…]]                         any
BOOTSTRAP_ANSWER      MessagePack [name, address, [names…], fresh, token,           any
                      cluster_id]
BOOTSTRAP_INSTALL     MessagePack [token, batch record as bin, joins]               any
SNAPSHOT_CHUNK        session u64, token u64, index u64, index_term u64,            56 + data
                      size_bytes u64, offset u64, checksum u32, length u32, then
                      `length` bytes of the snapshot's file
SNAPSHOT_REPLY        session u64, index u64, offset u64, done u8                   25
ANNOUNCE              MessagePack [address]                                         any
REMOVED               nothing                                                       0
AUDIT_REPORT          index u64, digest u64                                         16
VERSION_ASK           version u32                                                   4
VERSION_PROMISE       version u32                                                   4
====================  ============================================================  ==============

The frame's checksum covers header and body, of APPEND_ENTRIES the header and the first 32 bytes of
the body; each batch behind them is checked by its own CRC32Cs. Batches of one message are
consecutive, the first one starting right behind `prev_index`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from raft_agent import wire
from raft_agent.consensus import batch as batches
from raft_agent.consensus import types
from raft_agent.wire import FrameError, FrameType

MAX_NAMES = 1024

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_TWO_U64 = struct.Struct("<QQ")
_TWO_U64_BOOL = struct.Struct("<QQB")
_THREE_U64 = struct.Struct("<QQQ")
_THREE_U64_BOOL = struct.Struct("<QQQB")
_BOOL = struct.Struct("<B")
_FOUR_U64 = struct.Struct("<QQQQ")
_APPEND_REPLY = struct.Struct("<QQQQB")
_CHUNK = struct.Struct("<QQQQQQII")

_Unsigned = Annotated[int, msgspec.Meta(ge=0)]
# Of a first start, whose members are few. Without a limit a few bytes each become many objects.
_Names = Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_NAMES)]


class _AskBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: str
    address: str
    names: _Names


class _AnswerBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: str
    address: str
    names: _Names
    fresh: bool
    token: _Unsigned
    cluster_id: str


class _InstallBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    token: _Unsigned
    record: bytes
    joins: bool


class _AnnounceBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    address: str


_MSGPACK = msgspec.msgpack.Encoder()
_ASK = msgspec.msgpack.Decoder(_AskBody)
_ANSWER = msgspec.msgpack.Decoder(_AnswerBody)
_INSTALL = msgspec.msgpack.Decoder(_InstallBody)
_ANNOUNCE = msgspec.msgpack.Decoder(_AnnounceBody)

_FRAME_TYPES: dict[type[Any], FrameType] = {
    types.PreVote: FrameType.PRE_VOTE,
    types.PreVoteReply: FrameType.PRE_VOTE_REPLY,
    types.RequestVote: FrameType.REQUEST_VOTE,
    types.VoteReply: FrameType.VOTE_REPLY,
    types.AppendEntries: FrameType.APPEND_ENTRIES,
    types.AppendReply: FrameType.APPEND_REPLY,
    types.Heartbeat: FrameType.HEARTBEAT,
    types.HeartbeatReply: FrameType.HEARTBEAT_REPLY,
    types.TimeoutNow: FrameType.TIMEOUT_NOW,
    types.ReadIndex: FrameType.READ_INDEX,
    types.ReadIndexReply: FrameType.READ_INDEX_REPLY,
    types.BootstrapAsk: FrameType.BOOTSTRAP_ASK,
    types.BootstrapAnswer: FrameType.BOOTSTRAP_ANSWER,
    types.BootstrapInstall: FrameType.BOOTSTRAP_INSTALL,
    types.SnapshotChunk: FrameType.SNAPSHOT_CHUNK,
    types.SnapshotReply: FrameType.SNAPSHOT_REPLY,
    types.Announce: FrameType.ANNOUNCE,
    types.Removed: FrameType.REMOVED,
    types.AuditReport: FrameType.AUDIT_REPORT,
}

REPLIES: frozenset[type[Any]] = frozenset(
    {
        types.PreVoteReply,
        types.VoteReply,
        types.AppendReply,
        types.HeartbeatReply,
        types.ReadIndexReply,
        types.BootstrapAnswer,
        types.SnapshotReply,
        types.Removed,
    }
)
"""The messages that answer another one; all others are calls."""

CALL_FRAMES = frozenset(_FRAME_TYPES[kind] for kind in _FRAME_TYPES if kind not in REPLIES)
REPLY_FRAMES = frozenset(_FRAME_TYPES[kind] for kind in REPLIES)
BULK_FRAMES = frozenset({FrameType.SNAPSHOT_CHUNK, FrameType.SNAPSHOT_REPLY})
"""What goes over a bulk connection, and over no other."""


def encode_message(sender: int, message: types.Message) -> bytes:
    """One frame that carries `message` from the member `sender`.

    Raises ValueError when the frame would be larger than wire.MAX_BODY_BYTES.
    """
    if type(message) is types.AppendEntries:
        return b"".join(encode_append(sender, message))
    count = 0
    data = b""
    if type(message) is types.BootstrapInstall:
        count = message.batch.count
    elif type(message) is types.SnapshotChunk:
        data = message.data
    return wire.encode(
        _FRAME_TYPES[type(message)],
        _BODIES[type(message)](message),
        sender=sender,
        term=message.term,
        request_id=message.request_id,
        count=count,
        data=data,
    )


def encode_append(sender: int, message: types.AppendEntries) -> list[bytes]:
    """The frame of `encode_message` in pieces: its batches are not copied, since the same bytes go
    to every follower.

    Raises ValueError when the frame would be larger than wire.MAX_BODY_BYTES.
    """
    records = [batch.record for batch in message.batches]
    head = wire.encode(
        FrameType.APPEND_ENTRIES,
        _append_entries_body(message),
        sender=sender,
        term=message.term,
        request_id=message.request_id,
        count=sum([batch.count for batch in message.batches]),
        batches_bytes=sum([len(record) for record in records]),
    )
    return [head, *records]


def _append_entries_body(message: types.AppendEntries) -> bytes:
    return _FOUR_U64.pack(
        message.prev_index, message.prev_term, message.commit_index, message.session
    )


def _append_reply_body(message: types.AppendReply) -> bytes:
    return _APPEND_REPLY.pack(
        message.session,
        message.match_index,
        message.hint_index,
        message.hint_term,
        message.success,
    )


def _answer_body(message: types.BootstrapAnswer) -> bytes:
    return _MSGPACK.encode(
        _AnswerBody(
            message.name,
            message.address,
            message.names,
            message.fresh,
            message.token,
            message.cluster_id,
        )
    )


def _chunk_fields(message: types.SnapshotChunk) -> bytes:
    return _CHUNK.pack(
        message.session,
        message.token,
        message.index,
        message.index_term,
        message.size_bytes,
        message.offset,
        message.checksum,
        len(message.data),
    )


_BODIES: dict[type[Any], Callable[[Any], bytes]] = {
    types.PreVote: lambda m: _TWO_U64.pack(m.last_index, m.last_term),
    types.PreVoteReply: lambda m: _BOOL.pack(m.granted),
    types.RequestVote: lambda m: _TWO_U64_BOOL.pack(m.last_index, m.last_term, m.transfer),
    types.VoteReply: lambda m: _BOOL.pack(m.granted),
    types.AppendReply: _append_reply_body,
    types.Heartbeat: lambda m: _FOUR_U64.pack(m.session, m.commit_index, m.as_of_us, m.as_of_index),
    types.HeartbeatReply: lambda m: _THREE_U64.pack(m.session, m.withheld_us, m.stamp_us),
    types.TimeoutNow: lambda _: b"",
    types.ReadIndex: lambda m: _BOOL.pack(m.lease),
    types.ReadIndexReply: lambda m: _U64.pack(m.index),
    types.BootstrapAsk: lambda m: _MSGPACK.encode(_AskBody(m.name, m.address, m.names)),
    types.BootstrapAnswer: _answer_body,
    types.BootstrapInstall: lambda m: _MSGPACK.encode(
        _InstallBody(m.token, m.batch.record, m.joins)
    ),
    types.SnapshotChunk: _chunk_fields,
    types.SnapshotReply: lambda m: _THREE_U64_BOOL.pack(m.session, m.index, m.offset, m.done),
    types.Announce: lambda m: _MSGPACK.encode(_AnnounceBody(m.address)),
    types.Removed: lambda _: b"",
    types.AuditReport: lambda m: _TWO_U64.pack(m.index, m.digest),
}


def encode_version(frame_type: FrameType, sender: int, version: int) -> bytes:
    """VERSION_ASK or VERSION_PROMISE as one frame: no messages of Raft's, the core sees neither."""
    return wire.encode(frame_type, _U32.pack(version), sender=sender)


def decode_version(frame: wire.Frame) -> int:
    """The cluster version in such a frame, 1 or more. Raises FrameError("body")."""
    if len(frame.body) != _U32.size:
        raise _malformed(frame, f"{len(frame.body)} bytes are not what it needs")
    version = int(_U32.unpack(frame.body)[0])
    if not version:
        raise _malformed(frame, "there is no version 0")
    return version


def decode_message(frame: wire.Frame) -> types.Message:
    """The message that a frame carries; every batch within is checked against its checksums.

    Raises FrameError("type") when the frame carries no message and FrameError("body") when its
    body is none of its type.
    """
    decode = _DECODERS.get(frame.type)
    if decode is None:
        raise FrameError("type", f"frame of type {frame.type} carries no Raft message")
    if frame.flags:
        raise _malformed(frame, f"flags {frame.flags:#x} are not known to this program")
    try:
        message = decode(frame)
    except struct.error:
        raise _malformed(frame, f"{len(frame.body)} bytes are not what it needs") from None
    except (ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, FrameError):
            raise
        raise _malformed(frame, str(error)) from None
    if frame.count and frame.type not in _WITH_ENTRIES:
        raise _malformed(frame, f"it counts {frame.count} entries but can't hold any")
    return message


_WITH_ENTRIES = frozenset({FrameType.APPEND_ENTRIES, FrameType.BOOTSTRAP_INSTALL})


def _malformed(frame: wire.Frame, text: str) -> FrameError:
    return FrameError("body", f"malformed body of a {FrameType(frame.type).name} frame: {text}")


def _flag(frame: wire.Frame, value: int) -> bool:
    if value > 1:
        raise _malformed(frame, f"a boolean is {value}")
    return value == 1


def _check_empty(frame: wire.Frame) -> None:
    if frame.body:
        raise _malformed(frame, "it should be empty")


def _pre_vote(frame: wire.Frame) -> types.PreVote:
    return types.PreVote(frame.term, frame.request_id, *_TWO_U64.unpack(frame.body))


def _pre_vote_reply(frame: wire.Frame) -> types.PreVoteReply:
    (granted,) = _BOOL.unpack(frame.body)
    return types.PreVoteReply(frame.term, frame.request_id, _flag(frame, granted))


def _request_vote(frame: wire.Frame) -> types.RequestVote:
    last_index, last_term, transfer = _TWO_U64_BOOL.unpack(frame.body)
    return types.RequestVote(
        frame.term, frame.request_id, last_index, last_term, _flag(frame, transfer)
    )


def _vote_reply(frame: wire.Frame) -> types.VoteReply:
    (granted,) = _BOOL.unpack(frame.body)
    return types.VoteReply(frame.term, frame.request_id, _flag(frame, granted))


def _append_entries(frame: wire.Frame) -> types.AppendEntries:
    body = frame.body
    prev_index, prev_term, commit_index, session = _FOUR_U64.unpack(body[: _FOUR_U64.size])
    found: list[batches.Batch] = []
    offset = _FOUR_U64.size
    last_index = prev_index
    while offset < len(body):
        batch = batches.decode(body, offset)
        if batch.first_index != last_index + 1:
            raise _malformed(
                frame, f"a batch starts at index {batch.first_index} behind {last_index}"
            )
        found.append(batch)
        last_index = batch.last_index
        offset += len(batch.record)
    if frame.count != last_index - prev_index:
        raise _malformed(
            frame, f"it counts {frame.count} entries and holds {last_index - prev_index}"
        )
    return types.AppendEntries(
        frame.term, frame.request_id, session, prev_index, prev_term, commit_index, tuple(found)
    )


def _append_reply(frame: wire.Frame) -> types.AppendReply:
    session, match_index, hint_index, hint_term, success = _APPEND_REPLY.unpack(frame.body)
    return types.AppendReply(
        frame.term,
        frame.request_id,
        session,
        _flag(frame, success),
        match_index,
        hint_index,
        hint_term,
    )


def _heartbeat(frame: wire.Frame) -> types.Heartbeat:
    return types.Heartbeat(frame.term, frame.request_id, *_FOUR_U64.unpack(frame.body))


def _heartbeat_reply(frame: wire.Frame) -> types.HeartbeatReply:
    return types.HeartbeatReply(frame.term, frame.request_id, *_THREE_U64.unpack(frame.body))


def _timeout_now(frame: wire.Frame) -> types.TimeoutNow:
    _check_empty(frame)
    return types.TimeoutNow(frame.term, frame.request_id)


def _read_index(frame: wire.Frame) -> types.ReadIndex:
    (lease,) = _BOOL.unpack(frame.body)
    return types.ReadIndex(frame.term, frame.request_id, _flag(frame, lease))


def _read_index_reply(frame: wire.Frame) -> types.ReadIndexReply:
    return types.ReadIndexReply(frame.term, frame.request_id, *_U64.unpack(frame.body))


def _bootstrap_ask(frame: wire.Frame) -> types.BootstrapAsk:
    body = _ASK.decode(frame.body)
    return types.BootstrapAsk(frame.term, frame.request_id, body.name, body.address, body.names)


def _bootstrap_answer(frame: wire.Frame) -> types.BootstrapAnswer:
    body = _ANSWER.decode(frame.body)
    return types.BootstrapAnswer(
        frame.term,
        frame.request_id,
        body.name,
        body.address,
        body.names,
        body.fresh,
        body.token,
        body.cluster_id,
    )


def _bootstrap_install(frame: wire.Frame) -> types.BootstrapInstall:
    body = _INSTALL.decode(frame.body)
    batch = batches.decode(body.record)
    if len(batch.record) != len(body.record) or batch.count != frame.count:
        raise _malformed(frame, f"it should hold one batch of {frame.count} entries")
    return types.BootstrapInstall(frame.term, frame.request_id, body.token, batch, body.joins)


def _snapshot_chunk(frame: wire.Frame) -> types.SnapshotChunk:
    session, token, index, index_term, size_bytes, offset, checksum, length = _CHUNK.unpack_from(
        frame.body
    )
    data = frame.body[_CHUNK.size :]
    if len(data) != length:
        raise _malformed(frame, f"it should hold {length} bytes of data and holds {len(data)}")
    if offset + length > size_bytes:
        raise _malformed(frame, f"{length} bytes at {offset} are beyond a file of {size_bytes}")
    return types.SnapshotChunk(
        frame.term,
        frame.request_id,
        session,
        token,
        index,
        index_term,
        size_bytes,
        checksum,
        offset,
        data,
    )


def _snapshot_reply(frame: wire.Frame) -> types.SnapshotReply:
    session, index, offset, done = _THREE_U64_BOOL.unpack(frame.body)
    return types.SnapshotReply(
        frame.term, frame.request_id, session, index, offset, _flag(frame, done)
    )


def _announce(frame: wire.Frame) -> types.Announce:
    return types.Announce(frame.term, frame.request_id, _ANNOUNCE.decode(frame.body).address)


def _removed(frame: wire.Frame) -> types.Removed:
    _check_empty(frame)
    return types.Removed(frame.term, frame.request_id)


def _audit_report(frame: wire.Frame) -> types.AuditReport:
    return types.AuditReport(frame.term, frame.request_id, *_TWO_U64.unpack(frame.body))


_DECODERS: dict[int, Callable[[wire.Frame], types.Message]] = {
    FrameType.PRE_VOTE: _pre_vote,
    FrameType.PRE_VOTE_REPLY: _pre_vote_reply,
    FrameType.REQUEST_VOTE: _request_vote,
    FrameType.VOTE_REPLY: _vote_reply,
    FrameType.APPEND_ENTRIES: _append_entries,
    FrameType.APPEND_REPLY: _append_reply,
    FrameType.HEARTBEAT: _heartbeat,
    FrameType.HEARTBEAT_REPLY: _heartbeat_reply,
    FrameType.TIMEOUT_NOW: _timeout_now,
    FrameType.READ_INDEX: _read_index,
    FrameType.READ_INDEX_REPLY: _read_index_reply,
    FrameType.BOOTSTRAP_ASK: _bootstrap_ask,
    FrameType.BOOTSTRAP_ANSWER: _bootstrap_answer,
    FrameType.BOOTSTRAP_INSTALL: _bootstrap_install,
    FrameType.SNAPSHOT_CHUNK: _snapshot_chunk,
    FrameType.SNAPSHOT_REPLY: _snapshot_reply,
    FrameType.ANNOUNCE: _announce,
    FrameType.REMOVED: _removed,
    FrameType.AUDIT_REPORT: _audit_report,
}
