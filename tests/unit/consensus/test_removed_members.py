"""Who leaves the cluster: a leader that removes itself, and members that are told that they are
none any more (§6 of the paper; §4.2.2, §4.2.3 of the thesis)."""

from __future__ import annotations

from raft_agent.consensus.membership import decode_configuration
from raft_agent.consensus.types import (
    Announce,
    AppendEntries,
    Effect,
    Heartbeat,
    MembershipChange,
    MembershipChanged,
    PreVote,
    Read,
    RefusalReason,
    Refused,
    Removed,
    RequestVote,
    Role,
    TimeoutNow,
)
from tests.unit.consensus.harness import Cluster, Packet, led, member
from tests.unit.consensus.server import MAX_TIMEOUT_US, notes, of, sends

REMOVE_1 = MembershipChange(remove=(1,))


def is_append(packet: Packet) -> bool:
    return isinstance(packet.message, AppendEntries)


def test_a_leader_that_removes_itself_leads_until_that_is_committed_then_its_heir_stands() -> None:
    cluster = led()
    cluster.change(1, REMOVE_1, tag=5)
    cluster.settle()
    assert [done.tag for done in of(MembershipChanged, cluster[1].history)] == [5]
    assert cluster.node(1).role is Role.LEARNER
    # Nobody's timer has fired: it went from hand to hand.
    (leader,) = cluster.leaders
    assert leader in {2, 3}
    assert cluster.node(leader).current_term == 3
    assert cluster.propose(leader)
    cluster.settle()
    assert cluster.node(leader).commit_index == cluster.node(leader).log.last_index


def test_a_leader_that_is_no_voter_any_more_does_not_count_itself() -> None:
    cluster = led()
    cluster.change(1, REMOVE_1)
    cluster.deliver(is_append)
    cluster.settle(lambda packet: packet.to == 1)
    node = cluster.node(1)
    assert node.configuration is not None
    assert node.configuration.voters == (2, 3)
    assert node.configuration.voters_outgoing == ()
    committed = node.commit_index
    cluster.deliver(lambda packet: packet.to == 2)
    cluster.deliver(lambda packet: packet.to == 1)
    assert node.commit_index == committed
    assert node.role is Role.LEADER
    cluster.settle()
    assert node.role is Role.LEARNER


def test_a_leader_whose_own_removal_only_it_has_stands_again() -> None:
    """§4.2.2 of the thesis: without it there would be no leader any more. The others need its vote
    while they are in the joint configuration, and its log is the longest."""
    cluster = led(2)
    cluster.change(1, REMOVE_1)
    cluster.deliver(is_append)
    cluster.settle(lambda packet: packet.to == 1)
    cluster.drop()
    kinds = [batch for batch in cluster[1].disk if batch.kind == 2]
    assert decode_configuration(kinds[-1].payload).voters == (2,)
    assert cluster.node(2).log.last_index < cluster.node(1).log.last_index
    cluster.restart(1)
    cluster.restart(2)
    cluster.run_for(20 * MAX_TIMEOUT_US)
    assert cluster.leaders == [2]
    assert cluster.node(1).role is Role.LEARNER
    assert notes(cluster[1].history).count("removed") == 1
    known = cluster.node(2).configuration_at(cluster.node(2).commit_index)
    assert known is not None
    assert known[1].removed == (1,)


def removed_while_away(member_id: int = 3) -> Cluster:
    """A member was cut off while it was removed, and knows nothing of it."""
    cluster = led()
    cluster.part({1, 2}, {member_id})
    cluster.change(1, MembershipChange(remove=(member_id,)))
    cluster.settle()
    cluster.heal()
    return cluster


def test_a_removed_voter_is_told_by_those_whom_it_asks_and_never_stands_again() -> None:
    cluster = removed_while_away()
    cluster.time_out(3)
    cluster.settle()
    server = cluster[3]
    assert notes(server.history).count("removed") == 1
    asked = len(sends(PreVote, server.history))
    cluster.run_for(20 * MAX_TIMEOUT_US)
    assert len(sends(PreVote, server.history)) == asked
    assert not sends(RequestVote, server.history)
    assert notes(server.history).count("removed") == 1
    assert cluster.leaders == [1]


def test_a_removed_member_says_so_to_whoever_asks_it() -> None:
    cluster = removed_while_away()
    cluster.time_out(3)
    cluster.settle()
    (refused,) = of(Refused, cluster.step(3, Read(1)))
    assert refused.reason is RefusalReason.REMOVED


def test_a_removed_member_that_is_told_to_stand_does_not() -> None:
    cluster = removed_while_away()
    cluster.time_out(3)
    cluster.settle()
    assert not sends(RequestVote, cluster[3].receive(2, TimeoutNow(9, 1)))


def test_a_removed_voter_that_is_there_is_told_at_once() -> None:
    cluster = led()
    cluster.change(1, MembershipChange(remove=(3,)))
    cluster.settle()
    assert sends(Removed, cluster[1].history, to=3)
    assert notes(cluster[3].history).count("removed") == 1


def test_a_removed_learner_learns_of_it_when_it_comes_back() -> None:
    cluster = led()
    cluster.change(1, MembershipChange(add=(member(4),)))
    cluster.settle()
    cluster.add(4)
    cluster.settle()
    assert cluster.node(4).role is Role.LEARNER
    cluster.down = {4}
    cluster.change(1, MembershipChange(remove=(4,)))
    cluster.settle()
    cluster.restart(4)
    cluster.settle()
    assert notes(cluster[4].history).count("removed") == 1
    asked = len(sends(Announce, cluster[4].history))
    cluster.run_for(5 * MAX_TIMEOUT_US)
    assert len(sends(Announce, cluster[4].history)) == asked


def test_a_removed_learner_that_hears_nobody_asks_why() -> None:
    """Its connection may have stood all the time, and the word been lost."""
    cluster = led()
    cluster.change(1, MembershipChange(add=(member(4),)))
    cluster.settle()
    cluster.add(4)
    cluster.settle()
    cluster.part({1, 2, 3}, {4})
    cluster.change(1, MembershipChange(remove=(4,)))
    cluster.settle()
    cluster.heal()
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert notes(cluster[4].history).count("removed") == 1


def told(effects: list[Effect]) -> bool:
    return bool(sends(Removed, effects))


def test_who_is_removed_is_told_only_once_that_is_committed() -> None:
    cluster = led()
    cluster.change(1, MembershipChange(remove=(3,)))
    cluster.drop()
    server = cluster[1]
    assert not told(server.receive(3, PreVote(9, 1, 9, 9)))
    cluster = removed_while_away()
    assert told(cluster[1].receive(3, PreVote(9, 1, 9, 9)))
    assert told(cluster[1].receive(3, Heartbeat(9, 1, 1, 0)))
    assert cluster.node(1).current_term == 2, "its terms count no more"


def test_a_removed_id_is_refused_for_ever() -> None:
    cluster = removed_while_away()
    effects = cluster.change(1, MembershipChange(add=(member(3),)), tag=8)
    assert [(r.tag, r.reason) for r in of(Refused, effects)] == [(8, RefusalReason.ID_REMOVED)]
    cluster.restart(1)
    cluster.run_for(5 * MAX_TIMEOUT_US)
    (leader,) = cluster.leaders
    effects = cluster.change(leader, MembershipChange(add=(member(3),)), tag=9)
    assert [(r.tag, r.reason) for r in of(Refused, effects)] == [(9, RefusalReason.ID_REMOVED)]
