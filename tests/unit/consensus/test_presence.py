"""A member says where it is, and hears whether it still belongs there."""

from __future__ import annotations

from raft_agent.consensus.membership import first_entry
from raft_agent.consensus.types import (
    Announce,
    Configuration,
    Heartbeat,
    Member,
    MembershipChange,
    PeerConnected,
    PreVote,
    Removed,
    TimerExpired,
    TransferLeadership,
)
from tests.unit.consensus.harness import Cluster, configuration, led, member
from tests.unit.consensus.server import (
    MAX_TIMEOUT_US,
    Server,
    configuration_of,
    notes,
    sends,
)


def learner() -> Server:
    """4 is a learner, and knows it."""
    members = configuration_of(4).members
    configuration = Configuration("c1", members, (1, 2, 3), learners=(4,))
    return Server(4, log=[first_entry(configuration)])


def test_a_voter_where_it_was_says_nothing() -> None:
    server = Server(2)
    assert not sends(Announce, server.step(PeerConnected(1, "n1")))
    assert not sends(Announce, server.receive(1, Heartbeat(1, 1, 1, 0)))


def test_a_member_on_another_address_says_so_to_whom_it_meets_and_to_its_leader() -> None:
    server = Server(2, address="elsewhere:1")
    for effects in (
        server.step(PeerConnected(3, "n3")),
        server.receive(1, Heartbeat(1, 1, 1, 0)),
    ):
        (announce,) = sends(Announce, effects)
        assert announce.address == "elsewhere:1"
        assert announce.term == server.node.current_term
    assert sends(Announce, server.step(PeerConnected(3, "n3")), to=3)
    assert sends(Announce, server.receive(1, Heartbeat(1, 2, 1, 0)), to=1)


def test_a_learner_asks_everybody_whom_it_meets_whether_it_belongs_there() -> None:
    server = learner()
    assert sends(Announce, server.step(PeerConnected(2, "n2")), to=2)
    assert not sends(Announce, server.receive(1, Heartbeat(1, 1, 1, 0)))


def test_a_learner_that_hears_nobody_asks_everybody_else_again_and_again() -> None:
    server = learner()
    for _ in range(3):
        effects = server.tick()
        for i in (1, 2, 3):
            assert len(sends(Announce, effects, to=i)) == 1
        assert len(sends(Announce, effects)) == 3
        assert not sends(PreVote, effects)


def test_a_learner_that_hears_its_leader_asks_nobody() -> None:
    server = learner()
    server.receive(1, Heartbeat(1, 1, 1, 0))
    due_us = server.node.next_deadline_us
    assert due_us is not None
    server.now_us = due_us - 1
    server.receive(1, Heartbeat(1, 2, 1, 0))
    server.now_us = due_us
    server.step(TimerExpired())
    assert not sends(Announce, server.history)


def test_whoever_was_told_that_it_was_removed_notes_it_once_and_is_quiet() -> None:
    server = learner()
    assert notes(server.receive(2, Removed(1, 1))) == ["removed"]
    assert notes(server.receive(3, Removed(1, 1))) == []
    assert not sends(Announce, server.step(PeerConnected(2, "n2")))
    assert not sends(Announce, server.tick())


def test_who_is_told_in_a_later_term_keeps_its_own() -> None:
    server = learner()
    server.receive(2, Removed(9, 1))
    assert server.node.current_term == 1


def moved(cluster: Cluster, member_id: int) -> str:
    known = configuration(cluster)
    return next(m.address for m in known.members if m.id == member_id)


def announce(address: str) -> Announce:
    return Announce(2, 1, address)


def settle(cluster: Cluster) -> None:
    """The test speaks for the followers: what they say themselves of where they are is lost."""
    cluster.settle(lambda packet: not isinstance(packet.message, Announce))


def test_the_leader_has_the_configuration_follow_a_member_one_change_at_a_time() -> None:
    cluster = led()
    server = cluster[1]
    before = cluster.node(1).configuration_index
    cluster.run(1, lambda _: server.receive(2, announce("a:1")))
    cluster.run(1, lambda _: server.receive(3, announce("b:1")))
    assert notes(server.history).count("address_moved") == 1
    settle(cluster)
    assert (moved(cluster, 2), moved(cluster, 3)) == ("a:1", "b:1")
    assert cluster.node(1).configuration_index == before + 3
    assert notes(server.history).count("address_moved") == 2


def test_the_last_address_that_a_member_says_counts() -> None:
    cluster = led()
    server = cluster[1]
    cluster.run(1, lambda _: server.receive(3, announce("first:1")))
    cluster.run(1, lambda _: server.receive(3, announce("second:1")))
    cluster.run(1, lambda _: server.receive(3, announce("third:1")))
    settle(cluster)
    assert moved(cluster, 3) == "third:1"


def test_what_is_no_news_changes_nothing() -> None:
    cluster = led()
    last_index = cluster.node(1).log.last_index
    for sender, address in ((2, "n2:5555"), (2, ""), (9, "x:1")):
        cluster.run(1, lambda server, s=sender, a=address: server.receive(s, announce(a)))
    settle(cluster)
    assert cluster.node(1).log.last_index == last_index


def test_a_follower_does_nothing_about_an_address() -> None:
    server = Server(2)
    server.receive(1, Heartbeat(1, 1, 1, 0))
    assert not server.receive(3, announce("a:1"))


def test_no_address_is_followed_while_leadership_moves() -> None:
    cluster = led()
    leadership = cluster.node(1).state.leadership
    assert leadership is not None
    cluster.propose(1)
    cluster.part({1}, {2, 3})
    cluster.drop()
    cluster.step(1, TransferLeadership(1, 2))
    cluster.run(1, lambda server: server.receive(3, announce("b:1")))
    assert moved(cluster, 3) == "n3:5555"


def test_a_refused_address_keeps_nobody_elses_from_being_followed() -> None:
    cluster = led()
    cluster.change(1, MembershipChange(add=(member(4),)))
    cluster.run(1, lambda server: server.receive(2, announce("n1:5555")))
    cluster.run(1, lambda server: server.receive(3, announce("b:1")))
    settle(cluster)
    assert moved(cluster, 2) == "n2:5555"
    assert moved(cluster, 3) == "b:1"
    assert notes(cluster[1].history).count("address_refused") == 1


def test_members_that_have_swapped_their_addresses_are_followed_in_one_step() -> None:
    """Either alone would take the other's."""
    cluster = led()
    cluster.run(1, lambda server: server.receive(2, announce("n3:5555")))
    settle(cluster)
    assert moved(cluster, 2) == "n2:5555"
    cluster.run(1, lambda server: server.receive(3, announce("n2:5555")))
    settle(cluster)
    assert moved(cluster, 2) == "n3:5555"
    assert moved(cluster, 3) == "n2:5555"


def test_a_voter_that_moved_while_nobody_led_is_found_once_somebody_does() -> None:
    """It met everybody before there was a leader, and no leader can dial it where it was."""
    cluster = Cluster(3)
    cluster[3].address = "elsewhere:1"
    cluster.restart(3)
    cluster.cut = {(1, 3), (2, 3)}
    cluster.connect_all()
    cluster.settle()
    cluster.elect(1)
    cluster.run_for(4 * MAX_TIMEOUT_US)
    assert moved(cluster, 3) == "elsewhere:1"


def test_a_voter_of_whom_a_wrong_address_was_noted_says_where_it_is() -> None:
    """It can't know what the others were told of it, and only notices that they are silent."""
    cluster = led()
    cluster.cut = {(1, 3), (2, 3)}
    wrong = Member(3, "n3", "nobody:1")
    cluster.change(1, MembershipChange(update=(wrong,)))
    cluster.settle()
    assert moved(cluster, 3) == "nobody:1"
    cluster.run_for(4 * MAX_TIMEOUT_US)
    assert moved(cluster, 3) == "n3:5555"
