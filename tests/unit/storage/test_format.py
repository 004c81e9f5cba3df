"""The bytes of segment header, vote file and identity."""

from __future__ import annotations

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_agent.consensus.types import Vote
from raft_agent.storage.format import (
    BLOCK_BYTES,
    SEGMENT_HEADER_SIZE,
    SYNC_MARKER_SIZE,
    VOTE_FILE_SIZE,
    FormatError,
    decode_identity,
    decode_segment_header,
    decode_sync_marker,
    decode_vote,
    decode_word,
    encode_identity,
    encode_segment_header,
    encode_sync_marker,
    encode_vote,
    parse_segment_name,
    segment_name,
)
from raft_agent.storage.judge import decode_configuration

u64 = st.integers(0, (1 << 64) - 1)
votes = st.builds(Vote, u64, u64, u64, u64)


@settings(deadline=None)
@given(votes)
def test_a_vote_comes_back_as_it_was_saved(vote: Vote) -> None:
    data = encode_vote(vote)
    assert len(data) == VOTE_FILE_SIZE
    record = decode_vote(data)
    assert record.vote == vote
    assert record.intact_copies == 2


@settings(deadline=None)
@given(votes, st.integers(0, VOTE_FILE_SIZE * 8 - 1))
def test_one_flipped_bit_costs_no_vote(vote: Vote, bit: int) -> None:
    data = bytearray(encode_vote(vote))
    data[bit // 8] ^= 1 << bit % 8
    assert decode_vote(bytes(data)).vote == vote


@pytest.mark.parametrize("block", [0, 1])
def test_a_lost_block_of_the_vote_file_is_noticed_and_costs_nothing(block: int) -> None:
    data = bytearray(encode_vote(Vote(7, 3, 2, 1)))
    data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = bytes(BLOCK_BYTES)
    record = decode_vote(bytes(data))
    assert record.vote == Vote(7, 3, 2, 1)
    assert record.intact_copies == 1


def test_two_damaged_copies_of_a_vote_are_refused() -> None:
    data = bytearray(encode_vote(Vote(7, 3)))
    data[20] ^= 1
    data[BLOCK_BYTES + 20] ^= 1
    with pytest.raises(FormatError, match="both copies"):
        decode_vote(bytes(data))


def test_two_intact_copies_that_differ_are_refused() -> None:
    one, other = encode_vote(Vote(7, 3)), encode_vote(Vote(7, 4))
    with pytest.raises(FormatError, match="differ"):
        decode_vote(one[:BLOCK_BYTES] + other[BLOCK_BYTES:])


def test_an_empty_vote_file_is_refused() -> None:
    with pytest.raises(FormatError):
        decode_vote(b"")


@settings(deadline=None)
@given(st.integers(1, (1 << 64) - 1), st.text(max_size=16))
def test_a_segment_header_comes_back_as_it_was_written(first_index: int, cluster_id: str) -> None:
    data = encode_segment_header(first_index, cluster_id)
    assert len(data) == SEGMENT_HEADER_SIZE
    header = decode_segment_header(data + b"batches")
    assert (header.first_index, header.cluster_id, header.intact_copies) == (
        first_index,
        cluster_id,
        2,
    )


@settings(deadline=None)
@given(u64, st.integers(0, 5000))
def test_a_marker_comes_back_as_it_was_written_in_its_own_place_only(
    synced_index: int, offset: int
) -> None:
    marker = encode_sync_marker(synced_index, offset)
    assert len(marker) == SYNC_MARKER_SIZE
    assert decode_sync_marker(bytes(offset) + marker, offset) == synced_index
    assert decode_sync_marker(bytes(offset + 1) + marker, offset + 1) is None
    assert decode_sync_marker((bytes(offset) + marker)[:-1], offset) is None


def test_a_marker_with_a_flipped_bit_is_none() -> None:
    for bit in range(SYNC_MARKER_SIZE * 8):
        data = bytearray(encode_sync_marker(77, 0))
        data[bit // 8] ^= 1 << bit % 8
        assert decode_sync_marker(bytes(data), 0) is None


def test_a_vote_file_is_no_segment() -> None:
    with pytest.raises(FormatError):
        decode_segment_header(encode_vote(Vote(1, 1)))


def test_a_cluster_id_that_has_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="cluster id"):
        encode_segment_header(1, "x" * 65)


def test_segment_names_sort_like_their_indexes() -> None:
    indexes = [1, 9, 10, 123456, (1 << 64) - 1]
    names = [segment_name(index) for index in indexes]
    assert names == sorted(names)
    assert [parse_segment_name(name) for name in names] == indexes


@pytest.mark.parametrize(
    "name",
    ["1.seg", "00000000000000000000.seg", "0000000000000000000a.seg", f"{1:020d}", "next.tmp"],
)
def test_other_names_are_no_segments(name: str) -> None:
    assert parse_segment_name(name) is None


@settings(deadline=None)
@given(st.integers(1, (1 << 64) - 1))
def test_an_identity_comes_back_as_it_was_written(member_id: int) -> None:
    assert decode_identity(encode_identity(member_id)) == member_id


@settings(deadline=None)
@given(st.integers(1, (1 << 64) - 1), st.integers(0))
def test_a_changed_identity_is_refused(member_id: int, position: int) -> None:
    data = bytearray(encode_identity(member_id))
    data[position % len(data)] ^= 1
    with pytest.raises(FormatError):
        decode_identity(bytes(data))


def signed(text: bytes) -> bytes:
    return text + b"crc32c = %08x\n" % google_crc32c.value(text)


@pytest.mark.parametrize(
    "text", [b"\xff\nformat = 1\n", b"format\n", b"format = 1\n", b"format = 1\nmember_id = \xff\n"]
)
def test_a_small_file_of_other_content_is_refused_though_its_checksum_matches(text: bytes) -> None:
    with pytest.raises(FormatError):
        decode_identity(signed(text))
    with pytest.raises(FormatError):
        decode_word(signed(text))


def test_a_cluster_id_that_is_no_text_is_refused() -> None:
    body = bytearray(encode_segment_header(1, "a-cluster")[:88])
    body[24] = 0xFF
    block = bytes(body) + google_crc32c.value(bytes(body)).to_bytes(4, "little")
    with pytest.raises(FormatError, match="no text"):
        decode_segment_header(block.ljust(4096, b"\0") * 2)


@pytest.mark.parametrize("payload", [b"\x81\xaacluster_id\xa1\xff", b"\x81\xa1x" + b"\x91" * 9_000])
def test_a_configuration_that_can_not_be_read_is_none(payload: bytes) -> None:
    assert decode_configuration(payload) is None
