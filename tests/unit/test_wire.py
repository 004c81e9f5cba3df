from __future__ import annotations

import itertools
import re
import shutil
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent import wire
from raft_agent.wire import Flag, FrameError, FrameReader, FrameType

C_HEADER = Path(__file__).parents[2] / "bpf" / "raft_wire.h"
FIELDS = (
    "magic",
    "version",
    "type",
    "flags",
    "body_length",
    "checksum",
    "sender",
    "term",
    "request_id",
    "count",
    "reserved",
)
C_TYPES = {"__u8": "B", "__le16": "H", "__le32": "I", "__le64": "Q"}
ALL_TYPES = frozenset(FrameType)


# --- bpf/raft_wire.h ------------------------------------------------------------------------------


def c_text() -> str:
    return re.sub(r"/\*.*?\*/", "", C_HEADER.read_text(), flags=re.DOTALL)


def c_fields() -> list[tuple[str, str]]:
    """(C type, name) of the header's fields, in order."""
    found = re.search(r"struct raft_frame_header \{(.*?)\};", c_text(), re.DOTALL)
    assert found is not None
    return re.findall(r"(\w+)\s+(\w+);", found[1])


def c_enum(name: str) -> dict[str, int]:
    found = re.search(rf"enum {name} \{{(.*?)\}};", c_text(), re.DOTALL)
    assert found is not None
    members = re.findall(r"RAFT_(\w+)\s*=\s*(\d+)(?:\s*<<\s*(\d+))?", found[1])
    return {member: int(value) << int(shift or 0) for member, value, shift in members}


def c_constant(name: str) -> int:
    found = re.search(rf"#define {name}\s+\(?(\w+)(?:\s*<<\s*(\d+)\))?", c_text())
    assert found is not None
    return int(found[1].rstrip("U"), 0) << int(found[2] or 0)


def python_offsets() -> list[int]:
    codes = wire.HEADER.format[1:]
    return [struct.calcsize("<" + codes[:position]) for position in range(len(codes))]


def test_the_python_header_has_the_fields_of_the_c_header() -> None:
    fields = c_fields()
    assert tuple(name for _, name in fields) == FIELDS
    assert wire.HEADER.format == "<" + "".join(C_TYPES[c_type] for c_type, _ in fields)


def test_the_c_header_needs_no_padding() -> None:
    for offset, code in zip(python_offsets(), wire.HEADER.format[1:], strict=True):
        assert offset % struct.calcsize("=" + code) == 0
    assert wire.HEADER_SIZE % 8 == 0


def test_the_constants_are_those_of_the_c_header() -> None:
    assert c_constant("RAFT_WIRE_MAGIC") == wire.MAGIC
    assert c_constant("RAFT_WIRE_VERSION") == wire.VERSION
    assert c_constant("RAFT_WIRE_HEADER_SIZE") == wire.HEADER_SIZE
    assert c_constant("RAFT_WIRE_MAX_BODY") == wire.MAX_BODY_BYTES
    assert "RAFT_WIRE_MAX_SEALED (RAFT_WIRE_MAX_BODY + (64U << 10))" in " ".join(c_text().split())
    assert wire.MAX_SEALED_BYTES == wire.MAX_BODY_BYTES + (64 << 10)
    assert c_constant("RAFT_WIRE_APPEND_FIELDS_SIZE") == wire.APPEND_FIELDS_SIZE


def test_the_frame_types_and_flags_are_those_of_the_c_header() -> None:
    assert c_enum("raft_frame_type") == {kind.name: kind.value for kind in FrameType}
    assert c_enum("raft_frame_flag") == {f"FLAG_{flag.name}": flag.value for flag in Flag}


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="needs a C compiler and the Linux headers",
)
def test_a_c_compiler_lays_the_header_out_alike(tmp_path: Path) -> None:
    lines = [f'printf("%zu\\n", offsetof(struct raft_frame_header, {name}));' for name in FIELDS]
    lines += [f'printf("%d\\n", RAFT_{kind.name});' for kind in FrameType]
    lines += [
        'printf("%zu\\n", sizeof(struct raft_frame_header));',
        'printf("%u\\n", (unsigned)RAFT_WIRE_MAGIC);',
        'printf("%u\\n", (unsigned)RAFT_WIRE_MAX_BODY);',
    ]
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n"
        f'#include "{C_HEADER}"\nint main(void)\n{{\n' + "\n".join(lines) + "\nreturn 0;\n}\n"
    )
    program = tmp_path / "layout"
    subprocess.run(["cc", "-Wall", "-Werror", "-o", program, source], check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert [int(line) for line in output.split()] == [
        *python_offsets(),
        *(kind.value for kind in FrameType),
        wire.HEADER_SIZE,
        wire.MAGIC,
        wire.MAX_BODY_BYTES,
    ]


def test_an_encoded_header_says_raft_in_its_first_four_bytes() -> None:
    assert wire.encode(FrameType.HEARTBEAT, b"").startswith(b"RAFT\x01\x09")


# --- frames ---------------------------------------------------------------------------------------

frames = st.builds(
    wire.Frame,
    st.sampled_from(FrameType).map(int),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=300),
)


def encode(frame: wire.Frame) -> bytes:
    # The checksum of AppendEntries reaches over the fields only; the rest stands for batches.
    is_append = frame.type == FrameType.APPEND_ENTRIES
    fields = frame.body[: wire.APPEND_FIELDS_SIZE] if is_append else frame.body
    batches = frame.body[len(fields) :]
    head = wire.encode(
        FrameType(frame.type),
        fields,
        flags=frame.flags,
        sender=frame.sender,
        term=frame.term,
        request_id=frame.request_id,
        count=frame.count,
        batches_bytes=len(batches),
    )
    return head + batches


def feed_in_pieces(reader: FrameReader, data: bytes, cuts: list[int]) -> list[wire.Frame]:
    edges = [0, *sorted(cuts), len(data)]
    found = []
    for start, end in itertools.pairwise(edges):
        found += reader.feed(data[start:end])
    return found


@given(st.lists(frames, max_size=6), st.data())
def test_frames_do_not_depend_on_how_the_stream_was_cut(
    sent: list[wire.Frame], data: st.DataObject
) -> None:
    stream = b"".join(map(encode, sent))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    reader = FrameReader(ALL_TYPES)
    assert feed_in_pieces(reader, stream, cuts) == sent
    assert reader.pending_bytes == 0


@given(frames, st.data())
def test_a_frame_that_is_not_there_in_full_is_pending(
    frame: wire.Frame, data: st.DataObject
) -> None:
    encoded = encode(frame)
    length = data.draw(st.integers(1, len(encoded) - 1))
    reader = FrameReader(ALL_TYPES)
    assert reader.feed(encoded[:length]) == []
    assert reader.pending_bytes == length
    assert reader.feed(encoded[length:]) == [frame]


def test_a_frame_of_eight_mebibytes_arrives_in_pieces_of_every_size() -> None:
    body = bytes(range(256)) * (8 << 12)
    encoded = wire.encode(FrameType.CLIENT_REQUEST, body)
    for piece in (1 << 12, 1 << 16, 1 << 18, len(encoded)):
        reader = FrameReader(ALL_TYPES)
        found = []
        for start in range(0, len(encoded), piece):
            found += reader.feed(encoded[start : start + piece])
        assert [frame.body == body for frame in found] == [True]
        assert type(found[0].body) is bytes


def test_a_frame_that_comes_byte_by_byte_costs_about_its_size_in_memory() -> None:
    body = bytes(range(256)) * (1 << 9)
    encoded = wire.encode(FrameType.CLIENT_REQUEST, body)
    reader = FrameReader(ALL_TYPES)
    tracemalloc.start()
    try:
        for place in range(len(encoded) - 1):
            assert reader.feed(encoded[place : place + 1]) == []
        held_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held_bytes < 2 * len(encoded)
    (frame,) = reader.feed(encoded[-1:])
    assert frame.body == body


@given(st.sampled_from([0, 1]), st.binary(max_size=5000), st.integers(0, 300))
def test_plain_frames_are_those_of_encode(flags: int, body: bytes, count: int) -> None:
    frames_of = wire.PlainFrames(FrameType.CLIENT_REPLY, flags)
    whole = wire.encode(FrameType.CLIENT_REPLY, body, flags=flags, count=count)
    assert frames_of.encode(body, count) == whole


def unchecked(body: bytes, frame_type: int = FrameType.CLIENT_REQUEST, flags: int = 0) -> bytes:
    return wire.HEADER.pack(wire.MAGIC, 1, frame_type, flags, len(body), 0, 0, 0, 0, 1, 0) + body


def test_one_whole_frame_without_a_checksum_is_read_at_once() -> None:
    start = wire.start_of(FrameType.CLIENT_REQUEST)
    frame = unchecked(b"requests")
    reader = FrameReader(ALL_TYPES, checksum_optional=True)
    assert reader.only_body(frame, start) == b"requests"
    others = (
        frame[:-1],
        frame + b"R",
        frame[:40],
        b"",
        frame[:44] + b"\x01" + frame[45:],
        unchecked(b"requests", flags=1),
        unchecked(b"requests", FrameType.CLIENT_REPLY),
        wire.encode(FrameType.CLIENT_REQUEST, b"requests"),
        b"RAFF" + frame[4:],
    )
    assert [reader.only_body(other, start) for other in others] == [None] * len(others)
    reader.feed(unchecked(bytes(1000))[:100])
    assert reader.only_body(frame, start) is None


def broken(offset: int, *new: int) -> bytes:
    encoded = bytearray(wire.encode(FrameType.HEARTBEAT, b"sixteen bytes ..", sender=1))
    encoded[offset : offset + len(new)] = bytes(new)
    return bytes(encoded)


@pytest.mark.parametrize(
    ("data", "reason", "text"),
    [
        (b"GET / HTTP/1.1\r\n", "magic", "starts with b'GET '"),
        (b"G", "magic", "starts with b'G'"),
        (broken(0, 0x53), "magic", "starts with b'SAFT'"),
        (broken(4, 2), "version", "a frame of version 2, and this program knows version 1"),
        (broken(44, 1), "version", "reserved"),
        (broken(5, 99), "type", "frame of type 99"),
        (broken(5, FrameType.CLIENT_REPLY), "type", "is not expected here"),
        (broken(5, FrameType.CLIENT_REQUEST), "remote_client", "set [tls]"),
        (broken(5, FrameType.TLS_HANDSHAKE), "tls_not_set", "set it at both"),
        (broken(8, 1, 0, 0, 2), "length", "33554433 bytes is over the limit 33554432"),
        (broken(12, 0, 0, 0, 0), "checksum", "checksum of a frame of type 9"),
        (broken(16, 2), "checksum", "checksum"),
        (broken(50, 0), "checksum", "checksum"),
    ],
    ids=lambda value: value if isinstance(value, str) else "bytes",
)
def test_a_bad_frame_is_named(data: bytes, reason: str, text: str) -> None:
    with pytest.raises(FrameError, match=re.escape(text)) as caught:
        FrameReader(frozenset({FrameType.HEARTBEAT})).feed(data)
    assert caught.value.reason == reason


def test_a_bad_header_is_refused_before_its_body_has_come() -> None:
    encoded = wire.encode(FrameType.HEARTBEAT, bytes(101))
    reader = FrameReader(ALL_TYPES, max_body_bytes=100)
    assert reader.feed(encoded[: wire.HEADER_SIZE - 1]) == []
    with pytest.raises(FrameError) as caught:
        reader.feed(encoded[wire.HEADER_SIZE - 1 : wire.HEADER_SIZE])
    assert caught.value.reason == "length"


def test_a_body_as_long_as_the_limit_passes() -> None:
    reader = FrameReader(ALL_TYPES, max_body_bytes=100)
    assert len(reader.feed(wire.encode(FrameType.HEARTBEAT, bytes(100)))) == 1


def test_what_is_expected_can_change_between_frames() -> None:
    reader = FrameReader(frozenset({FrameType.HELLO}), max_body_bytes=10)
    assert len(reader.feed(wire.encode(FrameType.HELLO, b"hello"))) == 1
    reader.expect(frozenset({FrameType.HEARTBEAT}))
    assert len(reader.feed(wire.encode(FrameType.HEARTBEAT, bytes(1000)))) == 1
    with pytest.raises(FrameError, match="type 1 is not expected"):
        reader.feed(wire.encode(FrameType.HELLO, b"hello"))


def test_only_where_it_is_optional_a_checksum_of_zero_means_not_computed() -> None:
    encoded = broken(12, 0, 0, 0, 0)
    assert len(FrameReader(ALL_TYPES, checksum_optional=True).feed(encoded)) == 1
    with pytest.raises(FrameError):
        FrameReader(ALL_TYPES).feed(encoded)


def test_where_it_is_optional_a_wrong_checksum_is_still_wrong() -> None:
    with pytest.raises(FrameError, match="checksum"):
        FrameReader(ALL_TYPES, checksum_optional=True).feed(broken(12, 1, 2, 3, 4))


def test_the_checksum_is_as_the_c_header_describes_it() -> None:
    encoded = wire.encode(FrameType.CLIENT_REQUEST, b"body", flags=1, request_id=9)
    zeroed = encoded[:12] + bytes(4) + encoded[16:]
    assert int.from_bytes(encoded[12:16], "little") == google_crc32c.value(zeroed)


def test_the_checksum_of_append_entries_stops_before_the_batches() -> None:
    fields = bytes(range(wire.APPEND_FIELDS_SIZE))
    head = wire.encode(FrameType.APPEND_ENTRIES, fields, batches_bytes=len(b"batch"))
    for batch in (b"batch", b"hctab"):
        (frame,) = FrameReader(ALL_TYPES).feed(head + batch)
        assert frame.body == fields + batch


def test_a_body_over_the_limit_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="33554433 bytes is over 33554432"):
        wire.encode(FrameType.CLIENT_REPLY, bytes(wire.MAX_BODY_BYTES + 1))


def test_an_http_servers_answer_is_told_from_other_strangers() -> None:
    with pytest.raises(FrameError, match="http_addr; use its listen_addr"):
        wire.check_form((b"HTTP/1.1 400 Bad Request\r\n" + bytes(64))[: wire.HEADER_SIZE])
    with pytest.raises(FrameError) as other:
        wire.check_form((b"SSH-2.0-OpenSSH\r\n" + bytes(64))[: wire.HEADER_SIZE])
    assert "listen_addr" not in str(other.value)
