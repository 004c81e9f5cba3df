"""The moments at which a leader goes on with a change, and at which it waits."""

from __future__ import annotations

from raft_agent.consensus.batch import BatchKind
from raft_agent.consensus.types import (
    Announce,
    AppendEntries,
    AppendReply,
    ConfigurationChanged,
    Joining,
    Member,
    MembershipChange,
    MembershipChanged,
    RefusalReason,
    Refused,
    Role,
    Send,
    TimeoutNow,
)
from tests.unit.consensus.harness import (
    Cluster,
    Packet,
    configuration,
    led,
    member,
    voters,
    with_learners,
)
from tests.unit.consensus.server import (
    HEARTBEAT_US,
    MAX_TIMEOUT_US,
    MIN_TIMEOUT_US,
    notes,
    of,
)

JOIN_4 = MembershipChange(joining=(Joining(4),))


def acknowledges(packet: Packet, *senders: int) -> bool:
    return isinstance(packet.message, AppendReply) and packet.sender in senders


def pass_time(cluster: Cluster, duration_us: int, *, held: tuple[int, ...]) -> None:
    """Heartbeats go round; what these acknowledge stays on the wire."""
    end_us = cluster.now_us + duration_us
    while cluster.now_us < end_us:
        cluster.now_us += HEARTBEAT_US
        cluster.run(1, lambda server: server.tick())
        cluster.settle(lambda packet: not acknowledges(packet, *held))


def caught_up_before_the_commit() -> Cluster:
    """4 has all there is, but the change by which it joins is not committed yet."""
    cluster = with_learners(4)
    cluster.change(1, JOIN_4)
    cluster.settle(lambda packet: not acknowledges(packet, 2, 3))
    leadership = cluster.node(1).state.leadership
    assert leadership is not None
    assert leadership.catching_up[4].is_done
    assert voters(cluster) == (1, 2, 3)
    return cluster


def test_a_learner_that_has_caught_up_waits_for_the_commit_of_its_joining() -> None:
    cluster = caught_up_before_the_commit()
    cluster.settle()
    assert voters(cluster) == (1, 2, 3, 4)


def test_a_learner_is_not_promoted_where_that_would_lose_the_quorum() -> None:
    """3 is down, and 4 does not answer any more: with four voters three would have to."""
    cluster = caught_up_before_the_commit()
    cluster.down = {3, 4}
    cluster.drop(lambda packet: packet.sender in {3, 4})
    pass_time(cluster, 2 * MAX_TIMEOUT_US, held=(2,))
    cluster.settle()
    cluster.run_for(MAX_TIMEOUT_US)
    assert cluster.leaders == [1]
    assert voters(cluster) == (1, 2, 3)
    cluster.down = {3}
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert voters(cluster) == (1, 2, 3, 4)


def test_a_learner_that_went_away_again_is_not_promoted_even_where_nobody_needs_it() -> None:
    cluster = caught_up_before_the_commit()
    cluster.down = {4}
    pass_time(cluster, 2 * MAX_TIMEOUT_US, held=(2, 3))
    cluster.settle()
    cluster.run_for(MAX_TIMEOUT_US)
    assert voters(cluster) == (1, 2, 3)
    cluster.restart(4)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert voters(cluster) == (1, 2, 3, 4)


def test_a_promotion_and_an_address_go_one_after_the_other() -> None:
    cluster = caught_up_before_the_commit()
    cluster.run(1, lambda server: server.receive(2, Announce(2, 1, "a:1")))
    pending = 0
    while cluster.deliver(lambda packet: not isinstance(packet.message, Announce)):
        node = cluster.node(1)
        uncommitted = [
            batch
            for batch in node.log.resident_batches
            if batch.kind == BatchKind.CONFIGURATION and batch.first_index > node.commit_index
        ]
        pending = max(pending, len(uncommitted))
    assert pending == 1
    assert voters(cluster) == (1, 2, 3, 4)


def test_all_addresses_that_were_said_during_a_change_are_followed_after_it() -> None:
    cluster = with_learners(4)
    cluster.change(1, MembershipChange(remove=(4,)))
    for sender, address in ((2, "a:1"), (3, "b:1")):
        cluster.run(1, lambda server, s=sender, a=address: server.receive(s, Announce(2, 1, a)))
    assert "address_moved" not in notes(cluster[1].history)
    cluster.settle(lambda packet: not isinstance(packet.message, Announce))
    known = configuration(cluster)
    assert [m.address for m in known.members] == ["n1:5555", "a:1", "b:1"]


def test_a_learner_that_gets_faster_becomes_a_voter_while_there_is_always_more_to_come() -> None:
    """A slow round says nothing of the next one."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.change(1, MembershipChange(add=(member(4),), joining=(Joining(4),)))
    cluster.settle()
    cluster.add(4)
    for delay_us, is_voter in ((MIN_TIMEOUT_US, False), (HEARTBEAT_US // 2, True)):
        cluster.delay_us[4] = delay_us
        for number in range(200):
            cluster.propose(1, b"%d" % number)
            cluster.run_for(HEARTBEAT_US // 5)
        assert (4 in voters(cluster)) == is_voter


def test_rounds_are_counted_only_for_learners_that_are_to_be_voters() -> None:
    cluster = with_learners(4)
    cluster.delay_us = {3: MIN_TIMEOUT_US, 4: MIN_TIMEOUT_US}
    for number in range(100):
        cluster.propose(1, b"%d" % number)
        cluster.run_for(HEARTBEAT_US // 5)
    assert "catching_up" not in notes(cluster[1].history)
    assert voters(cluster) == (1, 2, 3)


def test_a_new_leader_leaves_a_joint_configuration_once_it_has_committed_in_its_own_term() -> None:
    """Also one that it knows to be committed already."""
    cluster = with_learners(4)
    cluster.change(1, MembershipChange(promote=(4,)))
    cluster.deliver(lambda packet: isinstance(packet.message, AppendEntries))
    cluster.deliver(lambda packet: isinstance(packet.message, AppendReply))
    cluster.settle(lambda packet: not isinstance(packet.message, AppendEntries))
    cluster.drop()
    node = cluster.node(2)
    assert node.commit_index == node.configuration_index
    cluster.down = {1}
    cluster.now_us += MAX_TIMEOUT_US
    cluster.time_out(2)
    cluster.settle(lambda packet: not isinstance(packet.message, AppendEntries))
    assert node.role is Role.LEADER
    assert node.log.last_index == node.configuration_index + 1
    cluster.settle()
    assert node.configuration_index == node.log.last_index
    assert of(ConfigurationChanged, cluster[2].history)[-1].configuration.voters_outgoing == ()


def test_a_voter_of_which_nobody_knows_how_far_it_is_is_not_counted_on() -> None:
    """It has just reconnected, perhaps after a restart with a shorter log."""
    cluster = with_learners(4)
    cluster.down = {3}
    cluster.connect(1, 2)
    cluster.drop()
    remove = MembershipChange(remove=(3,))
    (refused,) = of(Refused, cluster.change(1, remove))
    assert refused.reason is RefusalReason.WOULD_LOSE_QUORUM
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert not of(Refused, cluster.change(1, remove))


def test_a_voter_counts_as_there_for_as_long_as_an_election_timeout_lasts() -> None:
    remove = MembershipChange(remove=(3,))
    for late_us, is_refused in ((0, False), (1, True)):
        cluster = with_learners(4)
        heard_us = cluster.node(1).progress[2].last_contact_us = cluster.now_us
        cluster.node(1).progress[3].last_contact_us = heard_us
        cluster.now_us = heard_us + MAX_TIMEOUT_US + late_us
        assert bool(of(Refused, cluster.change(1, remove))) == is_refused


def test_each_change_is_told_to_who_asked_for_it_and_once() -> None:
    cluster = with_learners(4)
    cluster.change(1, JOIN_4, tag=5)
    cluster.settle()
    cluster.change(1, MembershipChange(remove=(2,)), tag=6)
    cluster.settle()
    cluster.propose(1)
    cluster.settle()
    assert [done.tag for done in of(MembershipChanged, cluster[1].history)] == [1, 5, 6]


def test_a_leader_that_has_removed_itself_begins_nothing_more() -> None:
    """There is a learner to be promoted and an address to be followed: for whoever leads next."""
    cluster = with_learners(4)
    cluster.change(1, MembershipChange(remove=(1,), joining=(Joining(4),)))
    cluster.run(1, lambda server: server.receive(2, Announce(2, 1, "a:1")))
    cluster.settle(lambda packet: packet.sender == 1 or isinstance(packet.message, AppendReply))
    assert cluster.node(1).role is not Role.LEADER
    assert "learner_promoted" not in notes(cluster[1].history)
    assert "address_moved" not in notes(cluster[1].history)
    assert cluster.node(1).log.last_index == cluster.node(1).configuration_index


def test_a_leader_that_has_removed_itself_has_the_furthest_voter_stand() -> None:
    """5 lacks the end, and the learner 6 has it but can't be elected."""
    cluster = led(5)
    cluster.change(1, MembershipChange(add=(member(6),)))
    cluster.settle()
    cluster.add(6)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    cluster.down = {5}
    cluster.change(1, MembershipChange(remove=(1,)))
    cluster.settle()
    told = [
        send.to for send in of(Send, cluster[1].history) if isinstance(send.message, TimeoutNow)
    ]
    assert told == [4]


def test_an_address_that_was_followed_is_not_gone_back_to() -> None:
    cluster = led()

    def announce(sender: int, address: str) -> None:
        cluster.run(1, lambda server: server.receive(sender, Announce(2, 1, address)))
        cluster.settle(lambda packet: not isinstance(packet.message, Announce))

    announce(3, "a:1")
    cluster.change(1, MembershipChange(update=(Member(3, "n3", "b:1"),)))
    cluster.settle(lambda packet: not isinstance(packet.message, Announce))
    announce(2, "c:1")
    known = configuration(cluster)
    assert [m.address for m in known.members] == ["n1:5555", "c:1", "b:1"]


def test_a_learner_behind_a_slow_link_becomes_a_voter_once_it_has_all_there_is() -> None:
    """No round of it is short, but none is needed where nothing more comes."""
    cluster = led()
    cluster.change(1, MembershipChange(add=(member(4),), joining=(Joining(4),)))
    cluster.settle()
    cluster.delay_us[4] = MIN_TIMEOUT_US
    cluster.add(4)
    cluster.run_for(20 * MAX_TIMEOUT_US)
    assert voters(cluster) == (1, 2, 3, 4)
