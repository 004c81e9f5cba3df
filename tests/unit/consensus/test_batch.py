"""The one encoding of entries: what goes in comes out, and no damage goes unseen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent.consensus.batch import (
    HEADER_SIZE,
    MAGIC,
    MAX_ENTRIES,
    MAX_PAYLOAD_BYTES,
    OVERHEAD,
    ZERO_RUN,
    ZERO_RUN_BYTES,
    Batch,
    BatchError,
    BatchKind,
    decode,
    decode_header,
    encode,
)
from tests.unit.consensus.server import examples

U64 = st.integers(1, (1 << 64) - 1)
COUNTS = st.integers(1, MAX_ENTRIES)
BATCHES = st.builds(
    encode,
    st.sampled_from(list(BatchKind)),
    st.integers(1, 1 << 62),
    U64,
    COUNTS,
    st.binary(max_size=200),
)
SAMPLE = encode(BatchKind.COMMANDS, 7, 3, 2, b"put a 1put b 2")


@examples
@given(BATCHES)
def test_a_batch_survives_encoding_and_decoding(batch: Batch) -> None:
    assert decode(batch.record) == batch
    header = decode_header(batch.record)
    assert (header.first_index, header.last_index) == (batch.first_index, batch.last_index)
    assert (header.term, header.kind, header.count) == (batch.term, batch.kind, batch.count)
    assert header.size == len(batch.record) == len(batch.payload) + OVERHEAD


@examples
@given(st.lists(BATCHES, min_size=1, max_size=4))
def test_batches_in_a_row_are_decoded_one_after_the_other(batches: list[Batch]) -> None:
    data = memoryview(b"".join(batch.record for batch in batches))
    offset = 0
    for batch in batches:
        assert decode(data, offset) == batch
        offset += len(batch.record)
    assert offset == len(data)


def test_any_flipped_bit_is_detected() -> None:
    for position in range(len(SAMPLE.record)):
        for bit in range(8):
            damaged = bytearray(SAMPLE.record)
            damaged[position] ^= 1 << bit
            with pytest.raises(BatchError):
                decode(bytes(damaged))


@examples
@given(BATCHES, st.data())
def test_a_batch_cut_short_is_detected(batch: Batch, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(batch.record) - 1))
    with pytest.raises(BatchError, match=r"cut short|a header needs"):
        decode(batch.record[:length])


@examples
@given(BATCHES, st.data())
def test_a_damaged_stretch_is_detected(batch: Batch, data: st.DataObject) -> None:
    """As a torn or misplaced sector leaves it: a run of other bytes."""
    start = data.draw(st.integers(0, len(batch.record) - 1))
    end = data.draw(st.integers(start + 1, len(batch.record)))
    stretch = data.draw(st.binary(min_size=end - start, max_size=end - start))
    damaged = batch.record[:start] + stretch + batch.record[end:]
    if damaged != batch.record:
        with pytest.raises(BatchError):
            decode(damaged)


@pytest.mark.parametrize("before", [0, 1, 500])
def test_a_header_says_whether_the_payload_holds_a_run_of_zeros(before: int) -> None:
    for length, flags in ((ZERO_RUN_BYTES - 1, 0), (ZERO_RUN_BYTES, ZERO_RUN), (5_000, ZERO_RUN)):
        payload = b"x" * before + bytes(length) + b"x" + bytes(ZERO_RUN_BYTES - 1)
        batch = encode(BatchKind.COMMANDS, 1, 1, 1, payload)
        assert decode_header(batch.record).flags == flags
        assert decode(batch.record) == batch


def test_the_second_header_names_a_batch_whose_first_one_is_damaged() -> None:
    damaged = b"\0" * HEADER_SIZE + SAMPLE.record[HEADER_SIZE:]
    with pytest.raises(BatchError):
        decode(damaged)
    header = decode_header(damaged, len(damaged) - HEADER_SIZE)
    assert (header.first_index, header.term, header.size) == (7, 3, len(damaged))


def test_the_same_batch_always_has_the_same_bytes() -> None:
    """Pinned: logs of earlier versions hold exactly this."""
    assert SAMPLE.record[:HEADER_SIZE].hex() == (
        "5242415401010000"
        "0700000000000000"
        "0300000000000000"
        "020000000e000000" + SAMPLE.record[32:40].hex()
    )
    assert int.from_bytes(SAMPLE.record[:4], "little") == MAGIC
    assert SAMPLE.record[:4] == b"RBAT"
    assert encode(BatchKind.COMMANDS, 7, 3, 2, b"put a 1put b 2") == SAMPLE


@pytest.mark.parametrize(
    ("count", "payload", "message"),
    [(0, b"x", "holds 1 to 65536 entries"), (1, b"x" * (MAX_PAYLOAD_BYTES + 1), "is over")],
)
def test_a_batch_that_can_not_be_is_refused(count: int, payload: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(BatchKind.COMMANDS, 1, 1, count, payload)


@examples
@given(st.binary(max_size=120))
def test_foreign_bytes_are_no_batch(data: bytes) -> None:
    with pytest.raises(BatchError):
        decode(data)
