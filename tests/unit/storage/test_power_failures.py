"""Sectors of the last group that never reached the medium, and bits that turn, anywhere."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_agent.consensus.batch import HEADER_SIZE, ZERO_RUN_BYTES, Batch
from raft_agent.consensus.types import Vote
from raft_agent.storage.errors import StorageError
from raft_agent.storage.format import (
    SEGMENT_HEADER_SIZE,
    SYNC_MARKER_SIZE,
    encode_segment_header,
    group_buffers,
    segment_name,
)
from raft_agent.storage.plan import RecoveryPlan, plan_recovery
from raft_agent.storage.scan import batches_between
from tests.unit.storage.support import CLUSTER, UNUSED, make_batch

SECTOR_BYTES = 512
Groups = list[list[Batch]]


def make_groups(shape: list[list[int]], seed: int, *, zeros: bool = False) -> Groups:
    """Groups of batches with payloads of these sizes."""
    rng = random.Random(seed)
    index, term = 1, 1
    groups: Groups = []
    for sizes in shape:
        groups.append([])
        for size in sizes:
            count = rng.randint(1, 3)
            term += rng.random() < 0.2
            payload = bytearray(rng.randbytes(size))
            if zeros and rng.random() < 0.5:
                start = rng.randint(0, size)
                end = min(start + rng.randint(1, 2_000), size)
                payload[start:end] = bytes(end - start)
            groups[-1].append(make_batch(index, term, count, bytes(payload)))
            index += count
    return groups


def file_of(groups: Groups) -> tuple[bytes, list[int]]:
    """A segment with these groups, and where each of them begins."""
    data = encode_segment_header(1, CLUSTER)
    offsets = []
    for group in groups:
        offsets.append(len(data))
        data += b"".join(group_buffers(group, len(data)))
    return data, offsets


def flat(groups: Groups) -> list[Batch]:
    return [batch for group in groups for batch in group]


def without_sectors(data: bytes, start: int, lost: set[int]) -> bytes:
    """`data` with zeros in those sectors, counted from the one that holds `start`, behind it."""
    holed = bytearray(data)
    first = start - start % SECTOR_BYTES
    for number in lost:
        begin = max(first + number * SECTOR_BYTES, start)
        end = min(first + (number + 1) * SECTOR_BYTES, len(data))
        holed[begin:end] = bytes(max(end - begin, 0))
    return bytes(holed)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def recover(data: bytes) -> tuple[RecoveryPlan, list[Batch]]:
    data += UNUSED
    plan = plan_recovery([(segment_name(1), data)], Vote())
    end = plan.segments[-1].scan.end_offset
    return plan, batches_between(data, SEGMENT_HEADER_SIZE, end)


def misses_one_bit(groups: Groups, whole: bytes, data: bytes) -> bool:
    """Whether a batch lost a single bit: then a bit may as well have turned."""
    for batch in groups[-1]:
        at = whole.rindex(batch.record)
        end = at + len(batch.record)
        lost = int.from_bytes(whole[at:end], "big") ^ int.from_bytes(data[at:end], "big")
        if lost.bit_count() == 1:
            return True
    return False


def check_only_the_last_group_is_shorter(groups: Groups, data: bytes) -> None:
    """Recovery starts, without a floor, and keeps all that was synced."""
    plan, found = recover(data)
    log = flat(groups)
    assert plan.vote == Vote()
    assert found == log[: len(found)]
    assert len(found) >= len(flat(groups[:-1]))
    assert plan.last_index == (found[-1].last_index if found else 0)
    assert bool(plan.warnings) == (plan.cut is not None)


shapes = st.lists(
    st.lists(st.sampled_from([0, 1, 30, 300, 700, 3_000]), min_size=1, max_size=5),
    min_size=1,
    max_size=4,
)
seeds = st.integers(0, 1 << 32)
subsets = st.sets(st.integers(0, 40))


@settings(max_examples=400, deadline=None)
@given(shapes, seeds, subsets)
def test_whatever_sectors_of_the_last_group_are_missing_all_before_it_is_kept(
    shape: list[list[int]], seed: int, lost: set[int]
) -> None:
    groups = make_groups(shape, seed)
    whole, offsets = file_of(groups)
    data = without_sectors(whole, offsets[-1], lost)
    if not misses_one_bit(groups, whole, data):
        check_only_the_last_group_is_shorter(groups, data)


@settings(max_examples=200, deadline=None)
@given(shapes, seeds, st.data())
def test_wherever_the_last_group_stops_all_before_it_is_kept(
    shape: list[list[int]], seed: int, data: st.DataObject
) -> None:
    groups = make_groups(shape, seed, zeros=True)
    whole, offsets = file_of(groups)
    cut = data.draw(st.integers(offsets[-1], len(whole)))
    left = whole[:cut] + bytes(len(whole) - cut)
    if not misses_one_bit(groups, whole, left):
        check_only_the_last_group_is_shorter(groups, left)


@settings(max_examples=200, deadline=None)
@given(shapes, seeds, subsets)
def test_payloads_full_of_zeros_never_stop_the_node(
    shape: list[list[int]], seed: int, lost: set[int]
) -> None:
    """Some of their missing sectors can't be told from their own zeros: then there is a floor."""
    groups = make_groups(shape, seed, zeros=True)
    whole, offsets = file_of(groups)
    plan, found = recover(without_sectors(whole, offsets[-1], lost))
    assert found == flat(groups)[: len(found)]
    assert len(found) >= len(flat(groups[:-1]))
    assert plan.vote.floor_index <= flat(groups)[-1].last_index


def check_nothing_is_lost_in_silence(groups: Groups, data: bytes, acknowledged: Groups) -> None:
    """What was acknowledged is there, or votes protect it, or the node does not start."""
    log, promised = flat(groups), flat(acknowledged)
    try:
        plan, found = recover(data)
    except StorageError as error:
        refused: StorageError | None = error
    else:
        refused = None
    if refused is not None:
        assert refused.offset >= SEGMENT_HEADER_SIZE
        assert "raftctl join" in str(refused)
        return
    assert found == log[: len(found)]
    if len(found) < len(promised):
        floor = (plan.vote.floor_term, plan.vote.floor_index)
        assert floor >= (promised[-1].term, promised[-1].last_index)
        assert "does not stand for election" in plan.warnings[-1]


@settings(max_examples=400, deadline=None)
@given(shapes, seeds, st.booleans(), st.data())
def test_a_turned_bit_anywhere_loses_nothing_in_silence(
    shape: list[list[int]], seed: int, zeros: bool, data: st.DataObject
) -> None:
    groups = make_groups(shape, seed, zeros=zeros)
    whole, _ = file_of(groups)
    bit = data.draw(st.integers(SEGMENT_HEADER_SIZE * 8, len(whole) * 8 - 1))
    check_nothing_is_lost_in_silence(groups, flipped(whole, bit), groups)


@settings(max_examples=400, deadline=None)
@given(shapes, seeds, st.booleans(), subsets, st.data())
def test_a_turned_bit_and_a_power_failure_together_lose_nothing_in_silence(
    shape: list[list[int]], seed: int, zeros: bool, lost: set[int], data: st.DataObject
) -> None:
    groups = make_groups([[300], *shape], seed, zeros=zeros)
    whole, offsets = file_of(groups)
    bit = data.draw(st.integers(offsets[-2] * 8, offsets[-1] * 8 - 1))
    left = flipped(without_sectors(whole, offsets[-1], lost), bit)
    check_nothing_is_lost_in_silence(groups, left, groups[:-1])


@settings(max_examples=200, deadline=None)
@given(shapes, seeds, subsets, st.data())
def test_a_power_failure_after_a_cut_keeps_what_was_not_cut(
    shape: list[list[int]], seed: int, lost: set[int], data: st.DataObject
) -> None:
    """The log is cut in front of any batch, and the next group begins a segment of its own."""
    groups = make_groups(shape, seed)
    kept = flat(groups)[: data.draw(st.integers(1, len(flat(groups))))]
    whole, _ = file_of(groups)
    old = whole[: whole.index(kept[-1].record) + len(kept[-1].record)]
    first, term = kept[-1].last_index + 1, kept[-1].term + 1
    new = [make_batch(first, term, 1, b"n" * 700), make_batch(first + 1, term, 1, b"m" * 700)]
    behind = make_batch(first + 2, term, 1, b"o" * 900)
    head = encode_segment_header(first, CLUSTER)
    synced = head + b"".join(group_buffers(new, len(head)))
    left = synced + b"".join(group_buffers([behind], len(synced)))
    left = without_sectors(left, len(synced), lost) + UNUSED
    plan = plan_recovery([(segment_name(1), old), (segment_name(first), left)], Vote())
    assert plan.vote == Vote()
    assert plan.last_index in (first + 1, first + 2)
    assert plan.segments[0].scan.next_index == first


@pytest.mark.parametrize("seed", range(40))
def test_a_marker_that_is_damaged_or_missing_costs_nothing(seed: int) -> None:
    rng = random.Random(seed)
    groups = make_groups([[rng.randint(0, 900)] for _ in range(4)], seed)
    whole, offsets = file_of(groups)
    at = rng.choice(offsets)
    for marker in (rng.randbytes(SYNC_MARKER_SIZE), bytes(SYNC_MARKER_SIZE)):
        data = whole[:at] + marker + whole[at + SYNC_MARKER_SIZE :]
        plan, found = recover(data)
        assert found == flat(groups)
        assert (plan.cut, plan.vote) == (None, Vote())
        damaged = any(marker)
        assert len(plan.warnings) == damaged


@pytest.mark.parametrize("run", [ZERO_RUN_BYTES - 1, ZERO_RUN_BYTES, 255, 400])
def test_a_lone_bit_between_runs_of_zeros_is_never_a_missing_sector(run: int) -> None:
    """Payloads that come near to a sector of zeros without being one."""
    filler = b"x" * 700
    groups = [[make_batch(1, 1, 1, filler + (bytes(run) + b"\x01") * 9 + filler)]]
    whole, offsets = file_of(groups)
    start = offsets[0] + SYNC_MARKER_SIZE + HEADER_SIZE + len(filler)
    for at in range(start + run, start + 9 * (run + 1), run + 1):
        assert whole[at] == 1
        plan, _ = recover(flipped(whole, at * 8))
        assert plan.vote.floor_index == 1


def test_a_missing_sector_of_a_synced_group_is_damage_in_the_middle() -> None:
    groups = make_groups([[3_000], [10]], 1)
    whole, offsets = file_of(groups)
    data = without_sectors(whole[: offsets[1]], offsets[0], {2}) + whole[offsets[1] :]
    with pytest.raises(StorageError, match="sync marker at byte") as caught:
        recover(data)
    assert caught.value.offset == offsets[0]


def test_a_missing_sector_is_seen_in_a_group_whose_first_bad_batch_hides_it() -> None:
    zeros = make_batch(1, 1, 1, b"x" * 600 + bytes(1_500) + b"x" * 600)
    other = make_batch(2, 1, 1, b"y" * 2_000)
    whole, offsets = file_of([[zeros, other]])
    only_zeros = without_sectors(whole, offsets[0], {1})
    plan, _ = recover(only_zeros)
    assert plan.vote.floor_index == 2
    plan, found = recover(without_sectors(only_zeros, offsets[0], {7}))
    assert (plan.vote, found) == (Vote(), [])


def test_a_missing_sector_is_seen_in_the_marker_of_a_batch_that_hides_another() -> None:
    zeros = make_batch(2, 1, 1, b"x" * 600 + bytes(1_500) + b"x" * 600)
    size = 500 - SYNC_MARKER_SIZE - len(make_batch(1, payload=b"").record)
    whole, offsets = file_of([[make_batch(1, payload=b"f" * size)], [zeros]])
    assert offsets[1] % SECTOR_BYTES == 500
    only_zeros = without_sectors(whole, offsets[1], {3})
    plan, _ = recover(only_zeros[:-700] + b"!" + only_zeros[-699:])
    assert plan.vote.floor_index == 2
    plan, _ = recover(without_sectors(only_zeros, offsets[1], {0})[:-700] + b"!" + whole[-699:])
    assert (plan.vote, plan.last_index) == (Vote(), 1)


def test_a_zeroed_front_header_that_is_no_sector_is_damage() -> None:
    batch = make_batch(1, 1, 2, b"x" * 900)
    whole, offsets = file_of([[batch]])
    at = offsets[0] + SYNC_MARKER_SIZE
    plan, _ = recover(whole[:at] + bytes(HEADER_SIZE) + whole[at + HEADER_SIZE :])
    assert plan.vote.floor_index == 2
