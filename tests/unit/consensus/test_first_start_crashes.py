"""Every crash in the first start, and one lost disk."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import AppendEntries, BootstrapAnswer, Heartbeat, PeerLost, Role
from tests.unit.consensus.first_start import (
    FOUNDER,
    SECOND,
    THIRD,
    cluster_ids,
    fresh_cluster,
    is_answer,
    is_ask,
    is_install,
    lose_disk,
    roles,
)
from tests.unit.consensus.harness import Cluster, Packet, configuration


def founded_but_not_told() -> Cluster:
    """The founder has written the first entry; its installs are on the wire."""
    cluster = fresh_cluster()
    cluster.connect_all()
    cluster.settle(lambda packet: not is_install(packet))
    assert sorted(packet.to for packet in cluster.wire) == [THIRD, SECOND]
    return cluster


def test_a_founder_that_crashes_before_its_write_is_durable_starts_over() -> None:
    cluster = fresh_cluster()
    cluster[FOUNDER].writes = False
    cluster.connect_all()
    cluster.settle()
    cluster[FOUNDER].writes = True
    cluster.restart(FOUNDER)
    assert cluster.node(FOUNDER).role is Role.FRESH
    cluster.run_for(2_000_000)
    assert len(cluster_ids(cluster)) == 1
    assert len(cluster.leaders) == 1


def test_a_founder_that_crashes_between_its_write_and_the_installs_brings_the_others_in() -> None:
    cluster = founded_but_not_told()
    (founded,) = cluster_ids(cluster)
    cluster.drop()
    cluster.restart(FOUNDER)
    assert roles(cluster) == [Role.FRESH, Role.FRESH, Role.FOLLOWER]
    cluster.run_for(3_000_000)
    assert cluster_ids(cluster) == {founded}
    assert Role.FRESH not in roles(cluster)
    assert len(cluster.leaders) == 1


def test_an_adopter_brings_in_the_one_that_the_founder_did_not_reach() -> None:
    cluster = founded_but_not_told()
    cluster.drop(lambda packet: packet.to == THIRD)
    cluster.settle()
    cluster.down.add(FOUNDER)
    assert roles(cluster) == [Role.FRESH, Role.FOLLOWER, Role.FOLLOWER]
    cluster.run_for(3_000_000)
    assert cluster.node(THIRD).configuration == cluster.node(FOUNDER).configuration
    assert cluster.leaders
    assert cluster.leaders[0] in (SECOND, THIRD)


@pytest.mark.parametrize("member_id", [SECOND, THIRD])
def test_an_adopter_that_crashes_before_its_write_is_durable_is_brought_in_again(
    member_id: int,
) -> None:
    cluster = founded_but_not_told()
    cluster[member_id].writes = False
    cluster.settle()
    assert cluster.node(member_id).role is Role.FOLLOWER
    cluster[member_id].writes = True
    cluster.restart(member_id)
    assert cluster.node(member_id).role is Role.FRESH
    cluster.run_for(3_000_000)
    assert len(cluster_ids(cluster)) == 1
    assert Role.FRESH not in roles(cluster)


def test_a_node_that_has_adopted_never_answers_fresh_again() -> None:
    cluster = founded_but_not_told()
    cluster.settle()
    cluster[SECOND].receive(9, _ask_of(cluster))
    answers = [s.message for s in cluster[SECOND].outbox if isinstance(s.message, BootstrapAnswer)]
    assert [answer.fresh for answer in answers] == [False]
    assert {answers[0].cluster_id} == cluster_ids(cluster)
    assert answers[0].token == 0


def _ask_of(cluster: Cluster) -> object:
    other = fresh_cluster()
    other.connect_all()
    return next(packet.message for packet in other.wire if is_ask(packet))


def test_the_entry_of_an_asker_that_lost_its_disk_is_void_once_the_new_one_has_asked() -> None:
    """The token is per question: what the founder's former self sent opens nobody any more."""
    cluster = founded_but_not_told()
    old_installs = cluster.drop(is_install)
    (old_id,) = cluster_ids(cluster)
    lose_disk(cluster, FOUNDER, 30)
    cluster.connect(30, SECOND)
    cluster.connect(30, THIRD)
    cluster.deliver(is_ask)
    cluster.wire += old_installs
    cluster.deliver(is_install)
    assert Role.FOLLOWER not in roles(cluster)
    cluster.run_for(3_000_000)
    (new_id,) = cluster_ids(cluster)
    assert new_id != old_id
    assert len(cluster.leaders) == 1


def test_the_entry_of_an_asker_that_lost_its_disk_wins_when_one_node_has_adopted_it() -> None:
    """Then the new asker, another id, waits to be joined, and the other member is brought in."""
    cluster = founded_but_not_told()
    (old_id,) = cluster_ids(cluster)
    cluster.deliver(lambda packet: packet.to == SECOND)
    old_installs = cluster.drop(is_install)
    lose_disk(cluster, FOUNDER, 30)
    cluster.connect(30, SECOND)
    cluster.connect(30, THIRD)
    cluster.settle()
    cluster.wire += old_installs
    cluster.run_for(3_000_000)
    assert cluster_ids(cluster) == {old_id}
    assert cluster.node(30).role is Role.FRESH
    assert cluster.node(THIRD).configuration == cluster.node(SECOND).configuration
    assert cluster.leaders
    assert cluster.leaders[0] in (SECOND, THIRD)


def test_the_new_asker_founds_nothing_on_an_answer_from_before_another_nodes_adoption() -> None:
    """One has answered the new asker, then the old entry reaches it: void. It reaches the one that
    has not been asked yet: that one is a member now, and the new asker waits."""
    cluster = founded_but_not_told()
    old_installs = cluster.drop(is_install)
    lose_disk(cluster, FOUNDER, 30)
    cluster.connect(30, SECOND)
    cluster.settle()
    cluster.wire += old_installs
    cluster.settle()
    assert cluster.node(SECOND).role is Role.FRESH
    assert cluster.node(THIRD).role is Role.FOLLOWER
    cluster.connect(30, THIRD)
    cluster.run_for(3_000_000)
    assert len(cluster_ids(cluster)) == 1
    assert cluster.node(30).role is Role.FRESH


def test_an_answer_of_a_peers_former_self_is_not_counted() -> None:
    """A peer that lost its disk has another id; its former answer may arrive after it came back,
    and a cluster founded on it would have a member that does not exist."""
    cluster = fresh_cluster()
    cluster.connect_all()
    cluster.deliver(lambda packet: packet.to == THIRD)
    late = cluster.drop(is_answer)
    cluster.drop()
    lose_disk(cluster, THIRD, 10)
    cluster.step(FOUNDER, PeerLost(THIRD))
    cluster.connect(10, FOUNDER)
    cluster.connect(10, SECOND)
    cluster.drop()
    cluster.wire += late
    cluster.run_for(3_000_000)
    known = configuration(cluster, FOUNDER)
    assert known.voters == (SECOND, FOUNDER, 10)


def test_a_fresh_node_is_brought_in_over_a_link_slower_than_the_heartbeats() -> None:
    """With a round trip longer than the heartbeat interval another message of the leader always
    overtakes the install, and must not void the token in it."""
    cluster = founded_but_not_told()
    cluster.drop(lambda packet: packet.to == THIRD)
    cluster.cut |= {(a, THIRD) for a in cluster.servers}
    cluster.run_for(1_000_000)
    (leader,) = cluster.leaders
    cluster.heal()

    def from_raft(packet: Packet) -> bool:
        return packet.to == THIRD and isinstance(packet.message, Heartbeat | AppendEntries)

    for _ in range(20):
        cluster.run(leader, lambda server: server.tick())
        cluster.now_us = cluster[leader].now_us
        installs = cluster.drop(is_install)
        cluster.settle(lambda packet: packet.to != THIRD and not is_answer(packet))
        cluster.deliver(from_raft)
        cluster.wire += installs
        cluster.deliver(is_install)
        cluster.deliver(is_answer)
    assert cluster.node(THIRD).role is Role.FOLLOWER
