"""What recovery makes of the segments of a log."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import Vote
from raft_agent.storage.errors import StorageError
from raft_agent.storage.format import (
    BLOCK_BYTES,
    SEGMENT_HEADER_SIZE,
    SegmentHeader,
    encode_segment_header,
    segment_name,
)
from raft_agent.storage.plan import Cut, RecoveryPlan, plan_recovery
from tests.unit.storage.support import (
    CLUSTER,
    UNUSED,
    configuration,
    configuration_batch,
    make_batch,
    make_log,
    one_by_one,
    plan_for,
    records,
    segment,
    written,
)

OLD = [configuration_batch(1), *make_log([10, 200, 30], first_index=2)]
MIDDLE = OLD[-1].last_index + 1
NEW = make_log([40, 0, 500], first_index=MIDDLE, term=OLD[-1].term)
END = NEW[-1].last_index + 1
LAST = NEW[-1]


def plan_two(old: bytes, new: bytes, vote: Vote | None = None) -> RecoveryPlan:
    segments = [(segment_name(1), old), (segment_name(MIDDLE), new)]
    return plan_recovery(segments, vote or Vote())


def two_good() -> tuple[bytes, bytes]:
    return segment(OLD), segment(NEW, first_index=MIDDLE)


def flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 4
    return bytes(changed)


def test_no_segments_are_an_empty_log() -> None:
    plan = plan_recovery([], Vote(3, 1))
    assert (plan.cluster_id, plan.last_index, plan.last_term) == ("", 0, 0)
    assert plan.vote == Vote(3, 1)
    assert plan.log_image(()).term_runs == ()


def test_the_segments_together_are_the_log() -> None:
    plan = plan_two(*two_good())
    assert plan.cluster_id == CLUSTER
    assert (plan.last_index, plan.last_term) == (END - 1, LAST.term)
    assert plan.configurations == [(1, configuration())]
    runs: list[tuple[int, int]] = []
    for batch in OLD + NEW:
        if not runs or runs[-1][1] != batch.term:
            runs.append((batch.first_index, batch.term))
    assert plan.term_runs == runs
    assert (plan.cut, plan.delete, plan.warnings) == (None, [], [])


def test_a_torn_tail_is_cut_and_said_so() -> None:
    torn = make_batch(END, LAST.term, 1, b"y" * 900).record[:500]
    plan = plan_two(segment(OLD), segment(NEW, first_index=MIDDLE, behind=torn + UNUSED))
    offset = SEGMENT_HEADER_SIZE + len(one_by_one(NEW))
    assert plan.cut == Cut(segment_name(MIDDLE), offset)
    assert plan.last_index == END - 1
    assert plan.vote == Vote()
    [warning] = plan.warnings
    assert segment_name(MIDDLE) in warning
    assert str(offset) in warning


def test_damage_at_the_end_raises_the_vote_floor_before_it_is_cut() -> None:
    data = flipped(segment(NEW, first_index=MIDDLE, behind=b""), -100)
    plan = plan_two(segment(OLD), data, Vote(9, 4))
    assert plan.vote == Vote(9, 4, LAST.term, LAST.last_index)
    assert plan.last_index == LAST.first_index - 1
    assert plan.cut is not None
    [warning] = plan.warnings
    assert "does not stand for election" in warning


def test_damage_in_the_last_group_raises_the_vote_floor_to_its_end() -> None:
    data = encode_segment_header(MIDDLE, CLUSTER) + written([NEW]) + UNUSED
    plan = plan_two(segment(OLD), flipped(data, SEGMENT_HEADER_SIZE + 50), Vote(9, 4))
    assert plan.vote == Vote(9, 4, LAST.term, LAST.last_index)
    assert plan.last_index == MIDDLE - 1
    assert plan.delete == [segment_name(MIDDLE)]


def test_a_damaged_marker_only_warns() -> None:
    offset = SEGMENT_HEADER_SIZE + len(one_by_one(OLD[:1]))
    plan = plan_for(flipped(segment(OLD), offset + 9))
    assert plan.last_index == MIDDLE - 1
    assert plan.cut is None
    [warning] = plan.warnings
    assert f"byte {offset}" in warning
    assert "marker" in warning


def test_a_floor_is_never_lowered_by_new_damage() -> None:
    data = flipped(segment(OLD, behind=b""), -100)
    assert plan_for(data, Vote(9, 4, 8, 1)).vote == Vote(9, 4, 8, 1)


def test_the_floor_stays_until_the_log_has_reached_it() -> None:
    data = segment(OLD)
    last = OLD[-1]
    assert plan_for(data, Vote(9, 4, last.term, MIDDLE)).vote.floor_index == MIDDLE
    assert plan_for(data, Vote(9, 4, last.term + 1, 1)).vote.floor_term == last.term + 1


@pytest.mark.parametrize("short", [0, 1])
def test_a_floor_that_the_log_has_reached_is_dropped(short: int) -> None:
    last = OLD[-1]
    plan = plan_for(segment(OLD), Vote(9, 4, last.term, last.last_index - short))
    assert plan.vote == Vote(9, 4)


def test_a_floor_of_an_earlier_term_is_reached_by_a_shorter_log() -> None:
    log = [make_batch(1, 7)]
    assert plan_for(segment(log), Vote(9, 4, 6, 100)).vote == Vote(9, 4)


def test_damage_in_the_middle_of_a_segment_is_refused_with_file_and_offset() -> None:
    with pytest.raises(StorageError) as caught:
        plan_for(flipped(segment(OLD), SEGMENT_HEADER_SIZE + 50))
    assert caught.value.path == f"log/{segment_name(1)}"
    assert caught.value.offset == SEGMENT_HEADER_SIZE
    text = str(caught.value)
    assert "damaged" in text
    assert "raftctl rebuild" in text


@pytest.mark.parametrize("behind", [flipped(records(NEW[:1]), 45), records(NEW[:1])[:70]])
def test_a_bad_end_of_an_earlier_segment_is_damage_in_the_middle(behind: bytes) -> None:
    lost = make_log([40, 0, 500], first_index=NEW[1].first_index, term=NEW[1].term)
    segments = [
        (segment_name(1), segment(OLD, behind=behind)),
        (segment_name(lost[0].first_index), segment(lost, first_index=lost[0].first_index)),
    ]
    with pytest.raises(StorageError, match="in the middle of the log") as caught:
        plan_recovery(segments, Vote())
    assert caught.value.offset == SEGMENT_HEADER_SIZE + len(one_by_one(OLD))


def test_scratches_in_unused_space_of_an_earlier_segment_only_warn() -> None:
    scratched = segment(OLD, behind=bytes(700) + b"!" + bytes(100))
    plan = plan_two(scratched, two_good()[1])
    assert plan.last_index == END - 1
    assert plan.cut is None
    assert len(plan.warnings) == 1


def test_a_missing_segment_in_the_middle_is_refused() -> None:
    rest = make_log([1], first_index=END, term=LAST.term)
    segments = [
        (segment_name(1), segment(OLD)),
        (segment_name(END), segment(rest, first_index=END)),
    ]
    with pytest.raises(StorageError, match=f"entries {MIDDLE} to {END - 1}"):
        plan_recovery(segments, Vote())


def test_a_missing_first_segment_is_refused() -> None:
    with pytest.raises(StorageError, match="entries 1 to"):
        plan_recovery([(segment_name(MIDDLE), segment(NEW, first_index=MIDDLE))], Vote())


NOTED = SegmentHeader(MIDDLE, CLUSTER)


def test_a_missing_last_segment_is_refused() -> None:
    with pytest.raises(StorageError, match="had come to it") as caught:
        plan_recovery([(segment_name(1), segment(OLD))], Vote(), last_segment=NOTED)
    assert caught.value.path == f"log/{segment_name(MIDDLE)}"


def test_a_log_without_any_segment_is_refused_when_it_had_some() -> None:
    with pytest.raises(StorageError, match="missing"):
        plan_recovery([], Vote(), last_segment=SegmentHeader(1, CLUSTER))


def test_a_last_segment_of_zeros_is_refused_when_the_log_had_come_to_it() -> None:
    segments = [(segment_name(1), segment(OLD)), (segment_name(MIDDLE), bytes(20_000))]
    with pytest.raises(StorageError, match="missing or empty"):
        plan_recovery(segments, Vote(), last_segment=NOTED)


@pytest.mark.parametrize("noted", [1, MIDDLE])
def test_a_log_that_has_gone_on_since_is_whole(noted: int) -> None:
    old, new = two_good()
    segments = [(segment_name(1), old), (segment_name(MIDDLE), new)]
    plan = plan_recovery(segments, Vote(), last_segment=SegmentHeader(noted, CLUSTER))
    assert plan.last_index == END - 1


def test_the_log_of_another_cluster_as_a_whole_is_refused() -> None:
    with pytest.raises(StorageError, match="'another'"):
        plan_recovery(
            [(segment_name(1), segment(OLD))], Vote(), last_segment=SegmentHeader(1, "another")
        )


def test_segments_that_overlap_are_refused() -> None:
    longer = segment([*OLD, *NEW[:1]])
    with pytest.raises(StorageError, match=f"starts with index {MIDDLE}"):
        plan_two(longer, two_good()[1])


def test_a_segment_of_another_cluster_is_refused() -> None:
    other = encode_segment_header(MIDDLE, "another") + records(NEW)
    with pytest.raises(StorageError, match="'another'"):
        plan_two(segment(OLD), other)


def test_a_renamed_segment_is_refused() -> None:
    with pytest.raises(StorageError, match=segment_name(1)):
        plan_recovery([(segment_name(2), segment(OLD))], Vote())


def test_a_term_that_goes_back_between_segments_is_refused() -> None:
    early = [make_batch(MIDDLE, 8)]
    with pytest.raises(StorageError, match="later term"):
        plan_two(segment([make_batch(1, 9, MIDDLE - 1)]), segment(early, first_index=MIDDLE))


@pytest.mark.parametrize("copy", [0, 1])
def test_one_damaged_copy_of_a_segment_header_only_warns(copy: int) -> None:
    plan = plan_for(flipped(segment(OLD), copy * BLOCK_BYTES + 20))
    assert plan.last_index == MIDDLE - 1
    assert "copies" in plan.warnings[0]


def test_two_damaged_copies_of_a_segment_header_are_refused() -> None:
    data = flipped(flipped(segment(OLD), 20), BLOCK_BYTES + 20)
    with pytest.raises(StorageError, match="both copies"):
        plan_for(data)


@pytest.mark.parametrize("unused", [b"", bytes(20_000)])
def test_a_prepared_segment_without_a_header_is_removed(unused: bytes) -> None:
    plan = plan_two(segment(OLD), unused)
    assert plan.last_index == MIDDLE - 1
    assert plan.delete == [segment_name(MIDDLE)]


def test_a_last_segment_that_holds_nothing_has_lost_it() -> None:
    # It gets its name only once its first batch is on the medium.
    with pytest.raises(StorageError, match="holds no entry"):
        plan_two(segment(OLD), segment([], first_index=MIDDLE))


def test_a_prepared_segment_in_the_middle_is_refused() -> None:
    rest = make_log([1], first_index=END, term=LAST.term)
    segments = [
        (segment_name(1), segment(OLD)),
        (segment_name(MIDDLE), bytes(9000)),
        (segment_name(END), segment(rest, first_index=END)),
    ]
    with pytest.raises(StorageError, match="never used"):
        plan_recovery(segments, Vote())


def test_damage_with_only_a_prepared_segment_behind_it_is_at_the_end() -> None:
    data = flipped(segment(OLD), SEGMENT_HEADER_SIZE + len(one_by_one(OLD)) - 5)
    plan = plan_two(data, segment([], first_index=MIDDLE))
    assert plan.vote.floor_index == MIDDLE - 1
    assert plan.delete == [segment_name(MIDDLE)]


def test_entries_that_a_prepared_segment_has_seen_can_not_be_torn_off() -> None:
    data = segment(OLD[:-1], behind=OLD[-1].record[:50])
    with pytest.raises(StorageError, match="in the middle of the log"):
        plan_two(data, segment([], first_index=MIDDLE))


def test_a_segment_whose_first_batch_is_torn_goes_as_a_whole() -> None:
    plan = plan_two(segment(OLD), segment([], first_index=MIDDLE, behind=NEW[0].record[:60]))
    assert plan.cut is None
    assert plan.delete == [segment_name(MIDDLE)]
    assert [planned.name for planned in plan.segments] == [segment_name(1)]


def test_a_log_of_one_damaged_batch_still_knows_its_cluster() -> None:
    data = flipped(segment([configuration_batch(1)]), SEGMENT_HEADER_SIZE + 45)
    plan = plan_for(data)
    assert (plan.cluster_id, plan.last_index) == (CLUSTER, 0)
    assert plan.vote == Vote(0, 0, 1, 1)
