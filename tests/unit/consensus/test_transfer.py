"""Leadership transfer (§3.10 of the thesis)."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    AppendEntries,
    HeartbeatReply,
    Proposed,
    RefusalReason,
    Refused,
    Role,
    StorageFailed,
    TimeoutNow,
    TransferDone,
    TransferLeadership,
)
from tests.unit.consensus.harness import Cluster, Packet
from tests.unit.consensus.server import HEARTBEAT_US, MAX_TIMEOUT_US, Server, log_of, of, sends

TAG = 42


def transfer(cluster: Cluster, target: int = 0, *, leader: int = 1) -> list[object]:
    return list(cluster.step(leader, TransferLeadership(TAG, target)))


def answers(cluster: Cluster, member_id: int = 1) -> list[object]:
    """What the asker of the transfer has been told."""
    history = cluster[member_id].history
    told = [*of(TransferDone, history), *of(Refused, history)]
    return [answer for answer in told if answer.tag == TAG]


def is_timeout_now(packet: Packet) -> bool:
    return isinstance(packet.message, TimeoutNow)


@pytest.mark.parametrize("target", [2, 3])
def test_the_target_becomes_leader_within_one_election(target: int) -> None:
    cluster = Cluster()
    cluster.elect(1)
    before_us = cluster.now_us
    transfer(cluster, target)
    cluster.settle()
    assert cluster.leaders == [target]
    assert cluster.node(target).current_term == 3
    assert cluster.now_us == before_us
    assert answers(cluster) == [TransferDone(TAG, target)]


def test_without_a_target_the_voter_that_is_furthest_gets_it() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut = {(1, 2)}
    cluster.propose(1)
    cluster.settle()
    cluster.heal()
    transfer(cluster)
    cluster.settle()
    assert cluster.leaders == [3]


def test_a_lagging_target_is_brought_up_to_date_first() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, b"x")
    held = cluster.drop(lambda packet: packet.to == 2)
    cluster.settle()
    transfer(cluster, 2)
    assert not [packet for packet in cluster.wire if is_timeout_now(packet)]
    cluster.wire += held
    cluster.settle()
    assert cluster.leaders == [2]
    assert cluster.applied(2) == [b"x"]


def test_a_target_that_has_written_but_not_synced_is_not_up_to_date() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster[2].writes = False
    cluster.propose(1)
    cluster.settle()
    transfer(cluster, 2)
    cluster.settle()
    assert cluster.leaders == [1]
    cluster.run(2, lambda server: server.write_log())
    cluster[2].writes = True
    cluster.settle()
    assert cluster.leaders == [2]


def test_proposals_are_refused_meanwhile() -> None:
    """Else the target might never catch up."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut = {(1, 2)}
    transfer(cluster, 2)
    effects = cluster.propose(1, tag=7)
    assert of(Refused, effects) == [Refused(7, RefusalReason.TRANSFERRING, 0)]
    assert cluster.node(1).log.last_index == 2
    assert not of(Proposed, effects)


def test_a_second_transfer_meanwhile_is_refused() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut = {(1, 2)}
    transfer(cluster, 2)
    effects = cluster.step(1, TransferLeadership(8, 3))
    assert of(Refused, effects) == [Refused(8, RefusalReason.TRANSFERRING, 0)]


def test_a_transfer_that_takes_an_election_timeout_is_given_up() -> None:
    """And the leader takes proposals again."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.down.add(2)
    transfer(cluster, 2)
    started_us = cluster.now_us
    while not answers(cluster) and cluster.now_us < started_us + 10 * MAX_TIMEOUT_US:
        cluster.run_for(HEARTBEAT_US)
    assert answers(cluster) == [Refused(TAG, RefusalReason.TIMED_OUT, 0)]
    assert MAX_TIMEOUT_US <= cluster.now_us - started_us <= MAX_TIMEOUT_US + 2 * HEARTBEAT_US
    assert cluster.leaders == [1]
    cluster.propose(1, b"again")
    cluster.settle()
    assert cluster.applied(3) == [b"again"]


def test_a_lost_request_to_stand_costs_the_transfer_and_no_more() -> None:
    cluster = Cluster()
    cluster.elect(1)
    transfer(cluster, 2)
    assert cluster.drop(is_timeout_now)
    cluster.run_for(3 * MAX_TIMEOUT_US)
    assert answers(cluster) == [Refused(TAG, RefusalReason.TIMED_OUT, 0)]
    assert cluster.leaders == [1]


@pytest.mark.parametrize("target", [9, 77])
def test_an_unknown_target_is_refused(target: int) -> None:
    cluster = Cluster()
    cluster.elect(1)
    transfer(cluster, target)
    assert answers(cluster) == [Refused(TAG, RefusalReason.UNKNOWN_TARGET, 0)]
    assert of(Proposed, cluster.propose(1))


def test_a_cluster_of_one_has_no_target() -> None:
    cluster = Cluster(1)
    cluster.elect(1)
    transfer(cluster)
    assert answers(cluster) == [Refused(TAG, RefusalReason.UNKNOWN_TARGET, 0)]


def test_the_leader_itself_as_target_is_done_at_once() -> None:
    cluster = Cluster()
    cluster.elect(1)
    transfer(cluster, 1)
    assert answers(cluster) == [TransferDone(TAG, 1)]
    assert of(Proposed, cluster.propose(1))


def test_only_the_leader_can_hand_over() -> None:
    cluster = Cluster()
    cluster.elect(1)
    transfer(cluster, 3, leader=2)
    assert answers(cluster, 2) == [Refused(TAG, RefusalReason.NOT_LEADER, 1)]
    alone = Server(1)
    effects = alone.step(TransferLeadership(TAG, 0))
    assert of(Refused, effects) == [Refused(TAG, RefusalReason.NO_LEADER, 0)]


def test_no_acknowledged_write_is_lost_in_a_transfer() -> None:
    cluster = Cluster(5)
    cluster.elect(1)
    for number in range(10):
        cluster.propose(1, b"%d" % number)
    transfer(cluster, 4)
    cluster.settle()
    assert cluster.leaders == [4]
    assert cluster.applied(5) == [b"%d" % number for number in range(10)]


def test_a_request_to_stand_from_an_earlier_term_is_ignored() -> None:
    server = Server(2, log=log_of(1, 5))
    server.receive(1, TimeoutNow(4, 1))
    assert server.node.role is Role.FOLLOWER
    assert server.node.current_term == 5


def test_a_target_that_loses_the_election_leaves_a_cluster_that_finds_a_leader() -> None:
    """The target's requests are lost: its term is one further, and the others follow it there."""
    cluster = Cluster()
    cluster.elect(1)
    transfer(cluster, 2)
    cluster.deliver(is_timeout_now)
    cluster.drop()
    cluster.run_for(5 * MAX_TIMEOUT_US)
    assert len(cluster.leaders) == 1
    assert len(answers(cluster)) == 1


def test_a_transfer_is_answered_when_the_leader_is_deposed_by_somebody_else() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut = {(1, 2), (1, 3)}
    transfer(cluster, 2)
    cluster.time_out(3)
    cluster.settle()
    assert cluster.leaders == [3]
    assert answers(cluster) == [TransferDone(TAG, 3)]


def test_a_transfer_is_answered_when_the_disk_fails() -> None:
    """Who asked must not wait for ever."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut = {(1, 2)}
    transfer(cluster, 2)
    cluster.step(1, StorageFailed("disk on fire"))
    assert len(answers(cluster)) == 1


def test_a_transfer_is_answered_when_the_leader_loses_its_quorum() -> None:
    """No leader may come for a long time; an election timeout is what a transfer may take."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.part([1], [2], [3])
    transfer(cluster, 2)
    cluster.run_for(4 * MAX_TIMEOUT_US)
    assert cluster.leaders == []
    assert len(answers(cluster)) == 1


def test_a_transfer_is_answered_when_the_leader_is_deposed_and_no_other_comes() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.part([1], [2], [3])
    transfer(cluster, 2)
    cluster.run(1, lambda server: server.receive(3, HeartbeatReply(9, 1, 1, 0)))
    cluster.run_for(4 * MAX_TIMEOUT_US)
    assert cluster.leaders == []
    assert len(answers(cluster)) == 1


def test_a_leader_that_is_elected_again_has_not_handed_over() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut = {(1, 2), (1, 3)}
    transfer(cluster, 2)
    cluster.run(1, lambda server: server.receive(3, HeartbeatReply(9, 1, 1, 0)))
    cluster.heal()
    cluster.elect(1)
    assert answers(cluster) == [Refused(TAG, RefusalReason.TIMED_OUT, 0)]


def test_the_target_stands_with_a_mark_that_lets_others_vote_though_they_hear_the_leader() -> None:
    cluster = Cluster(5)
    cluster.elect(1)
    transfer(cluster, 2)
    cluster.deliver(is_timeout_now)
    cluster.settle(lambda packet: not isinstance(packet.message, AppendEntries))
    assert cluster.node(2).role is Role.LEADER
    assert not sends(TimeoutNow, cluster[2].history)
