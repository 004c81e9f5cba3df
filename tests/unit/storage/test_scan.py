"""What stands behind the last good batch: nothing, a torn write, damage, or a riddle."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_agent.consensus.batch import HEADER_SIZE, Batch, BatchKind, encode
from raft_agent.storage.format import SEGMENT_HEADER_SIZE
from raft_agent.storage.judge import Verdict, is_zero
from raft_agent.storage.scan import (
    MARK_SPACING_BYTES,
    ScanResult,
    batches_between,
    scan_segment,
)
from tests.unit.storage.support import (
    UNUSED,
    configuration,
    configuration_batch,
    make_batch,
    make_log,
    records,
    written,
)

GOOD = make_log([10, 0, 300])
NEXT_INDEX = GOOD[-1].last_index + 1
LAST_TERM = GOOD[-1].term
START = len(records(GOOD))


def scan(data: bytes, first_index: int = 1, last_term: int = 0) -> ScanResult:
    return scan_segment(data, first_index, last_term, start=0)


def behind_good(data: bytes, unused: bytes = UNUSED) -> ScanResult:
    """Scan a good log with `data` behind it; the good part must be found."""
    result = scan(records(GOOD) + data + unused)
    assert (result.end_offset, result.next_index) == (START, NEXT_INDEX)
    return result


def follower(size: int = 600, ahead: int = 0, term: int = LAST_TERM) -> Batch:
    """A batch of two entries that follows the good log."""
    payload = bytes(byte % 255 + 1 for byte in range(size))
    return make_batch(NEXT_INDEX + ahead, term, 2, payload)


def with_flip(record: bytes, position: int) -> bytes:
    data = bytearray(record)
    data[position] ^= 0x10
    return bytes(data)


def cleared(record: bytes, begin: int, end: int) -> bytes:
    return record[:begin] + bytes(end - begin) + record[end:]


# --- Good batches


@pytest.mark.parametrize("unused", [b"", bytes(17), UNUSED])
def test_good_batches_are_found_and_nothing_behind_them_is_clean(unused: bytes) -> None:
    data = records(GOOD) + unused
    result = scan(data)
    assert result.verdict is Verdict.CLEAN
    assert result.end_offset == START
    assert batches_between(data, 0, result.end_offset) == GOOD
    assert (result.first_index, result.next_index) == (1, NEXT_INDEX)
    assert result.last_term == LAST_TERM


def test_an_empty_segment_is_clean() -> None:
    result = scan_segment(bytes(SEGMENT_HEADER_SIZE), 7, 3)
    assert (result.verdict, result.next_index, result.last_term) == (Verdict.CLEAN, 7, 3)


def test_term_runs_start_where_the_term_changes() -> None:
    log = [make_batch(5, 2), make_batch(6, 2, 3), make_batch(9, 4), make_batch(10, 4)]
    assert scan(records(log), 5, 2).term_runs == [(9, 4)]
    assert scan(records(log), 5, 1).term_runs == [(5, 2), (9, 4)]


def test_configurations_are_collected() -> None:
    log = [configuration_batch(1), make_batch(2), configuration_batch(3)]
    assert scan(records(log)).configurations == [(1, configuration()), (3, configuration())]


def test_there_is_a_mark_for_each_stretch_of_the_log() -> None:
    log = make_log([9_000] * 40)
    result = scan(records(log))
    offsets = list(result.mark_offsets)
    assert offsets[0] == 0
    steps = [after - before for before, after in itertools.pairwise(offsets)]
    assert all(MARK_SPACING_BYTES <= step < MARK_SPACING_BYTES + 9_080 for step in steps)
    places = {sum(len(b.record) for b in log[:n]): b.first_index for n, b in enumerate(log)}
    assert [places[offset] for offset in offsets] == list(result.mark_indexes)


# --- Torn: the batch is not there in full


@pytest.mark.parametrize("end", ["zeros", "end of file"])
@pytest.mark.parametrize("size", [0, 5, 600])
def test_a_batch_cut_at_any_byte_is_torn(size: int, end: str) -> None:
    record = follower(size).record
    for length in range(1, len(record)):
        tail = bytes(len(record) - length) if end == "zeros" else b""
        data = record[:length] + tail
        if data == record:  # the record ends with a zero of its own
            continue
        unused = UNUSED if end == "zeros" else b""
        result = behind_good(data, unused)
        differing = int.from_bytes(data, "little") ^ int.from_bytes(record, "little")
        if end == "zeros" and differing.bit_count() == 1:
            assert result.verdict is Verdict.DAMAGED  # could as well be a flipped bit
        else:
            assert result.verdict is Verdict.TORN


def test_zeros_in_place_of_payload_and_trailer_are_torn() -> None:
    record = follower().record
    assert behind_good(cleared(record, 300, len(record))).verdict is Verdict.TORN


def test_an_intact_payload_without_its_trailer_is_torn() -> None:
    record = follower().record
    result = behind_good(cleared(record, len(record) - HEADER_SIZE, len(record)))
    assert result.verdict is Verdict.TORN
    assert f"index {NEXT_INDEX}" in result.reason


@settings(deadline=None)
@given(st.integers(0, 511), st.integers(100, 5_000), st.data())
def test_any_sectors_missing_of_one_unfinished_batch_never_stop_the_node(
    shift: int, size: int, data: st.DataObject
) -> None:
    filler = make_batch(1, 1, 1, bytes(shift))
    record = make_batch(2, 1, 1, bytes(byte % 255 + 1 for byte in range(size))).record
    start = len(filler.record)
    holed = bytearray(filler.record + record)
    for sector in range(start // 512, len(holed) // 512 + 1):
        if data.draw(st.booleans()):
            begin, end = max(sector * 512, start), min(sector * 512 + 512, len(holed))
            holed[begin:end] = bytes(end - begin)
    result = scan(bytes(holed) + UNUSED)
    if holed[start:] == record:
        assert result.next_index == 3
    else:
        assert result.next_index == 2
        assert result.verdict is not Verdict.BROKEN


def test_two_torn_batches_of_one_group_are_torn() -> None:
    first, second = follower(), follower(ahead=2)
    data = cleared(first.record, 400, len(first.record)) + second.record[:200]
    assert behind_good(data).verdict is Verdict.TORN


# --- Damaged: there in full, with a bad checksum, at the end


@pytest.mark.parametrize("size", [0, 1, 600])
def test_any_flipped_bit_of_the_last_batch_is_damage(size: int) -> None:
    batch = follower(size)
    for bit in range(len(batch.record) * 8):
        data = bytearray(batch.record)
        data[bit // 8] ^= 1 << bit % 8
        result = behind_good(bytes(data))
        assert result.verdict is Verdict.DAMAGED, bit
        assert (result.damage_term, result.damage_index) == (batch.term, batch.last_index)
        assert result.trouble_offset == START


def test_zeros_within_a_payload_that_are_no_whole_sector_are_damage() -> None:
    record = follower(2_000).record
    aligned = -START % 512 + 512
    assert behind_good(cleared(record, aligned + 1, aligned + 513)).verdict is Verdict.DAMAGED
    assert behind_good(cleared(record, aligned, aligned + 512)).verdict is Verdict.TORN


def test_a_zeroed_front_header_is_damage_when_the_trailer_tells_of_it() -> None:
    batch = follower()
    result = behind_good(cleared(batch.record, 0, HEADER_SIZE))
    assert result.verdict is Verdict.DAMAGED
    assert result.damage_index == batch.last_index


def test_a_wrong_trailer_is_damage_even_with_an_intact_payload() -> None:
    batch = follower()
    data = batch.record[:-HEADER_SIZE] + bytes(range(1, HEADER_SIZE + 1))
    assert behind_good(data).verdict is Verdict.DAMAGED


def test_a_trailer_that_misses_a_single_bit_is_damage_not_a_missing_byte() -> None:
    batch = next(
        batch
        for size in range(10_000)
        if (batch := follower(size)).record[-1].bit_count() == 1 and batch.record[-2]
    )
    assert behind_good(batch.record[:-1] + b"\0").verdict is Verdict.DAMAGED
    assert behind_good(batch.record[:-2] + b"\0\0").verdict is Verdict.TORN


def test_a_bad_payload_with_a_part_of_its_trailer_is_damage() -> None:
    record = with_flip(follower().record, 100)
    assert behind_good(cleared(record, len(record) - 10, len(record))).verdict is Verdict.DAMAGED


def test_a_zeroed_trailer_with_a_batch_behind_it_is_no_write_that_stopped() -> None:
    record, last = follower().record, follower(ahead=2)
    data = cleared(record, len(record) - HEADER_SIZE, len(record)) + last.record
    result = behind_good(data)
    assert result.verdict is Verdict.DAMAGED
    assert result.damage_index == last.last_index


def test_of_two_damaged_batches_at_the_end_the_last_one_counts() -> None:
    first, second = follower(), follower(ahead=2, term=LAST_TERM + 3)
    result = behind_good(with_flip(first.record, 100) + with_flip(second.record, 100))
    assert result.verdict is Verdict.DAMAGED
    assert (result.damage_term, result.damage_index) == (second.term, second.last_index)


def test_a_damaged_batch_of_a_torn_group_was_never_acknowledged() -> None:
    torn = follower(ahead=2).record[:200]
    assert behind_good(with_flip(follower().record, 100) + torn).verdict is Verdict.TORN


def test_a_damaged_batch_with_a_torn_group_behind_it_is_damage_at_the_end() -> None:
    batch = follower()
    torn = bytes(24) + follower(ahead=2).record[:200]
    result = behind_good(with_flip(batch.record, 100) + torn)
    assert result.verdict is Verdict.DAMAGED
    assert (result.damage_term, result.damage_index) == (batch.term, batch.last_index)


@pytest.mark.parametrize("position", [2, 100, 700], ids=["front header", "payload", "trailer"])
def test_damage_within_the_last_group_counts_to_the_end_of_the_group(position: int) -> None:
    record, last = follower(size=640).record, follower(ahead=2, term=LAST_TERM + 1)
    result = behind_good(with_flip(record, position) + last.record)
    assert result.verdict is Verdict.DAMAGED
    assert (result.damage_term, result.damage_index) == (last.term, last.last_index)


# --- Broken: something good behind, or nobody can tell


@pytest.mark.parametrize("position", [2, 100, 700], ids=["front header", "payload", "trailer"])
def test_damage_with_a_group_behind_it_is_broken(position: int) -> None:
    record = follower(size=640).record
    behind = written([[follower(ahead=2)]], START + len(record))
    for shown in (behind, behind[:24]):
        result = behind_good(with_flip(record, position) + shown)
        assert result.verdict is Verdict.BROKEN
        assert result.trouble_offset == START
        assert f"index {NEXT_INDEX}" in result.reason
        assert f"byte {START + len(record)}" in result.reason


@pytest.mark.parametrize("length", [0, 20, 300, 650])
def test_a_hole_with_a_group_behind_it_is_broken(length: int) -> None:
    record = follower(2_000).record
    data = cleared(record, length, len(record))
    data += written([[follower(ahead=2)]], START + len(record))
    assert behind_good(data).verdict is Verdict.BROKEN


def test_a_marker_within_a_payload_says_nothing() -> None:
    log = written([[follower()], [make_batch(NEXT_INDEX + 2)]], START)
    data = make_batch(NEXT_INDEX, LAST_TERM, 1, b"backup:" + log).record
    assert behind_good(with_flip(data, 42)).verdict is Verdict.DAMAGED


def test_two_equal_headers_without_a_right_checksum_are_broken() -> None:
    record = follower().record
    head = with_flip(record[:HEADER_SIZE], HEADER_SIZE - 1)
    data = head + record[HEADER_SIZE:-HEADER_SIZE] + head
    assert behind_good(data).verdict is Verdict.BROKEN


def test_bytes_that_are_no_batch_are_broken() -> None:
    assert behind_good(bytes(range(1, 200))).verdict is Verdict.BROKEN


@pytest.mark.parametrize("first_index", [NEXT_INDEX - 1, NEXT_INDEX + 1, 1])
def test_an_intact_batch_of_another_index_is_broken(first_index: int) -> None:
    result = behind_good(make_batch(first_index, LAST_TERM).record)
    assert result.verdict is Verdict.BROKEN
    assert f"index {first_index}" in result.reason


def test_a_term_that_goes_back_is_broken() -> None:
    data = records([make_batch(1, 5), make_batch(2, 4)])
    result = scan(data)
    assert (result.verdict, result.next_index) == (Verdict.BROKEN, 2)
    assert scan(data, 1, 6).next_index == 1


def test_a_kind_of_a_later_version_is_no_damage() -> None:
    record = encode(99, NEXT_INDEX, LAST_TERM, 1, b"").record
    result = behind_good(record)
    assert result.verdict is Verdict.UNKNOWN
    assert "kind 99" in result.reason


def test_a_configuration_that_can_not_be_read_is_broken() -> None:
    payload = msgspec.msgpack.encode({"cluster_id": 5})
    record = encode(BatchKind.CONFIGURATION, NEXT_INDEX, LAST_TERM, 1, payload).record
    assert behind_good(record).verdict is Verdict.BROKEN


# --- Whatever happens


sizes = st.lists(st.integers(0, 700), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(sizes, st.data())
def test_any_cut_leaves_the_batches_before_it(sizes: list[int], data: st.DataObject) -> None:
    log = make_log(sizes)
    whole = records(log)
    length = data.draw(st.integers(0, len(whole)))
    zeros = data.draw(st.sampled_from([0, len(whole) - length, 4096]))
    left = whole[:length] + bytes(zeros)
    result = scan(left)
    found = batches_between(left, 0, result.end_offset)
    assert found == log[: len(found)]
    assert sum(len(batch.record) for batch in log[: len(found) + 1]) > length or found == log
    assert result.verdict is not Verdict.BROKEN


@settings(max_examples=300, deadline=None)
@given(sizes, st.data())
def test_a_flipped_bit_never_loses_a_batch_in_silence(
    sizes: list[int], data: st.DataObject
) -> None:
    log = make_log(sizes)
    damaged = bytearray(records(log) + UNUSED)
    bit = data.draw(st.integers(0, len(damaged) * 8 - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    result = scan(bytes(damaged))
    found = batches_between(bytes(damaged), 0, result.end_offset)
    assert found == log[: len(found)]
    if found != log:
        last = (result.damage_term, result.damage_index) == (log[-1].term, log[-1].last_index)
        assert result.verdict is Verdict.BROKEN or (result.verdict is Verdict.DAMAGED and last)


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_get_a_verdict(data: bytes) -> None:
    result = scan(records(GOOD) + data)
    assert result.end_offset >= START


def test_zeros_are_told_from_anything_else() -> None:
    data = bytearray(200_000)
    assert is_zero(bytes(data))
    assert is_zero(b"")
    data[150_000] = 1
    assert not is_zero(bytes(data))
    assert not is_zero(bytes(data), 150_000)
    assert is_zero(bytes(data), 150_001)


def test_a_marker_that_reads_like_a_batch_is_refused_in_words() -> None:
    """Chance does not do it; somebody who writes to the file may."""
    data = bytearray(written([GOOD[:1], GOOD[1:]], 0))
    second = data.index(b"RSYN", 1)
    for place in (0, second):
        damaged = bytearray(data)
        damaged[place : place + 4] = b"RBAT"
        found = scan(bytes(damaged))
        assert found.verdict is Verdict.BROKEN
        assert found.trouble_offset == place
        assert "neither a marker nor a batch" in found.reason
