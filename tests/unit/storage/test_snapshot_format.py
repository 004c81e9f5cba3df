"""The bytes of a snapshot file."""

from __future__ import annotations

import io
import struct

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent.consensus.types import SnapshotMeta
from raft_agent.storage.snapshot_format import (
    MAX_BLOCK_BYTES,
    SnapshotDamageError,
    SnapshotHeader,
    SnapshotReader,
    UnknownVersionError,
    encode_block_prefix,
    encode_end,
    encode_header,
    parse_snapshot_name,
    snapshot_name,
)
from tests.unit.storage.support import configuration, snapshot_blocks, snapshot_bytes

HEADER = SnapshotHeader(7, 3, 5, configuration())
HEADER_SIZE = len(encode_header(HEADER))


def encoded(blocks: list[bytes]) -> bytes:
    data = encode_header(HEADER)
    for number, block in enumerate(blocks):
        data += encode_block_prefix(number, block) + block
    return data + encode_end(len(blocks))


def read(data: bytes) -> tuple[list[bytes], SnapshotMeta]:
    reader = SnapshotReader(io.BytesIO(data).read)
    return list(reader.blocks()), reader.meta()


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=8))
def test_what_was_written_is_read_back_with_size_and_checksum(blocks: list[bytes]) -> None:
    data = encoded(blocks)
    found, meta = read(data)
    assert found == blocks
    assert meta == SnapshotMeta(7, 3, len(data), google_crc32c.value(data), 5, configuration())


def test_the_bytes_are_those_of_version_1() -> None:
    """Files of this version are on disks: change the version with the format."""
    data = encoded([b"one", b"two"])
    head = b"RAFTSNAP" + struct.pack("<HH", 1, 0)
    assert data[:16] == head + struct.pack("<I", google_crc32c.value(head))
    length = HEADER_SIZE - 16 - 28 - 4
    assert data[16:44] == struct.pack("<IQQQ", length, 7, 3, 5)
    crc = google_crc32c.value(struct.pack("<QI", 0, 3) + b"one")
    assert data[HEADER_SIZE:][:11] == struct.pack("<II", 3, crc) + b"one"
    end_crc = google_crc32c.value(struct.pack("<QI", 2, 0))
    assert data[HEADER_SIZE + 22 :] == struct.pack("<IIQ", 0, end_crc, 2)


def test_every_single_bit_that_turns_is_noticed() -> None:
    data = encoded([b"first", b"second"])
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SnapshotDamageError):
            read(bytes(damaged))


def test_a_file_that_ends_too_early_is_noticed_wherever_it_ends() -> None:
    data = encoded([b"first", b"second"])
    for size in range(len(data)):
        with pytest.raises(SnapshotDamageError, match="too early") as caught:
            read(data[:size])
        assert caught.value.offset == size


@pytest.mark.parametrize("extra", [b"\0", b"anything"])
def test_what_follows_the_end_is_damage(extra: bytes) -> None:
    with pytest.raises(SnapshotDamageError, match="follows its end"):
        read(encoded([b"first"]) + extra)


def test_blocks_that_changed_places_are_noticed() -> None:
    first, second = encode_block_prefix(0, b"one") + b"one", encode_block_prefix(1, b"two") + b"two"
    with pytest.raises(SnapshotDamageError, match="block 0"):
        read(encode_header(HEADER) + second + first + encode_end(2))


def test_a_block_that_is_missing_at_the_end_is_noticed() -> None:
    first = encode_block_prefix(0, b"one") + b"one"
    with pytest.raises(SnapshotDamageError, match="block 1"):
        read(encode_header(HEADER) + first + encode_end(2))


def test_a_version_that_is_not_known_is_told_from_damage() -> None:
    head = b"RAFTSNAP" + struct.pack("<HH", 2, 0)
    data = head + struct.pack("<I", google_crc32c.value(head)) + b"whatever version 2 has there"
    with pytest.raises(UnknownVersionError, match="its format is of version 2"):
        SnapshotReader(io.BytesIO(data).read)


def test_a_file_of_something_else_is_refused() -> None:
    head = b"RAFTSEG1" + struct.pack("<HH", 1, 0)
    data = head + struct.pack("<I", google_crc32c.value(head))
    with pytest.raises(SnapshotDamageError, match="RAFTSEG1"):
        SnapshotReader(io.BytesIO(data).read)


def test_a_length_that_can_not_be_asks_for_no_memory() -> None:
    asked: list[int] = []
    file = io.BytesIO(encode_header(HEADER) + struct.pack("<II", 0xFFFF_FFFF, 1))

    def noted(size: int) -> bytes:
        asked.append(size)
        return file.read(size)

    with pytest.raises(SnapshotDamageError, match="can't be"):
        list(SnapshotReader(noted).blocks())
    assert max(asked) < MAX_BLOCK_BYTES


@pytest.mark.parametrize("payload", [b"", bytes(MAX_BLOCK_BYTES + 1)])
def test_blocks_that_could_not_be_read_back_are_not_written(payload: bytes) -> None:
    with pytest.raises(ValueError, match="bytes"):
        encode_block_prefix(0, payload)


@given(st.integers(1, (1 << 64) - 1), st.integers(1, (1 << 64) - 1))
def test_names_are_read_back(index: int, term: int) -> None:
    assert parse_snapshot_name(snapshot_name(index, term)) == (index, term)


def test_names_sort_by_index() -> None:
    names = [snapshot_name(9, 90), snapshot_name(10, 1), snapshot_name(1 << 63, 5)]
    assert names == sorted(names)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "incoming.tmp",
        "7-3.snap",
        "7-",
        "-7.snap",
        f"{7:020d}.snap",
        f"{7:020d}-{3:020d}",
        f"{7:020d}-{3:020d}.snap.tmp",
        f"{0:020d}-{3:020d}.snap",
        f"{7:020d}-{-3:020d}.snap",
        f"{7:020d}-{'٣':>020}.snap",
    ],
)
def test_other_names_are_none(name: str) -> None:
    assert parse_snapshot_name(name) is None


def test_the_tests_own_file_is_one() -> None:
    assert read(snapshot_bytes(7))[0] == snapshot_blocks(7)
