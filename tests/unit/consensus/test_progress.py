"""What a leader knows of one peer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent.consensus.progress import Progress, ReplicationState
from raft_agent.consensus.types import Settings
from tests.unit.consensus.server import examples

SETTINGS = Settings(max_inflight_messages=3, max_inflight_bytes=100)


def probing(next_index: int = 10) -> Progress:
    return Progress(session=1, next_index=next_index, now_us=0)


def replicating(match_index: int = 9) -> Progress:
    progress = probing(match_index + 1)
    progress.sent(1, match_index, 0, 0)
    progress.acknowledged(match_index, 0)
    return progress


def test_a_new_peer_is_probed_and_nothing_is_known_of_it() -> None:
    progress = probing()
    assert progress.state is ReplicationState.PROBE
    assert (progress.match_index, progress.next_index) == (0, 10)
    assert progress.may_send(SETTINGS)


def test_one_probe_at_a_time() -> None:
    progress = probing()
    progress.sent(5, 10, 50, 0)
    assert not progress.may_send(SETTINGS)
    assert progress.awaits(5)
    assert not progress.awaits(4)
    assert progress.next_index == 10


def test_an_acknowledged_probe_opens_the_pipeline() -> None:
    progress = replicating(9)
    assert progress.state is ReplicationState.REPLICATE
    assert (progress.match_index, progress.next_index) == (9, 10)


@pytest.mark.parametrize(
    ("sizes", "may_send"),
    [([], True), ([10, 10], True), ([10, 10, 10], False), ([99], True), ([100], False)],
)
def test_messages_and_bytes_in_flight_are_limited(sizes: list[int], may_send: bool) -> None:
    progress = replicating(9)
    for number, size in enumerate(sizes):
        progress.sent(100 + number, 10 + number, size, 0)
    assert progress.may_send(SETTINGS) is may_send
    assert progress.inflight_bytes == sum(sizes)
    assert progress.next_index == 10 + len(sizes)


def test_an_acknowledgement_covers_everything_before_it() -> None:
    progress = replicating(9)
    for number in range(3):
        progress.sent(100 + number, 10 + number, 20, 0)
    progress.acknowledged(11, 5)
    assert [entry[0] for entry in progress.inflight] == [102]
    assert progress.inflight_bytes == 20
    assert (progress.match_index, progress.next_index) == (11, 13)
    progress.acknowledged(10, 6)
    assert progress.match_index == 11


def test_nothing_is_sent_while_a_read_from_disk_is_under_way() -> None:
    for progress in (probing(), replicating()):
        progress.reading_from = 3
        assert not progress.may_send(SETTINGS)


def test_going_back_to_probing_gives_up_what_is_in_flight_and_keeps_what_is_known() -> None:
    progress = replicating(9)
    progress.sent(100, 12, 20, 0)
    progress.reading_from = 13
    progress.probe(5)
    assert progress.state is ReplicationState.PROBE
    assert (progress.match_index, progress.next_index) == (9, 10)
    assert progress.inflight_bytes == 0
    assert not progress.awaits(100)
    assert progress.may_send(SETTINGS)


def test_a_restart_forgets_what_is_known_in_the_new_session() -> None:
    progress = replicating(9)
    progress.restart(session=2, next_index=20, now_us=0)
    assert (progress.session, progress.match_index, progress.next_index) == (2, 0, 20)
    assert progress.state is ReplicationState.PROBE


def test_what_is_unanswered_for_too_long_is_overdue() -> None:
    progress = probing()
    assert not progress.is_overdue(10**9, 100)
    progress.sent(5, 10, 50, 1000)
    assert not progress.is_overdue(1100, 100)
    assert progress.is_overdue(1101, 100)


def test_patience_begins_with_the_first_message_in_flight_and_anew_with_each_answer() -> None:
    progress = replicating(9)
    assert not progress.is_overdue(10**9, 100)
    progress.sent(100, 10, 1, 1000)
    progress.sent(101, 11, 1, 1090)
    assert progress.is_overdue(1101, 100)
    progress.acknowledged(10, 1099)
    assert not progress.is_overdue(1199, 100)
    assert progress.is_overdue(1200, 100)


MOVES: list[Callable[[Progress, int], None]] = [
    lambda progress, index: progress.acknowledged(index, 0),
    lambda progress, index: progress.probe(index),
    lambda progress, index: progress.restart(2, index, 0),
    lambda progress, index: progress.sent(index, max(index, progress.next_index), index, 0),
]


@examples
@given(st.lists(st.tuples(st.sampled_from(MOVES), st.integers(1, 50))))
def test_match_stays_below_next_and_bytes_are_counted_exactly(
    moves: list[tuple[Callable[[Progress, int], None], int]],
) -> None:
    progress = probing(1)
    for move, index in moves:
        move(progress, index)
        assert progress.match_index < progress.next_index
        assert progress.inflight_bytes == sum(entry[2] for entry in progress.inflight)
        assert all(last > progress.match_index for _, last, _ in progress.inflight)
