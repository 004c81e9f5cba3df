"""Headers with a right checksum and wrong fields: what another program, or a bug, could write."""

from __future__ import annotations

import google_crc32c
import pytest

from raft_agent.consensus.batch import (
    HEADER,
    HEADER_SIZE,
    MAGIC,
    MAX_ENTRIES,
    MAX_PAYLOAD_BYTES,
    VERSION,
    BatchError,
    BatchHeader,
    BatchKind,
    decode,
    decode_header,
    encode,
)

RIGHT = {
    "magic": MAGIC,
    "version": VERSION,
    "kind": 1,
    "flags": 0,
    "first_index": 1,
    "term": 1,
    "count": 1,
    "length": MAX_PAYLOAD_BYTES,
    "crc": 9,
}


def header(**wrong: int) -> bytes:
    head = HEADER.pack(*(RIGHT | wrong).values())
    return head + google_crc32c.value(head).to_bytes(4, "little")


def test_the_smallest_index_term_and_count_and_the_largest_length_are_fine() -> None:
    assert decode_header(header()) == BatchHeader(1, 1, 1, 1, MAX_PAYLOAD_BYTES, 9)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"magic": MAGIC + 1}, "magic is 0x54414253"),
        ({"version": VERSION + 1}, "a batch of version 2 with the flags 0x0"),
        ({"flags": 0x8000}, "a batch of version 1 with the flags 0x8000"),
        ({"first_index": 0}, "impossible header: index 0"),
        ({"term": 0}, "impossible header"),
        ({"count": 0}, "impossible header: index 1, count 0"),
        ({"count": MAX_ENTRIES + 1}, "impossible header: index 1, count 65537"),
        ({"length": MAX_PAYLOAD_BYTES + 1}, "impossible header: .* length 16777217"),
    ],
)
def test_a_header_with_one_impossible_field_is_refused(wrong: dict[str, int], told: str) -> None:
    with pytest.raises(BatchError, match=told):
        decode_header(header(**wrong))


@pytest.mark.parametrize("byte", range(4, HEADER_SIZE))
def test_a_header_with_any_byte_changed_does_not_match_its_checksum(byte: int) -> None:
    damaged = bytearray(header())
    damaged[byte] ^= 0x10
    with pytest.raises(BatchError, match="header checksum does not match"):
        decode_header(damaged)


@pytest.mark.parametrize("there", [0, 1, HEADER_SIZE - 1])
def test_a_header_that_is_cut_short_is_refused_wherever_it_stands(there: int) -> None:
    data = bytes(100) + header()[:there]
    with pytest.raises(BatchError, match=f"a header needs 40 bytes, {there} are there"):
        decode_header(data, 100)
    assert decode_header(bytes(100) + header(), 100).count == 1


def test_a_payload_of_exactly_the_largest_size_is_taken_and_one_byte_more_is_not() -> None:
    batch = encode(BatchKind.COMMANDS, 1, 1, 1, bytes(MAX_PAYLOAD_BYTES))
    assert decode(batch.record) == batch
    with pytest.raises(ValueError, match="payload of 16777217 bytes is over 16777216"):
        encode(BatchKind.COMMANDS, 1, 1, 1, bytes(MAX_PAYLOAD_BYTES + 1))


@pytest.mark.parametrize(
    ("payload", "flags"),
    [
        (b"x" + bytes(127) + b"x", 0),
        (b"x" + bytes(128) + b"x", 1),
        (bytes(128), 1),
        (bytes(300), 1),
        (b"", 0),
    ],
)
def test_a_run_of_128_zeros_in_the_payload_is_marked_in_the_header(
    payload: bytes, flags: int
) -> None:
    """Recovery asks of no other batch whether zeros in it were ever written."""
    record = encode(BatchKind.COMMANDS, 1, 1, 1, payload).record
    assert int.from_bytes(record[6:8], "little") == flags
    assert decode(record).payload == payload
