"""Joint consensus (§6 of the paper): while two configurations are in force both must agree, and
whoever leads then goes through with the change."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    ChangeMembership,
    Configuration,
    ConfigurationChanged,
    Effect,
    Heartbeat,
    Joining,
    MembershipChange,
    MembershipChanged,
    PreVote,
    Read,
    ReadReady,
    RefusalReason,
    Refused,
    RequestVote,
    Role,
    TransferLeadership,
)
from tests.unit.consensus.harness import Cluster, configuration, member, with_learners
from tests.unit.consensus.server import MAX_TIMEOUT_US, notes, of, sends

SWAP = MembershipChange(promote=(4, 5), remove=(2, 3))


def refusals(effects: list[Effect]) -> list[RefusalReason]:
    return [refused.reason for refused in of(Refused, effects)]


def only(cluster: Cluster, *ids: int) -> None:
    """Only these hear of each other from now on."""
    cluster.part(set(ids), set(cluster.servers) - set(ids))
    cluster.drop(lambda packet: not {packet.sender, packet.to} <= set(ids))


# --- both majorities


@pytest.mark.parametrize(
    ("there", "is_committed"),
    [((1, 2, 3), False), ((1, 4, 5), False), ((1, 2), False), ((1, 2, 4), True), ((1, 3, 5), True)],
)
def test_a_joint_configuration_is_committed_by_both_majorities(
    there: tuple[int, ...], is_committed: bool
) -> None:
    cluster = with_learners(4, 5)
    only(cluster, *there)
    before = cluster.node(1).commit_index
    cluster.change(1, SWAP)
    cluster.settle()
    assert (cluster.node(1).commit_index > before) == is_committed


def joint(cluster: Cluster) -> None:
    """The joint configuration is on all disks and not committed; 1 is gone."""
    cluster.change(1, SWAP)
    cluster.deliver(lambda packet: isinstance(packet.message, AppendEntries))
    cluster.drop()
    for i in (2, 3, 4, 5):
        assert configuration(cluster, i).voters_outgoing == (1, 2, 3)
    cluster.down = {1}
    cluster.now_us += MAX_TIMEOUT_US


@pytest.mark.parametrize(
    ("there", "is_elected"), [((2, 3), False), ((4, 5, 2), False), ((2, 3, 4, 5), True)]
)
def test_a_joint_election_is_won_by_both_majorities(
    there: tuple[int, ...], is_elected: bool
) -> None:
    cluster = with_learners(4, 5)
    joint(cluster)
    only(cluster, *there)
    cluster.time_out(there[0])
    cluster.settle()
    assert ("leader_elected" in notes(cluster[there[0]].history)) == is_elected
    assert bool(sends(RequestVote, cluster[there[0]].history)) == is_elected


def test_everybody_of_both_configurations_is_asked_for_a_vote() -> None:
    cluster = with_learners(4, 5)
    joint(cluster)
    effects = cluster.time_out(4)
    for i in (1, 2, 3, 5):
        assert sends(PreVote, effects, to=i)


def test_a_read_needs_both_majorities_while_joint() -> None:
    cluster = with_learners(4, 5)
    cluster.cut = {(i, j) for i in (4, 5) for j in (1, 2, 3)}
    cluster.change(1, SWAP)
    cluster.settle()
    assert configuration(cluster).voters_outgoing
    cluster.step(1, Read(7))
    cluster.settle()
    assert not of(ReadReady, cluster[1].history)
    cluster.heal()
    cluster.run(1, lambda server: server.tick())
    cluster.settle()
    assert [ready.tag for ready in of(ReadReady, cluster[1].history)] == [7]


def test_a_leader_without_one_of_the_majorities_steps_down() -> None:
    cluster = with_learners(4, 5)
    only(cluster, 1, 2, 3)
    cluster.change(1, SWAP, force=True)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert cluster.node(1).role is not Role.LEADER
    assert "quorum_lost" in notes(cluster[1].history)


# --- to the end


def test_a_change_is_told_once_its_last_configuration_is_committed() -> None:
    cluster = with_learners(4, 5)
    cluster.change(1, SWAP, tag=3)
    cluster.deliver(lambda packet: isinstance(packet.message, AppendEntries))
    cluster.deliver(lambda packet: isinstance(packet.message, AppendReply))
    node = cluster.node(1)
    assert configuration(cluster).voters_outgoing == ()
    assert node.commit_index == node.configuration_index - 1
    assert 3 not in [done.tag for done in of(MembershipChanged, cluster[1].history)]
    cluster.settle()
    (done,) = [done for done in of(MembershipChanged, cluster[1].history) if done.tag == 3]
    assert done.index == node.configuration_index <= node.commit_index
    assert configuration(cluster) == Configuration(
        "c1", tuple(member(i) for i in (1, 4, 5)), (1, 4, 5), removed=(2, 3)
    )


def test_a_new_leader_finishes_a_joint_change_that_it_finds() -> None:
    cluster = with_learners(4, 5)
    joint(cluster)
    cluster.elect(4)
    assert configuration(cluster, 4).voters == (1, 4, 5)
    assert configuration(cluster, 4).voters_outgoing == ()
    assert cluster.node(4).commit_index == cluster.node(4).configuration_index
    assert notes(cluster[2].history).count("removed") == 1


def test_a_leader_that_goes_with_the_old_configuration_finishes_the_change_as_well() -> None:
    cluster = with_learners(4, 5)
    joint(cluster)
    cluster.time_out(2)
    cluster.settle()
    assert "leader_elected" in notes(cluster[2].history)
    assert cluster.leaders == [5]
    assert configuration(cluster, 5).voters == (1, 4, 5)
    assert notes(cluster[2].history).count("removed") == 1


def test_who_leaves_gets_entries_until_the_change_is_committed_as_a_joint_one() -> None:
    cluster = with_learners(4, 5)
    cluster.change(1, SWAP)
    assert {2, 3} <= set(cluster.node(1).progress)
    cluster.settle()
    assert set(cluster.node(1).progress) == {4, 5}


# --- taken back


def test_a_configuration_that_is_cut_off_a_followers_log_is_taken_back() -> None:
    cluster = with_learners(4, 5)
    before = configuration(cluster, 4)
    cluster.cut = {(1, i) for i in (2, 3, 5)}
    cluster.change(1, SWAP)
    cluster.settle()
    assert configuration(cluster, 4).voters_outgoing == (1, 2, 3)
    assert cluster.node(4).role is Role.FOLLOWER
    only(cluster, 2, 3, 4, 5)
    cluster.now_us += MAX_TIMEOUT_US
    cluster.elect(2)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert configuration(cluster, 4) == before
    assert cluster.node(4).role is Role.LEARNER


def test_a_deposed_leaders_joint_configuration_is_taken_back_and_whoever_waits_is_told() -> None:
    cluster = with_learners(4, 5)
    before = configuration(cluster)
    only(cluster, 1)
    cluster.step(1, ChangeMembership(4, SWAP))
    assert configuration(cluster).voters_outgoing == (1, 2, 3)
    cluster.part({1}, {2, 3, 4, 5})
    cluster.run_for(4 * MAX_TIMEOUT_US)
    assert RefusalReason.LEADERSHIP_LOST in refusals(cluster[1].history)
    cluster.heal()
    cluster.run_for(4 * MAX_TIMEOUT_US)
    assert configuration(cluster) == before
    changes = of(ConfigurationChanged, cluster[1].history)
    assert changes[-1].configuration == before


def test_a_learner_whose_promotion_is_taken_back_stands_no_more() -> None:
    cluster = with_learners(4, 5)
    cluster.cut = {(1, i) for i in (2, 3, 5)}
    cluster.change(1, SWAP)
    cluster.settle()
    assert cluster.node(4).state.can_stand
    only(cluster, 2, 3, 4, 5)
    cluster.now_us += MAX_TIMEOUT_US
    cluster.elect(2)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert not cluster.node(4).state.can_stand


# --- when no change may begin


def test_no_change_begins_before_the_leader_has_committed_an_entry_of_its_own_term() -> None:
    cluster = Cluster(3)
    cluster.time_out(1)
    cluster.settle(lambda packet: not isinstance(packet.message, AppendEntries | Heartbeat))
    assert cluster.leaders == [1]
    change = MembershipChange(remove=(3,))
    assert refusals(cluster.change(1, change)) == [RefusalReason.NOT_READY]
    cluster.settle()
    assert refusals(cluster.change(1, change)) == []


def test_no_change_begins_while_one_is_not_committed() -> None:
    cluster = with_learners(4, 5)
    cluster.change(1, MembershipChange(add=(member(6),)))
    assert refusals(cluster.change(1, SWAP)) == [RefusalReason.CHANGE_PENDING]
    cluster.settle()
    cluster.change(1, SWAP)
    assert refusals(cluster.change(1, MembershipChange(remove=(6,)))) == [
        RefusalReason.CHANGE_PENDING
    ]
    cluster.settle()
    assert refusals(cluster.change(1, MembershipChange(remove=(6,)))) == []


def test_no_change_begins_while_leadership_moves() -> None:
    cluster = with_learners(4, 5)
    cluster.step(1, TransferLeadership(1, 2))
    assert refusals(cluster.change(1, SWAP)) == [RefusalReason.TRANSFERRING]


def test_a_change_that_expects_another_configuration_is_refused() -> None:
    cluster = with_learners(4, 5)
    index = cluster.node(1).configuration_index
    for other in (index - 1, index + 1):
        assert refusals(cluster.change(1, SWAP, expected_index=other)) == [
            RefusalReason.CONFIGURATION_MOVED
        ]
    assert refusals(cluster.change(1, SWAP, expected_index=index)) == []


def test_a_change_that_would_lose_its_quorum_is_refused_unless_it_is_forced() -> None:
    cluster = with_learners(4, 5)
    only(cluster, 1, 2, 3)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert cluster.leaders == [1]
    assert refusals(cluster.change(1, SWAP)) == [RefusalReason.WOULD_LOSE_QUORUM]
    assert refusals(cluster.change(1, SWAP, force=True)) == []
    assert configuration(cluster).voters_outgoing == (1, 2, 3)


@pytest.mark.parametrize("force", [False, True])
def test_a_learner_that_has_not_come_yet_is_not_promoted(force: bool) -> None:
    """As a voter with an empty log it could never come in any more."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.change(1, MembershipChange(add=(member(4),)))
    cluster.settle()
    promote = MembershipChange(promote=(4,))
    assert refusals(cluster.change(1, promote, force=force)) == [RefusalReason.NOT_READY]
    cluster.add(4)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert refusals(cluster.change(1, promote, force=force)) == []
    cluster.settle()
    assert configuration(cluster).voters == (1, 2, 3, 4)


def test_a_member_is_not_added_as_a_voter_at_once() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    change = MembershipChange(add=(member(4),), promote=(4,))
    assert refusals(cluster.change(1, change, force=True)) == [RefusalReason.NOT_READY]


def test_a_change_of_learners_alone_needs_no_quorum_to_answer_and_no_joint_configuration() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    only(cluster, 1)
    cluster.now_us += 2 * MAX_TIMEOUT_US
    assert refusals(cluster.change(1, MembershipChange(add=(member(4),)))) == []
    assert configuration(cluster).voters_outgoing == ()
    assert configuration(cluster).learners == (4,)


def test_a_change_that_changes_nothing_is_done_at_once() -> None:
    cluster = with_learners(4, 5)
    last_index = cluster.node(1).log.last_index
    index = cluster.node(1).configuration_index
    effects = cluster.change(1, MembershipChange(update=(member(2),)), tag=8)
    assert of(MembershipChanged, effects) == [MembershipChanged(8, index)]
    assert cluster.node(1).log.last_index == last_index


def test_only_a_leader_changes_members() -> None:
    cluster = Cluster(3)
    assert refusals(cluster.change(2, SWAP)) == [RefusalReason.NO_LEADER]
    cluster.elect(1)
    effects = cluster.change(2, SWAP)
    assert refusals(effects) == [RefusalReason.NOT_LEADER]
    assert [refused.leader for refused in of(Refused, effects)] == [1]


# --- replacement


def test_a_member_is_replaced_in_one_step_once_the_new_one_has_caught_up() -> None:
    """At no moment there are four voters, or two."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.down = {3}
    cluster.change(1, MembershipChange(add=(member(4),), joining=(Joining(4, replaces=3),)))
    cluster.settle()
    cluster.add(4)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    seen = [
        (c.configuration.voters, c.configuration.voters_outgoing, c.configuration.learners)
        for c in of(ConfigurationChanged, cluster[1].history)
    ]
    assert seen == [
        ((1, 2, 3), (), (4,)),
        ((1, 2, 4), (1, 2, 3), ()),
        ((1, 2, 4), (), ()),
    ]
    assert configuration(cluster).removed == (3,)


def test_the_leader_can_be_replaced() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.change(1, MembershipChange(add=(member(4),), joining=(Joining(4, replaces=1),)))
    cluster.settle()
    cluster.add(4)
    cluster.run_for(3 * MAX_TIMEOUT_US)
    (leader,) = cluster.leaders
    assert leader != 1
    assert configuration(cluster, leader).voters == (2, 3, 4)
    assert notes(cluster[1].history).count("removed") == 1


def test_a_single_member_can_be_replaced() -> None:
    cluster = Cluster(1)
    cluster.elect(1)
    cluster.propose(1, b"kept")
    cluster.change(1, MembershipChange(add=(member(4),), joining=(Joining(4, replaces=1),)))
    cluster.settle()
    cluster.add(4)
    cluster.run_for(6 * MAX_TIMEOUT_US)
    assert cluster.leaders == [4]
    assert configuration(cluster, 4) == Configuration("c1", (member(4),), (4,), removed=(1,))
    assert cluster.applied(4) == [b"kept"]
