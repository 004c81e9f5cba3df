from __future__ import annotations

import struct
from typing import get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raft_agent import wire
from raft_agent.consensus import batch as batches
from raft_agent.consensus import types
from raft_agent.transport import codec
from raft_agent.wire import FrameError, FrameType
from tests.unit.transport.messages import ONE_OF_EACH, any_message

SENDER = 0x1122334455667788
ALL_TYPES = frozenset(FrameType)


def one_frame(data: bytes) -> wire.Frame:
    (frame,) = wire.FrameReader(ALL_TYPES).feed(data)
    return frame


def read_messages(data: bytes) -> list[types.Message]:
    return [codec.decode_message(frame) for frame in wire.FrameReader(ALL_TYPES).feed(data)]


def messages_or_error(data: bytes) -> list[types.Message] | FrameError:
    try:
        return read_messages(data)
    except FrameError as error:
        return error


def kind_of(message: types.Message) -> str:
    return type(message).__name__


def test_the_table_has_one_message_of_each_type() -> None:
    assert {type(message) for message in ONE_OF_EACH} == set(get_args(types.Message))


BODIES: dict[type, tuple[FrameType, int, bytes]] = {
    types.PreVote: (FrameType.PRE_VOTE, 0, struct.pack("<QQ", 7, 3)),
    types.PreVoteReply: (FrameType.PRE_VOTE_REPLY, 0, b"\x01"),
    types.RequestVote: (FrameType.REQUEST_VOTE, 0, struct.pack("<QQB", 7, 3, 1)),
    types.VoteReply: (FrameType.VOTE_REPLY, 0, b"\x00"),
    types.AppendEntries: (
        FrameType.APPEND_ENTRIES,
        4,
        struct.pack("<QQQQ", 7, 3, 6, 0xFEDCBA9876543210)
        + batches.encode(batches.BatchKind.NOOP, 8, 4, 1, b"").record
        + batches.encode(batches.BatchKind.COMMANDS, 9, 4, 3, b"three commands").record,
    ),
    types.AppendReply: (
        FrameType.APPEND_REPLY,
        0,
        struct.pack("<QQQQB", 0xFEDCBA9876543210, 11, 2, 1, 1),
    ),
    types.Heartbeat: (FrameType.HEARTBEAT, 0, struct.pack("<QQQQ", 5, 11, 13, 10)),
    types.HeartbeatReply: (FrameType.HEARTBEAT_REPLY, 0, struct.pack("<QQQ", 5, 150_000, 77)),
    types.TimeoutNow: (FrameType.TIMEOUT_NOW, 0, b""),
    types.ReadIndex: (FrameType.READ_INDEX, 0, b"\x01"),
    types.ReadIndexReply: (FrameType.READ_INDEX_REPLY, 0, struct.pack("<Q", 11)),
    types.BootstrapAsk: (
        FrameType.BOOTSTRAP_ASK,
        0,
        msgspec.msgpack.encode(["node-01", "[::1]:5555", ["node-01", "node-02"]]),
    ),
    types.BootstrapAnswer: (
        FrameType.BOOTSTRAP_ANSWER,
        0,
        msgspec.msgpack.encode(
            ["node-02", "10.0.0.2:5555", ["node-01", "node-02"], True, 2**64 - 1, ""]
        ),
    ),
    types.BootstrapInstall: (
        FrameType.BOOTSTRAP_INSTALL,
        1,
        msgspec.msgpack.encode([77, batches.encode(2, 1, 1, 1, b"who belongs to it").record, True]),
    ),
    types.SnapshotChunk: (
        FrameType.SNAPSHOT_CHUNK,
        0,
        struct.pack("<QQQQQQII", 5, 77, 9, 3, 4_000, 3_000, 0xFEDCBA98, 19)
        + b"a piece of the file",
    ),
    types.SnapshotReply: (FrameType.SNAPSHOT_REPLY, 0, struct.pack("<QQQB", 5, 9, 4_000, 1)),
    types.Announce: (FrameType.ANNOUNCE, 0, msgspec.msgpack.encode(["[::1]:5555"])),
    types.Removed: (FrameType.REMOVED, 0, b""),
    types.AuditReport: (FrameType.AUDIT_REPORT, 0, struct.pack("<QQ", 7, 1 << 32)),
}


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=kind_of)
def test_a_message_has_the_layout_that_the_documentation_gives(message: types.Message) -> None:
    frame_type, count, body = BODIES[type(message)]
    frame = one_frame(codec.encode_message(SENDER, message))
    assert frame == wire.Frame(frame_type, 0, SENDER, message.term, message.request_id, count, body)
    assert codec.decode_message(frame) == message


def test_append_fields_are_as_long_as_the_frame_checksum_reaches() -> None:
    frame = one_frame(codec.encode_message(SENDER, types.AppendEntries(1, 1, 1, 0, 0, 0, ())))
    assert len(frame.body) == wire.APPEND_FIELDS_SIZE


def test_calls_and_replies_are_two_kinds_of_frames() -> None:
    assert not codec.CALL_FRAMES & codec.REPLY_FRAMES
    assert len(codec.CALL_FRAMES | codec.REPLY_FRAMES) == len(ONE_OF_EACH)
    assert all(
        FrameType(number).name.endswith(("REPLY", "ANSWER", "REMOVED"))
        for number in codec.REPLY_FRAMES
    )


@given(any_message, st.integers(1, 2**64 - 1))
def test_what_is_decoded_is_what_was_encoded(message: types.Message, sender: int) -> None:
    frame = one_frame(codec.encode_message(sender, message))
    assert frame.sender == sender
    assert codec.decode_message(frame) == message


def test_records_of_decoded_batches_are_bytes_of_their_own() -> None:
    for message in ONE_OF_EACH:
        decoded = codec.decode_message(one_frame(codec.encode_message(SENDER, message)))
        if isinstance(decoded, types.AppendEntries):
            assert [type(batch.record) for batch in decoded.batches] == [bytes, bytes]
        elif isinstance(decoded, types.BootstrapInstall):
            assert type(decoded.batch.record) is bytes


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=kind_of)
def test_no_flipped_bit_passes(message: types.Message) -> None:
    data = codec.encode_message(SENDER, message)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        outcome = messages_or_error(bytes(flipped))
        assert outcome == [] or isinstance(outcome, FrameError), f"bit {bit}"


@given(any_message, st.data())
def test_a_mutated_frame_gives_an_error_or_nothing(
    message: types.Message, data: st.DataObject
) -> None:
    intact = codec.encode_message(SENDER, message)
    start = data.draw(st.integers(0, len(intact) - 1))
    end = data.draw(st.integers(start, min(len(intact), start + 60)))
    mutated = intact[:start] + data.draw(st.binary(max_size=60)) + intact[end:]
    outcome = messages_or_error(mutated)
    expected = [message] if mutated.startswith(intact) else []
    assert isinstance(outcome, FrameError) or outcome == expected


@given(st.binary(max_size=300))
@example(b"")
@example(b"RAFT")
def test_random_bytes_give_an_error_or_nothing(data: bytes) -> None:
    outcome = messages_or_error(data)
    assert outcome == [] or isinstance(outcome, FrameError)


@given(st.sampled_from(sorted(codec.CALL_FRAMES | codec.REPLY_FRAMES)), st.binary(max_size=300))
def test_a_body_of_random_bytes_gives_a_message_that_encodes_to_it_or_an_error(
    frame_type: FrameType, body: bytes
) -> None:
    """A checksum doesn't help against a peer that computes it."""
    try:
        message = codec.decode_message(wire.Frame(frame_type, 0, SENDER, 3, 4, 0, body))
    except FrameError as error:
        assert (error.reason, FrameType(frame_type).name in str(error)) == ("body", True)  # noqa: PT017
    else:
        again = codec.decode_message(one_frame(codec.encode_message(SENDER, message)))
        assert again == message


def frame_of(message: types.Message, **changes: object) -> wire.Frame:
    frame = one_frame(codec.encode_message(SENDER, message))
    return msgspec.structs.replace(frame, **changes)


def append(*found: batches.Batch, prev_index: int = 7) -> types.AppendEntries:
    return types.AppendEntries(4, 1, 2, prev_index, 3, 6, found)


BATCH_8 = batches.encode(batches.BatchKind.COMMANDS, 8, 4, 2, b"8 and 9")
BATCH_10 = batches.encode(batches.BatchKind.COMMANDS, 10, 4, 1, b"10")


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=kind_of)
def test_a_body_with_a_byte_more_or_less_is_refused(message: types.Message) -> None:
    frame = one_frame(codec.encode_message(SENDER, message))
    wrong = [frame.body + b"\x00"] + ([frame.body[:-1]] if frame.body else [])
    for body in wrong:
        with pytest.raises(FrameError, match="malformed body") as caught:
            codec.decode_message(msgspec.structs.replace(frame, body=body))
        assert caught.value.reason == "body"


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=kind_of)
def test_unknown_flags_and_a_wrong_count_are_refused(message: types.Message) -> None:
    frame = one_frame(codec.encode_message(SENDER, message))
    for change in ({"flags": 1}, {"count": frame.count + 1}):
        with pytest.raises(FrameError, match="malformed body"):
            codec.decode_message(msgspec.structs.replace(frame, **change))


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (frame_of(types.VoteReply(1, 1, True), body=b"\x02"), "a boolean is 2"),
        (frame_of(append(BATCH_10), count=1), "starts at index 10 behind 7"),
        (frame_of(append(BATCH_8, BATCH_8)), "starts at index 8 behind 9"),
        (frame_of(append(BATCH_8), count=7), "it counts 7 entries and holds 2"),
        (
            frame_of(
                types.BootstrapInstall(1, 1, 5, BATCH_8, False),
                body=msgspec.msgpack.encode([5, BATCH_8.record + BATCH_10.record, False]),
            ),
            "one batch",
        ),
        (
            frame_of(
                types.BootstrapInstall(1, 1, 5, BATCH_8, False),
                body=msgspec.msgpack.encode([5, BATCH_8.record[:-1], False]),
            ),
            "cut short",
        ),
        (
            frame_of(
                types.BootstrapInstall(1, 1, 5, BATCH_8, False),
                body=msgspec.msgpack.encode([-1, BATCH_8.record, False]),
            ),
            ">= 0",
        ),
        (
            frame_of(types.SnapshotChunk(1, 1, 1, 0, 9, 3, 10, 0, 8, b"123")),
            "3 bytes at 8 are beyond a file of 10",
        ),
        (
            frame_of(types.SnapshotChunk(1, 1, 1, 0, 9, 3, 10, 0, 11, b"")),
            "0 bytes at 11 are beyond a file of 10",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(frame: wire.Frame, text: str) -> None:
    with pytest.raises(FrameError, match=text) as caught:
        codec.decode_message(frame)
    assert caught.value.reason == "body"


def test_consecutive_batches_right_behind_prev_index_pass() -> None:
    message = append(BATCH_8, BATCH_10)
    assert codec.decode_message(frame_of(message)) == message


def test_a_frame_that_carries_no_message_is_refused() -> None:
    frame = wire.Frame(FrameType.CLIENT_REQUEST, 0, 0, 0, 0, 0, b"")
    with pytest.raises(FrameError) as caught:
        codec.decode_message(frame)
    assert caught.value.reason == "type"
