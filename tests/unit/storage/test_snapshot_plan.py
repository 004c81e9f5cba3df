"""What recovery makes of a log and the snapshots beside it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import SnapshotMeta, Vote
from raft_agent.storage.errors import StorageError
from raft_agent.storage.format import SEGMENT_HEADER_SIZE, SegmentHeader, segment_name
from raft_agent.storage.plan import RecoveryPlan, plan_recovery
from tests.unit.storage.support import (
    CLUSTER,
    configuration,
    configuration_batch,
    make_batch,
    one_by_one,
    segment,
    snapshot_meta,
)

# Entries 1 to 30 in three segments; terms 1, 2 and 3 begin with 1, 11 and 25.
LOG = [
    configuration_batch(1),
    *(make_batch(index, 1) for index in range(2, 11)),
    *(make_batch(index, 2) for index in range(11, 25)),
    *(make_batch(index, 3) for index in range(25, 31)),
]
FIRSTS = (1, 9, 21, 31)


def files(first: int = 0, last: int = 3) -> list[tuple[str, bytes]]:
    """The segments from number `first` on and before number `last`."""
    found: list[tuple[str, bytes]] = []
    for begin, end in list(pairwise(FIRSTS))[first:last]:
        part = [batch for batch in LOG if begin <= batch.first_index < end]
        found.append((segment_name(begin), segment(part, first_index=begin)))
    return found


def term_of(index: int) -> int:
    return 1 if index < 11 else 2 if index < 25 else 3


def plan(
    segments: list[tuple[str, bytes]],
    *snapshots: SnapshotMeta,
    vote: Vote | None = None,
    last_segment: SegmentHeader | None = None,
    damaged: tuple[StorageError, ...] = (),
) -> RecoveryPlan:
    return plan_recovery(
        segments,
        vote or Vote(),
        last_segment=last_segment,
        snapshots=snapshots,
        damaged_snapshots=damaged,
    )


def of(index: int) -> SnapshotMeta:
    return snapshot_meta(index, term_of(index))


BAD = StorageError("damaged: block 3 does not match", "snapshots/30.snap", 1234, "Do this")


# --- The log goes on from a snapshot


def test_a_log_that_begins_with_index_1_is_whole_beside_a_snapshot() -> None:
    found = plan(files(), of(20))
    image = found.log_image(())
    assert found.snapshot == of(20)
    assert (image.base_index, image.base_term, image.last_index) == (0, 0, 30)
    assert image.term_runs == ((1, 1), (11, 2), (25, 3))
    assert image.configurations == ((1, configuration()),)
    assert (found.delete, found.cut, found.warnings) == ([], None, [])


def test_a_compacted_log_begins_behind_the_oldest_snapshot_that_it_goes_on_from() -> None:
    found = plan(files(1), of(28), of(14))
    image = found.log_image(tuple(LOG[8:]))
    assert found.snapshot == of(28)
    assert (image.base_index, image.base_term, image.last_index) == (14, 2, 30)
    assert image.term_runs == ((15, 2), (25, 3))
    assert image.configurations == ((1, configuration()),)
    assert image.tail[0].first_index == 15
    assert (found.delete, found.cut, found.warnings) == ([], None, [])


def test_a_snapshot_right_before_the_log_is_one_that_it_goes_on_from() -> None:
    found = plan(files(1), of(28), of(8))
    assert (found.base_index, found.base_term) == (8, 1)
    assert found.term_runs == [(9, 1), (11, 2), (25, 3)]


def test_an_older_snapshot_that_the_log_does_not_reach_is_no_base() -> None:
    found = plan(files(2), of(28), of(14))
    assert (found.base_index, found.base_term) == (28, 3)
    assert found.term_runs == [(29, 3)]


def test_a_log_that_ends_with_the_snapshot_stays() -> None:
    found = plan(files(1), of(30))
    assert (found.base_index, found.base_term) == (30, 3)
    assert (found.last_index, found.last_term, found.term_runs) == (30, 3, [])
    assert len(found.segments) == 2
    assert found.last_segment == SegmentHeader(21, CLUSTER)


def test_the_configuration_of_the_base_comes_first_and_those_behind_it_follow() -> None:
    later = [configuration_batch(1), make_batch(2), configuration_batch(3), configuration_batch(4)]
    rest = [batch for batch in later if batch.first_index > 1]
    base = SnapshotMeta(3, 1, 1, 1, 3, configuration("a-cluster"))
    found = plan([(segment_name(2), segment(rest, first_index=2))], base)
    assert [index for index, _ in found.configurations] == [3, 4]


@given(
    st.sets(st.integers(1, 40), min_size=1, max_size=3).map(lambda found: sorted(found)[::-1]),
    st.integers(0, 2),
)
def test_whatever_is_there_the_image_fits_the_newest_snapshot(
    indexes: list[int], first: int
) -> None:
    snapshots = [of(index) for index in indexes]
    try:
        found = plan(files(first), *snapshots)
    except StorageError:
        assert indexes[0] < FIRSTS[first] - 1
        return
    image = found.log_image(tuple(LOG) if indexes[0] <= 30 else ())
    assert found.snapshot == snapshots[0]
    assert image.base_index <= indexes[0] <= image.last_index
    assert image.base_index in (0, *indexes)
    assert image.last_index == max(30, indexes[0])
    expected = image.base_index + 1
    for batch in image.tail:
        assert batch.first_index == expected
        expected = batch.last_index + 1
    starts = [start for start, _ in image.term_runs]
    assert starts == sorted(starts)
    assert starts[:1] == ([image.base_index + 1] if image.last_index > image.base_index else [])
    assert all(term == term_of(start) for start, term in image.term_runs)


# --- The log is dropped


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_log_that_ends_before_the_snapshot_is_dropped(first: int) -> None:
    found = plan(files(first), of(40), of(28))
    image = found.log_image(())
    assert (image.base_index, image.base_term, image.last_index) == (40, 3, 40)
    assert image.term_runs == ()
    assert image.configurations == ((1, configuration()),)
    assert (found.segments, found.cut) == ([], None)
    assert found.delete == [name for name, _ in files(first)][::-1]
    assert found.last_segment == SegmentHeader(41, CLUSTER, is_to_come=True)
    assert found.cluster_id == CLUSTER
    assert found.warnings == []


def test_a_log_with_another_term_at_the_snapshot_is_dropped() -> None:
    found = plan(files(), snapshot_meta(20, 5))
    assert (found.base_index, found.base_term, found.last_index) == (20, 5, 20)
    assert (found.last_term, found.term_runs) == (5, [])
    assert len(found.delete) == 3


def test_a_snapshot_without_a_log_is_a_start() -> None:
    found = plan([], of(20))
    assert found.snapshot == of(20)
    assert (found.cluster_id, found.base_index, found.last_index) == (CLUSTER, 20, 20)
    assert found.last_segment == SegmentHeader(21, CLUSTER, is_to_come=True)
    assert found.delete == []


def test_what_was_prepared_and_not_used_goes_with_a_dropped_log() -> None:
    found = plan([*files(), (segment_name(31), bytes(9_000))], of(40))
    assert found.delete == [segment_name(first) for first in (31, 21, 9, 1)]


def test_a_torn_end_of_a_dropped_log_needs_no_cut() -> None:
    name, data = files(2)[0]
    end = SEGMENT_HEADER_SIZE + len(one_by_one([batch for batch in LOG if batch.first_index > 20]))
    torn = data[: end - 30] + bytes(2_000)
    found = plan([*files(0, 2), (name, torn)], of(30))
    assert found.cut is None
    assert found.delete == [segment_name(first) for first in (21, 9, 1)]
    assert found.last_index == 30


# --- The vote floor


def damaged_end() -> list[tuple[str, bytes]]:
    name, data = files(2)[0]
    end = SEGMENT_HEADER_SIZE + len(one_by_one([batch for batch in LOG if batch.first_index > 20]))
    changed = bytearray(data)
    changed[end - 5] ^= 1
    return [*files(0, 2), (name, bytes(changed))]


def test_a_snapshot_that_holds_the_damaged_entry_lifts_the_floor() -> None:
    assert plan(damaged_end(), of(20)).vote == Vote(0, 0, 3, 30)
    assert plan(damaged_end(), of(30)).vote == Vote()
    assert plan([], of(30), vote=Vote(4, 1, 3, 30)).vote == Vote(4, 1)


def test_a_snapshot_before_the_damaged_entry_does_not() -> None:
    found = plan(damaged_end()[2:], of(29))
    assert found.vote == Vote(0, 0, 3, 30)
    assert plan([], of(29), vote=Vote(4, 1, 3, 30)).vote == Vote(4, 1, 3, 30)


def test_a_snapshot_of_a_later_term_lifts_the_floor() -> None:
    # A leader of term 4 with that entry 29 had no entry 30 of term 3, so it was never committed.
    found = plan(damaged_end(), snapshot_meta(29, 4))
    assert found.segments == []
    assert found.vote == Vote()


# --- Refusals


def test_a_gap_between_the_snapshot_and_the_log_is_refused() -> None:
    with pytest.raises(StorageError, match="entries 8 to 8 in front of it are missing") as caught:
        plan(files(1), of(7))
    assert caught.value.path == f"log/{segment_name(9)}"
    assert "raftctl join" in caught.value.advice


def test_a_missing_segment_behind_the_snapshot_is_refused() -> None:
    with pytest.raises(StorageError, match="entries 9 to 20"):
        plan([*files(0, 1), *files(2)], of(5))


def test_a_compacted_log_with_only_a_damaged_snapshot_is_refused() -> None:
    with pytest.raises(StorageError, match="block 3 does not match") as caught:
        plan(files(1), damaged=(BAD,))
    assert (caught.value.path, caught.value.offset) == (BAD.path, BAD.offset)
    assert "begins with index 9 only" in caught.value.what
    assert caught.value.advice == BAD.advice  # who can't read it has other things to mend


def test_a_damaged_snapshot_without_anything_else_is_refused() -> None:
    with pytest.raises(StorageError, match="neither a log nor another snapshot"):
        plan([], damaged=(BAD,))


def test_a_damaged_newest_snapshot_costs_nothing_while_the_log_goes_on_from_the_older() -> None:
    found = plan(files(1), of(14), damaged=(BAD,))
    assert (found.snapshot, found.base_index, found.last_index) == (of(14), 14, 30)
    [warning] = found.warnings
    assert "snapshots/30.snap, byte 1234" in warning
    assert "that of index 14 is used" in warning
    assert "raftctl leave" not in warning


def test_a_damaged_only_snapshot_costs_nothing_beside_a_whole_log() -> None:
    found = plan(files(), damaged=(BAD,))
    assert (found.snapshot, found.last_index) == (None, 30)
    assert "the log is used instead" in found.warnings[0]


TO_COME = SegmentHeader(31, CLUSTER, is_to_come=True)


def test_an_older_snapshot_does_not_stand_for_an_installed_one_that_is_damaged() -> None:
    # What it stood for was acknowledged, and the log was forgotten for it.
    with pytest.raises(StorageError, match="block 3 does not match") as caught:
        plan([], of(14), last_segment=TO_COME, damaged=(BAD,))
    assert "snapshot of index 30" in caught.value.what


def test_an_older_snapshot_does_not_stand_for_an_installed_one_that_is_gone() -> None:
    with pytest.raises(StorageError, match="snapshot of index 30, where the log begins"):
        plan([], of(14), last_segment=TO_COME)


def test_the_rest_of_a_log_that_was_being_forgotten_goes_too() -> None:
    found = plan(files(0, 2), of(30), last_segment=TO_COME)
    assert found.delete == [segment_name(9), segment_name(1)]
    assert found.last_segment == TO_COME


def test_the_first_segment_behind_an_installed_snapshot_ends_the_waiting_for_it() -> None:
    rest = [make_batch(31, 4)]
    segments = [(segment_name(31), segment(rest, first_index=31))]
    found = plan(segments, of(30), last_segment=TO_COME)
    assert (found.base_index, found.last_index, found.last_term) == (30, 31, 4)
    assert found.last_segment == SegmentHeader(31, CLUSTER)


def test_a_missing_first_segment_behind_an_installed_snapshot_is_refused() -> None:
    with pytest.raises(StorageError, match="had come to it"):
        plan([], of(30), last_segment=SegmentHeader(31, CLUSTER))


@pytest.mark.parametrize("with_log", [True, False])
def test_another_clusters_snapshot_is_refused(with_log: bool) -> None:
    segments = files() if with_log else []
    noted = SegmentHeader(21, CLUSTER) if with_log else TO_COME
    with pytest.raises(StorageError, match="'another'"):
        plan(segments, snapshot_meta(35, 3, "another"), last_segment=noted)


def test_an_empty_segment_behind_the_snapshot_is_a_log() -> None:
    found = plan([(segment_name(31), segment([], first_index=31))], of(30))
    assert (found.base_index, found.last_index, found.last_term) == (30, 30, 3)
    assert len(found.segments) == 1


def test_batches_of_the_tail_before_the_base_are_left_out() -> None:
    tail: tuple[Batch, ...] = tuple(batch for batch in LOG if batch.first_index >= 9)
    image = plan(files(1), of(28)).log_image(tail)
    assert [batch.first_index for batch in image.tail] == [29, 30]
