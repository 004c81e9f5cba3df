"""Members compare their states; whose differs from a majority's is found, be it the leader's."""

from __future__ import annotations

import pytest
from msgspec import structs

from raft_agent.consensus.batch import BatchKind
from raft_agent.consensus.types import (
    UNREADABLE,
    AuditReport,
    AuditWanted,
    Judgement,
    MembershipChange,
    Propose,
    Read,
    ReadReady,
    RefusalReason,
    Refused,
    Role,
    StateHashed,
    StateJudged,
    TransferLeadership,
    read_verdict,
)
from tests.unit.consensus.harness import Cluster, with_learners
from tests.unit.consensus.server import SETTINGS, of

RIGHT, WRONG, OTHER = 7, 8, 9
PATIENCE_US = 500_000
AUDITING = structs.replace(SETTINGS, audit_patience_us=PATIENCE_US)
INTERVAL_US = 1_000_000
REGULAR = structs.replace(AUDITING, audit_interval_us=INTERVAL_US)


def led_by_1(size: int = 3, *, settings: object = AUDITING) -> Cluster:
    cluster = Cluster(size, settings=settings)  # type: ignore[arg-type]
    cluster.elect(1)
    return cluster


def begin(cluster: Cluster, leader: int = 1) -> int:
    """An audit entry is applied everywhere; its index."""
    cluster.step(leader, AuditWanted())
    cluster.settle()
    return cluster.node(leader).log.last_index


def tell(cluster: Cluster, index: int, digests: dict[int, int]) -> None:
    """Each member's state comes to that."""
    for member_id, digest in digests.items():
        cluster.step(member_id, StateHashed(index, digest, 0))
    cluster.settle()


def judgements(cluster: Cluster, member_id: int) -> list[Judgement]:
    return [judged.judgement for judged in of(StateJudged, cluster[member_id].history)]


def verdicts(cluster: Cluster, member_id: int = 1) -> list[tuple[int, bool]]:
    found = []
    for batch in cluster[member_id].applied:
        verdict = read_verdict(batch) if batch.kind == BatchKind.AUDIT else None
        if verdict is not None:
            found.append((verdict.digest, verdict.agreed))
    return found


def test_equal_states_agree_and_all_hear_so() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    tell(cluster, index, {1: RIGHT, 2: RIGHT, 3: RIGHT})
    assert verdicts(cluster) == [(RIGHT, True)]
    assert [judgements(cluster, i) for i in (1, 2, 3)] == [[Judgement.AGREES]] * 3


def test_a_majority_closes_it_and_who_is_late_compares_by_the_log() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    tell(cluster, index, {1: RIGHT, 2: RIGHT})
    assert verdicts(cluster, 3) == [(RIGHT, True)]
    assert judgements(cluster, 3) == []
    tell(cluster, index, {3: WRONG})
    assert judgements(cluster, 3) == [Judgement.DIFFERS]
    assert cluster.node(3).state.diverged_index == index


@pytest.mark.parametrize("late", [RIGHT, WRONG])
def test_who_is_late_tells_the_leader_all_the_same(late: int) -> None:
    cluster = led_by_1()
    index = begin(cluster)
    tell(cluster, index, {1: RIGHT, 2: RIGHT})
    tell(cluster, index, {3: late})
    leadership = cluster.node(1).state.leadership
    assert leadership is not None
    assert leadership.audit is not None
    assert leadership.audit.reports == {1: RIGHT, 2: RIGHT, 3: late}
    assert leadership.odd == ({3} if late == WRONG else set())


def test_one_report_decides_nothing() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    tell(cluster, index, {1: RIGHT})
    assert verdicts(cluster) == []


def test_who_differs_takes_no_requests_and_does_not_stand() -> None:
    cluster = led_by_1()
    tell(cluster, begin(cluster), {1: RIGHT, 2: WRONG, 3: RIGHT})
    refused = cluster.step(2, Read(5)) + cluster.step(2, Propose(6, 1, b"x"))
    assert [(r.tag, r.reason) for r in of(Refused, refused)] == [
        (5, RefusalReason.STATE_DIFFERS),
        (6, RefusalReason.STATE_DIFFERS),
    ]
    assert not cluster.node(2).state.can_stand
    assert cluster.node(2).role is Role.FOLLOWER


def test_leadership_is_not_handed_over_to_who_differs() -> None:
    cluster = led_by_1()
    tell(cluster, begin(cluster), {1: RIGHT, 2: RIGHT, 3: WRONG})
    cluster.step(1, TransferLeadership(5, 0))
    cluster.settle()
    assert cluster.leaders == [2]


def test_a_leader_that_leaves_has_nobody_stand_who_differs() -> None:
    cluster = led_by_1()
    tell(cluster, begin(cluster), {1: RIGHT, 2: RIGHT, 3: WRONG})
    cluster.change(1, MembershipChange(remove=(1,)))
    cluster.settle()
    assert cluster.leaders == [2]


def test_who_differs_still_acknowledges_entries_and_votes() -> None:
    """Its log is as good as any; only what it made of it is not."""
    cluster = led_by_1()
    tell(cluster, begin(cluster), {1: RIGHT, 2: WRONG, 3: RIGHT})
    cluster.down.add(3)
    cluster.step(1, Propose(1, 1, b"x"))
    cluster.settle()
    assert cluster.node(1).commit_index == cluster.node(1).log.last_index
    cluster.down.remove(3)
    cluster.connect(1, 3)
    cluster.settle()
    cluster.down.add(1)
    cluster.run_for(3_000_000)
    assert cluster.leaders == [3]


def test_a_leader_that_differs_steps_down_at_once() -> None:
    cluster = led_by_1()
    tell(cluster, begin(cluster), {1: WRONG, 2: RIGHT, 3: RIGHT})
    assert cluster.node(1).role is Role.FOLLOWER
    assert judgements(cluster, 1) == [Judgement.DIFFERS]


@pytest.mark.parametrize("has_pre_votes", [False, True])
def test_who_hears_that_it_differs_while_it_stands_is_not_elected(has_pre_votes: bool) -> None:
    """Seed 20000253 of the simulator."""
    cluster = led_by_1()
    index = begin(cluster)
    tell(cluster, index, {1: RIGHT, 2: RIGHT})
    cluster.down.add(1)
    node = cluster.node(3)
    cluster.time_out(3)
    if has_pre_votes:
        cluster.deliver()
        cluster.deliver()
    assert node.role is (Role.CANDIDATE if has_pre_votes else Role.PRE_CANDIDATE)
    cluster.step(3, StateHashed(index, WRONG, 0))
    cluster.settle()
    assert node.role is Role.FOLLOWER
    assert judgements(cluster, 3) == [Judgement.DIFFERS]


def test_a_leader_that_is_late_hears_from_its_own_log_that_it_differs() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    tell(cluster, index, {2: RIGHT, 3: RIGHT})
    assert verdicts(cluster) == [(RIGHT, True)]
    tell(cluster, index, {1: WRONG})
    assert cluster.node(1).role is Role.FOLLOWER


def test_a_state_that_can_not_be_read_equals_none() -> None:
    cluster = led_by_1()
    tell(cluster, begin(cluster), {1: UNREADABLE, 2: UNREADABLE, 3: RIGHT})
    assert verdicts(cluster) == [(0, False)]


@pytest.mark.parametrize(
    ("size", "digests"),
    [
        (3, {1: RIGHT, 2: WRONG, 3: OTHER}),
        (2, {1: RIGHT, 2: WRONG}),
        (4, {1: RIGHT, 2: RIGHT, 3: WRONG, 4: WRONG}),
    ],
    ids=["all differ", "two", "two against two"],
)
def test_without_a_majority_of_equal_states_all_are_told_that_nobody_knows(
    size: int, digests: dict[int, int]
) -> None:
    cluster = led_by_1(size)
    tell(cluster, begin(cluster), digests)
    assert verdicts(cluster) == [(0, False)]
    assert {judgements(cluster, i)[0] for i in digests} == {Judgement.DISPUTED}
    assert cluster.node(1).role is Role.LEADER


def test_while_others_may_still_make_a_majority_they_are_waited_for() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    cluster.down.add(3)
    tell(cluster, index, {1: RIGHT, 2: WRONG})
    assert verdicts(cluster) == []
    cluster.run_for(PATIENCE_US + 200_000)
    assert verdicts(cluster) == [(0, False)]


def test_silence_alone_proves_nothing() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    tell(cluster, index, {1: RIGHT})
    cluster.run_for(PATIENCE_US + 200_000)
    assert verdicts(cluster) == []
    again = begin(cluster)
    assert again > index
    tell(cluster, again, {1: RIGHT, 2: RIGHT, 3: RIGHT})
    assert verdicts(cluster) == [(RIGHT, True)]


@pytest.mark.parametrize("said", [WRONG, UNREADABLE])
def test_a_learner_that_differs_makes_no_dispute_while_voters_are_slow(said: int) -> None:
    cluster = with_learners(4)
    index = begin(cluster)
    tell(cluster, index, {1: RIGHT, 4: said})
    cluster.run_for(SETTINGS.audit_patience_us + 200_000)
    assert verdicts(cluster) == []
    again = begin(cluster)
    tell(cluster, again, {1: RIGHT, 2: RIGHT, 4: said})
    assert verdicts(cluster) == [(RIGHT, True)]
    assert cluster.node(4).state.diverged_index == again


def test_a_later_majority_ends_the_dispute() -> None:
    cluster = led_by_1()
    tell(cluster, begin(cluster), {1: RIGHT, 2: WRONG, 3: OTHER})
    tell(cluster, begin(cluster), {1: RIGHT, 2: RIGHT, 3: OTHER})
    assert verdicts(cluster) == [(0, False), (RIGHT, True)]
    assert judgements(cluster, 3) == [Judgement.DISPUTED, Judgement.DIFFERS]


def test_a_report_that_was_lost_is_sent_again() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    cluster.down.add(3)
    cluster.step(1, StateHashed(index, RIGHT, 0))
    cluster.step(2, StateHashed(index, RIGHT, 0))
    lost = cluster.drop(lambda packet: isinstance(packet.message, AuditReport))
    assert len(lost) == 1
    cluster.run_for(2 * SETTINGS.election_timeout_max_us)
    assert verdicts(cluster) == [(RIGHT, True)]


def test_who_differs_says_so_in_later_comparisons() -> None:
    cluster = led_by_1()
    tell(cluster, begin(cluster), {1: RIGHT, 2: WRONG, 3: RIGHT})
    tell(cluster, begin(cluster), {1: RIGHT, 3: RIGHT})
    leadership = cluster.node(1).state.leadership
    assert leadership is not None
    assert leadership.odd == {2}
    cluster.restart(2)
    for other in (1, 3):
        cluster.connect(2, other)
    cluster.settle()
    tell(cluster, begin(cluster), {1: RIGHT, 2: RIGHT, 3: RIGHT})
    assert leadership.odd == set()


def test_nothing_is_applied_behind_an_audit_entry_before_its_meaning_is_known() -> None:
    cluster = led_by_1()
    cluster.paused.add(2)
    index = begin(cluster)
    tell(cluster, index, {1: RIGHT, 3: RIGHT})
    cluster.step(1, Propose(1, 1, b"x"))
    cluster.step(1, Propose(2, 1, b"y"))
    cluster.settle()
    cluster.paused.remove(2)
    cluster[2].applies = False
    cluster.settle()
    ends = []
    while cluster[2].applying:
        last = cluster[2].applying[0].batches[-1]
        ends.append((last.kind, last.last_index))
        cluster.run(2, lambda server: server.finish_apply())
        cluster.settle()
    assert (BatchKind.AUDIT, index) in ends
    assert (BatchKind.AUDIT, index + 1) in ends


def test_states_are_compared_at_regular_distances_and_seldom_while_nothing_is_written() -> None:
    cluster = led_by_1(settings=REGULAR)
    begun = audits(cluster)
    assert begun == 0
    cluster.run_for(INTERVAL_US + 100_000)
    assert audits(cluster) == 1
    tell(cluster, cluster.node(1).log.last_index, {1: RIGHT, 2: RIGHT, 3: RIGHT})
    cluster.run_for(2 * INTERVAL_US)
    assert audits(cluster) == 1, "nothing was written since"
    cluster.step(1, Propose(1, 1, b"x"))
    cluster.settle()
    cluster.run_for(100_000)
    assert audits(cluster) == 2
    tell(cluster, cluster.node(1).log.last_index, {1: RIGHT, 2: RIGHT, 3: RIGHT})
    cluster.run_for(10 * INTERVAL_US + 100_000)
    assert audits(cluster) == 3


def test_while_states_are_disputed_they_are_compared_as_often_as_under_load() -> None:
    cluster = led_by_1(settings=REGULAR)
    tell(cluster, begin(cluster), {1: RIGHT, 2: WRONG, 3: OTHER})
    assert verdicts(cluster) == [(0, False)]
    before = audits(cluster)
    cluster.run_for(INTERVAL_US + 100_000)
    assert audits(cluster) == before + 1


def audits(cluster: Cluster) -> int:
    """How many comparisons have begun."""
    return sum(
        batch.kind == BatchKind.AUDIT and read_verdict(batch) is None
        for batch in cluster[1].applied
    )


def test_a_member_alone_agrees_with_itself() -> None:
    cluster = led_by_1(1)
    tell(cluster, begin(cluster), {1: RIGHT})
    assert judgements(cluster, 1) == [Judgement.AGREES]
    ready = cluster.step(1, Read(1))
    assert of(ReadReady, ready)


def test_a_leader_that_still_reads_its_own_state_begins_nothing_new() -> None:
    cluster = led_by_1()
    index = begin(cluster)
    tell(cluster, index, {2: RIGHT, 3: RIGHT})
    assert verdicts(cluster) == [(RIGHT, True)]
    begin(cluster)
    assert audits(cluster) == 1
    tell(cluster, index, {1: RIGHT})
    cluster.run_for(100_000)
    assert audits(cluster) == 2


def test_a_leader_that_left_an_entry_out_does_not_wait_for_itself() -> None:
    """It came to lead while it still read its state behind an older one (seed 20000121)."""
    cluster = led_by_1()
    older = begin(cluster)
    cluster.elect(2)
    begin(cluster, 2)
    tell(cluster, older, {2: RIGHT})
    cluster.run_for(PATIENCE_US + 200_000)
    assert audits(cluster) == 2
    begin(cluster, 2)
    assert audits(cluster) == 3
