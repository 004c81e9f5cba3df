"""When a leader compares states, for whom it waits and how long, and what it tells people."""

from __future__ import annotations

import pytest

from raft_agent.consensus.audit import _KEPT, _OWN_PATIENCES, _WORK_SHARE
from raft_agent.consensus.leadership import AuditRound
from raft_agent.consensus.types import (
    UNREADABLE,
    AuditReport,
    AuditWanted,
    MembershipChange,
    Propose,
    StateHashed,
    TransferLeadership,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import SETTINGS, notes, sends
from tests.unit.consensus.test_audits import (
    INTERVAL_US,
    OTHER,
    PATIENCE_US,
    REGULAR,
    RIGHT,
    WRONG,
    audits,
    begin,
    led_by_1,
    tell,
    verdicts,
)

ALL = {1: RIGHT, 2: RIGHT, 3: RIGHT}


def round_of(cluster: Cluster, leader: int = 1) -> AuditRound:
    leadership = cluster.node(leader).state.leadership
    assert leadership is not None
    assert leadership.audit is not None
    return leadership.audit


def told(cluster: Cluster, kind: str, member_id: int = 1) -> int:
    """How often people were told."""
    return notes(cluster[member_id].history).count(kind)


# --- when one begins


def test_without_an_interval_none_begins_by_itself() -> None:
    cluster = led_by_1()
    assert SETTINGS.audit_interval_us == 0
    cluster.run_for(20 * INTERVAL_US)
    assert audits(cluster) == 0


def test_the_first_one_begins_an_interval_after_the_leadership() -> None:
    cluster = led_by_1(settings=REGULAR)
    cluster.run_for(INTERVAL_US - 100_000)
    assert audits(cluster) == 0
    cluster.run_for(100_000 + 60_000)
    assert audits(cluster) == 1


def test_reading_states_takes_no_more_than_its_share_of_the_time() -> None:
    work_us = INTERVAL_US // 10
    cluster = led_by_1(settings=REGULAR)
    index = begin(cluster)
    cluster.step(1, StateHashed(index, RIGHT, work_us))
    tell(cluster, index, {2: RIGHT, 3: RIGHT})
    cluster.step(1, Propose(1, 1, b"x"))
    cluster.run_for(_WORK_SHARE * work_us - 100_000)
    assert audits(cluster) == 1
    cluster.run_for(200_000)
    assert audits(cluster) == 2


def test_whoever_wants_one_gets_it_once_the_one_that_is_under_way_is_over() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    cluster.step(1, AuditWanted())
    cluster.settle()
    assert audits(cluster) == 1
    tell(cluster, index, ALL)
    cluster.run_for(100_000)
    assert audits(cluster) == 2
    cluster.run_for(10 * INTERVAL_US)
    assert audits(cluster) == 2


def test_none_begins_and_none_is_closed_while_leadership_is_handed_over() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    cluster.down.add(2)
    cluster.step(1, TransferLeadership(5, 2))
    tell(cluster, index, {1: RIGHT, 3: RIGHT})
    assert verdicts(cluster) == []
    cluster.step(1, AuditWanted())
    cluster.settle()
    assert audits(cluster) == 1
    cluster.run_for(4 * SETTINGS.election_timeout_max_us)  # it gives the hand-over up
    assert verdicts(cluster) == [(RIGHT, True)]


def test_a_follower_that_is_asked_for_one_does_nothing() -> None:
    cluster = led_by_1()
    before = cluster.node(1).log.last_index
    cluster.step(2, AuditWanted())
    cluster.settle()
    assert cluster.node(1).log.last_index == before


# --- who is waited for


def test_a_leader_that_reads_slowly_gives_the_others_more_time() -> None:
    took_us = 400_000
    cluster = led_by_1()
    index = begin(cluster)
    cluster.now_us += took_us
    tell(cluster, index, {1: RIGHT, 2: WRONG})
    assert round_of(cluster).deadline_us == cluster.now_us + PATIENCE_US + 3 * took_us


def test_a_leader_whose_own_answer_never_comes_gives_it_up_after_long() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    tell(cluster, index, {2: RIGHT})
    cluster.down.add(3)
    cluster.run_for(_OWN_PATIENCES * PATIENCE_US - 200_000)
    assert not round_of(cluster).is_closed
    cluster.run_for(400_000)
    assert round_of(cluster).is_closed
    assert told(cluster, "audit_unanswered") == 1
    assert verdicts(cluster) == []
    begin(cluster)
    assert audits(cluster) == 2


def test_one_who_could_not_read_its_state_is_no_camp_of_its_own() -> None:
    """But once nobody else is expected it says enough: somebody's state is not as it should be."""
    cluster = led_by_1()
    index = begin(cluster)
    cluster.down.add(3)
    tell(cluster, index, {1: RIGHT, 2: UNREADABLE})
    assert verdicts(cluster) == []
    cluster.run_for(PATIENCE_US + 200_000)
    assert verdicts(cluster) == [(0, False)]
    assert told(cluster, "states_disputed") == 1


def test_only_the_first_report_of_a_member_counts() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    tell(cluster, index, {2: WRONG})
    cluster[1].receive(2, AuditReport(cluster.node(1).current_term, 99, index, RIGHT))
    assert round_of(cluster).reports == {2: WRONG}


@pytest.mark.parametrize("off", [-1, 1])
def test_a_report_of_another_comparison_counts_nothing(off: int) -> None:
    cluster = led_by_1()
    index = begin(cluster)
    cluster[1].receive(2, AuditReport(cluster.node(1).current_term, 99, index + off, RIGHT))
    assert round_of(cluster).reports == {}


def test_a_follower_takes_no_report() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    cluster[2].receive(3, AuditReport(cluster.node(1).current_term, 99, index, RIGHT))
    assert cluster.node(2).state.leadership is None


def test_voters_that_are_on_their_way_out_are_asked_as_well() -> None:
    cluster = led_by_1(4)
    index = begin(cluster)
    cluster.paused |= {2, 3, 4}  # so that the joint configuration stays
    cluster.change(1, MembershipChange(remove=(4,)))
    configuration = cluster.node(1).configuration
    assert configuration is not None
    assert 4 in configuration.voters_outgoing
    cluster.step(1, StateHashed(index, RIGHT, 0))
    for sender in (2, 3):
        cluster[1].receive(sender, AuditReport(cluster.node(1).current_term, 9, index, WRONG))
    assert not round_of(
        cluster
    ).is_closed  # 4 and 1 may be a majority of neither; 4 and 2 and 3 may
    cluster[1].receive(4, AuditReport(cluster.node(1).current_term, 9, index, OTHER))
    assert round_of(cluster).is_closed


# --- what is told, and what is kept


def test_people_hear_of_each_that_differs_once_and_never_of_the_leader_as_a_member() -> None:
    cluster = led_by_1(5)
    tell(cluster, begin(cluster), {1: RIGHT, 2: RIGHT, 3: RIGHT, 4: WRONG, 5: RIGHT})
    tell(cluster, begin(cluster), {1: RIGHT, 2: RIGHT, 3: RIGHT, 5: RIGHT})
    assert told(cluster, "member_differs") == 1
    assert told(cluster, "state_differs", 4) == 1
    tell(cluster, begin(cluster), {1: WRONG, 2: RIGHT, 3: RIGHT, 5: RIGHT})
    assert told(cluster, "member_differs") == 1
    assert told(cluster, "state_differs") == 1


def test_a_node_that_differs_twice_keeps_the_first_place() -> None:
    cluster = led_by_1()
    first = begin(cluster)
    tell(cluster, first, {1: RIGHT, 2: WRONG, 3: RIGHT})
    again = begin(cluster)
    cluster.step(2, StateHashed(again, WRONG, 0))
    tell(cluster, again, {1: RIGHT, 3: RIGHT})
    assert cluster.node(2).state.diverged_index == first
    assert told(cluster, "state_differs", 2) == 1


def test_verdicts_and_digests_that_nobody_needs_are_not_kept() -> None:
    cluster = led_by_1()
    audit = cluster.node(3)._audit
    for _ in range(_KEPT + 3):
        tell(cluster, begin(cluster), {1: RIGHT, 2: RIGHT})
    assert len(audit._verdicts) == _KEPT
    assert max(audit._verdicts) == cluster.node(3).log.last_index - 1
    for index in range(1000, 1000 + _KEPT + 3):
        cluster.step(3, StateHashed(index, RIGHT, 0))
    assert sorted(audit._own) == [*range(1003, 1003 + _KEPT)]


# --- reports that get lost


def reports(cluster: Cluster, member_id: int) -> int:
    return len(sends(AuditReport, cluster[member_id].history))


def test_a_report_is_sent_again_only_when_an_answer_is_overdue() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    cluster.step(2, StateHashed(index, RIGHT, 0))
    assert reports(cluster, 2) == 1
    cluster.run_for(SETTINGS.election_timeout_max_us - 10_000)
    assert reports(cluster, 2) == 1
    cluster.run_for(SETTINGS.heartbeat_interval_us + 20_000)
    assert reports(cluster, 2) == 2


def test_a_report_that_was_answered_by_a_verdict_is_not_sent_again() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    tell(cluster, index, {1: RIGHT, 2: RIGHT})
    assert verdicts(cluster, 2) == [(RIGHT, True)]
    before = reports(cluster, 2)
    cluster.run_for(4 * SETTINGS.election_timeout_max_us)
    assert reports(cluster, 2) == before == 1


def test_who_knows_of_no_leader_reports_once_there_is_one() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    cluster.down.add(1)
    cluster.run_for(0)
    cluster.time_out(3)  # now it follows nobody
    assert cluster.node(3).leader_id == 0
    cluster.step(3, StateHashed(index, RIGHT, 0))
    assert reports(cluster, 3) == 0
    cluster.drop()
    cluster.down.remove(1)
    cluster.connect(1, 3)
    cluster.run_for(2 * SETTINGS.election_timeout_max_us)
    assert reports(cluster, 3) > 0


def test_a_leader_reports_to_nobody() -> None:
    cluster = led_by_1(1)
    tell(cluster, begin(cluster), {1: RIGHT})
    assert reports(cluster, 1) == 0
