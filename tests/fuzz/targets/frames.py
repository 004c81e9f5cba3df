"""Frames, handshakes and messages, as a stranger or a peer sends them."""

from __future__ import annotations

import google_crc32c

from raft_agent import wire
from raft_agent.consensus import batch as batches
from raft_agent.consensus.generations import generation_of
from raft_agent.consensus.membership import read_configuration
from raft_agent.machine.numbers import floor_in
from raft_agent.transport import codec
from raft_agent.transport.handshake import (
    Hello,
    Outdated,
    Refused,
    check_expected,
    check_hello,
    check_known,
    decode_hello,
    encode_hello,
    read_reply,
    shown,
)
from raft_agent.wire import FrameError, FrameReader, FrameType
from tests.fuzz.target import Target
from tests.unit.storage.support import configuration_batch
from tests.unit.transport.messages import ONE_OF_EACH

_EVERY_TYPE = frozenset(map(int, FrameType))
_HEADER = wire.HEADER
_PLAIN_START = wire.start_of(FrameType.CLIENT_REQUEST)
_OWN = Hello(1, 1, "0" * 32, 1, "node-01", "127.0.0.1:5555")
_OTHER = Hello(1, 1, "", 2, "node-02", "127.0.0.1:5556")


def _cut(data: bytes, size: int) -> list[wire.Frame] | str:
    """The frames of `data` that comes in pieces of so many bytes, or the reason of the refusal."""
    reader = FrameReader(_EVERY_TYPE)
    frames: list[wire.Frame] = []
    try:
        for start in range(0, len(data), size):
            frames += reader.feed(data[start : start + size])
    except FrameError as error:
        return error.reason
    assert reader.pending_bytes <= len(data)
    return frames


def _cut_unchecked(data: bytes) -> list[wire.Frame]:
    """As an agent reads a client's frames, whose checksum may be left out."""
    return FrameReader(_EVERY_TYPE, checksum_optional=True).feed(data)


def read_frames(data: bytes) -> None:
    """However a stream is cut into pieces, the same frames come out of it."""
    whole = _cut(data, max(len(data), 1))
    piece = 1 + (data[0] if data else 0) % 64
    in_pieces = _cut(data, piece)
    assert in_pieces == whole
    # The short cut for one plain frame leads to the same.
    body = FrameReader(_EVERY_TYPE).only_body(data, _PLAIN_START)
    if body is not None:
        frames = _cut_unchecked(data)
        assert [frame.body for frame in frames] == [body]


def mend_frames(data: bytes) -> bytes:
    """Give every frame in `data` its length, up to the end of the bytes, and its checksum."""
    out = bytearray()
    at = 0
    while len(data) - at >= wire.HEADER_SIZE:
        fields = list(_HEADER.unpack_from(data, at))
        room = len(data) - at - wire.HEADER_SIZE
        fields[0], fields[1], fields[10] = wire.MAGIC, wire.VERSION, 0
        fields[4] = min(fields[4], room)
        fields[5] = 0
        start = at + wire.HEADER_SIZE
        body = data[start : start + fields[4]]
        covered = body
        if fields[2] == FrameType.APPEND_ENTRIES:
            covered = body[: wire.APPEND_FIELDS_SIZE]
            body = covered + mend_batches(body[wire.APPEND_FIELDS_SIZE :])
            fields[4] = len(body)
        crc = google_crc32c.value(_HEADER.pack(*fields))
        fields[5] = google_crc32c.extend(crc, covered)
        out += _HEADER.pack(*fields) + body
        at = start + len(covered if fields[2] != FrameType.APPEND_ENTRIES else body)
    return bytes(out + data[at:])


def mend_batches(data: bytes) -> bytes:
    """Give the batches in `data`, back to back, lengths that fit, checksums and second headers."""
    out = b""
    while len(data) >= batches.OVERHEAD:
        _, _, kind, flags, first, term, count, length, _ = batches.HEADER.unpack_from(data)
        length = min(length, len(data) - batches.OVERHEAD)
        payload = data[batches.HEADER_SIZE : batches.HEADER_SIZE + length]
        head = batches.HEADER.pack(
            batches.MAGIC,
            batches.VERSION,
            kind,
            flags,
            first,
            term,
            count,
            length,
            google_crc32c.value(payload),
        )
        head += google_crc32c.value(head).to_bytes(4, "little")
        out += head + payload + head
        data = data[length + batches.OVERHEAD :]
    return out + data


def decode_messages(data: bytes) -> None:
    """A message that is understood says the same when it is sent on."""
    frames = _cut(data, max(len(data), 1))
    if isinstance(frames, str):
        return
    for frame in frames:
        try:
            message = codec.decode_message(frame)
        except FrameError as error:
            assert error.reason in ("body", "type"), error.reason
            assert str(error)
            continue
        again = _cut(codec.encode_message(frame.sender, message), 1 << 20)
        assert not isinstance(again, str)
        assert codec.decode_message(again[0]) == message
        for batch in getattr(message, "batches", ()):
            if batch.kind == batches.BatchKind.CONFIGURATION:
                read_configuration(batch)


def decode_hellos(data: bytes) -> None:
    """A hello is understood, or refused in one line."""
    frames = _cut(data, max(len(data), 1))
    if isinstance(frames, str):
        return
    for frame in frames:
        try:
            hello = decode_hello(frame)
        except FrameError as error:
            assert error.reason in ("body", "sender")
            continue
        assert shown(hello.refusal).isprintable()
        for check in (
            lambda hello: check_hello(_OWN, hello),
            lambda hello: check_known({1: "node-01", 2: "node-02"}, _OWN, hello),
            lambda hello: check_expected(2, "node-02", hello),
            lambda _, frame=frame: read_reply(frame, _OWN, 2, "node-02"),
        ):
            try:
                check(hello)
            except Refused as refused:
                assert refused.reason
            except Outdated as outdated:
                assert str(outdated)


def decode_batches(data: bytes) -> None:
    """A batch is the bytes that it was made of, or is refused."""
    offset = 0
    while offset < len(data):
        try:
            batch = batches.decode(data, offset)
        except batches.BatchError as error:
            assert str(error)
            return
        assert batch.record == data[offset : offset + len(batch.record)]
        assert batch.count <= batches.MAX_ENTRIES
        if batch.kind == batches.BatchKind.CONFIGURATION:
            configuration = read_configuration(batch)
            floor = floor_in(batch.payload)
            assert configuration is None or floor == generation_of(configuration).floor
        offset += len(batch.record)


def _frames() -> list[bytes]:
    plain = _PLAIN_START + (3).to_bytes(4, "little") + bytes(wire.HEADER_SIZE - 12) + b"abc"
    return [b"".join(_messages()[:4]), *_hellos(), plain]


def _messages() -> list[bytes]:
    return [codec.encode_message(2, message) for message in ONE_OF_EACH]


def _hellos() -> list[bytes]:
    return [
        encode_hello(FrameType.HELLO, _OTHER),
        encode_hello(FrameType.HELLO_REPLY, _OTHER),
        encode_hello(FrameType.HELLO, Hello(1, 1, "a" * 32, 9, "x", "[::1]:1", "", "probe")),
    ]


def _batches() -> list[bytes]:
    return [
        batches.encode(batches.BatchKind.NOOP, 1, 1, 1, b"").record,
        configuration_batch(1).record,
        b"".join(
            batches.encode(batches.BatchKind.COMMANDS, index, 2, 1, bytes(150)).record
            for index in (1, 2)
        ),
    ]


TARGETS = (
    Target("frames", read_frames, _frames, mend_frames),
    Target("messages", decode_messages, _messages, mend_frames),
    Target("hellos", decode_hellos, _hellos, mend_frames),
    Target("batches", decode_batches, _batches, mend_batches),
)
