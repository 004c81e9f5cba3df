"""How old the answer to a stale read may be: never younger than it says."""

from __future__ import annotations

from raft_agent.consensus.types import AppendReply, Heartbeat, Role
from tests.unit.consensus.harness import Cluster, Packet
from tests.unit.consensus.server import HEARTBEAT_US, MAX_TIMEOUT_US, Server, log_of


def is_append_reply(packet: Packet) -> bool:
    return isinstance(packet.message, AppendReply)


def heartbeat(term: int, commit: int, leader_commit: int) -> Heartbeat:
    return Heartbeat(term, 1, 1, commit, leader_commit)


def age(server: Server) -> int | None:
    return server.node.stale_age_us(server.now_us)


def test_nothing_is_said_of_the_age_before_a_leader_was_heard() -> None:
    assert age(Server(2)) is None


def test_a_follower_that_has_applied_all_is_as_old_as_the_last_word_of_its_leader() -> None:
    server = Server(2, log=log_of(1, 1, 1), now_us=1_000)
    server.receive(1, heartbeat(1, 3, 3))
    assert age(server) == 0
    server.now_us += 70
    assert age(server) == 70


def test_a_follower_that_has_not_applied_all_grows_older_while_it_hears_its_leader() -> None:
    server = Server(2, log=log_of(1, 1, 1), now_us=1_000)
    server.receive(1, heartbeat(1, 3, 3))
    server.applies = False
    server.now_us += 70
    server.receive(1, heartbeat(1, 3, 4))
    assert age(server) == 70
    server.now_us += 30
    server.receive(1, heartbeat(1, 3, 3))  # a late one from before
    assert age(server) == 100


def test_a_follower_is_as_old_as_the_word_that_it_has_caught_up_with() -> None:
    server = Server(2, log=log_of(1, 1, 1), now_us=1_000)
    server.applies = False
    server.receive(1, heartbeat(1, 3, 3))
    server.now_us += 70
    assert age(server) is None
    server.finish_apply()
    assert age(server) == 70


def test_followers_of_a_new_leader_are_not_current_before_it_knows_what_is_committed() -> None:
    """The leader before may have committed more than the new one knows of."""
    cluster = Cluster(3, logs=dict.fromkeys((1, 2, 3), log_of(1, 1, 1)), now_us=1_000)
    cluster.time_out(1)
    cluster.settle(lambda packet: not is_append_reply(packet))
    assert cluster.node(1).role is Role.LEADER
    cluster.now_us += HEARTBEAT_US
    cluster.run(1, lambda server: server.tick())
    cluster.settle(lambda packet: not is_append_reply(packet))
    assert cluster.node(2).stale_age_us(cluster.now_us) is None
    assert cluster.node(1).stale_age_us(cluster.now_us) is None
    cluster.settle()
    assert cluster.node(1).stale_age_us(cluster.now_us) == 0
    cluster.run_for(HEARTBEAT_US)
    assert cluster.node(2).stale_age_us(cluster.now_us) in range(HEARTBEAT_US + 1)


def test_what_a_leader_of_an_older_term_announced_is_not_waited_for() -> None:
    """It may never have been committed."""
    server = Server(2, log=log_of(1, 1, 1), now_us=1_000)
    server.receive(1, heartbeat(1, 3, 9))
    assert age(server) is None
    server.receive(3, heartbeat(2, 3, 3))
    assert age(server) == 0


def test_a_leader_is_as_old_as_the_last_word_of_a_quorum() -> None:
    cluster = Cluster(3, now_us=1_000)
    cluster.elect(1)
    heard_us = cluster.now_us
    cluster.part({1}, {2, 3})
    cluster.now_us += MAX_TIMEOUT_US // 2
    assert cluster.node(1).stale_age_us(cluster.now_us) == cluster.now_us - heard_us


def test_a_leader_alone_is_always_current() -> None:
    server = Server(1, size=1)
    server.tick()
    assert age(server) == 0
    assert server.node.stale_age_us(server.now_us + 10**9) == 0


def test_under_steady_load_a_node_is_as_old_as_its_applying_lags_behind() -> None:
    """There is always something that it has not applied yet."""
    cluster = Cluster(3, now_us=1_000)
    cluster.elect(1)
    for i in (1, 2):
        cluster[i].applies = False
    for number in range(40):
        cluster.propose(1, b"%d" % number)
        cluster.run_for(HEARTBEAT_US // 2)
        for i in (1, 2):
            # What is applied now was handed over before this last proposal.
            cluster.run(i, lambda server: server.finish_apply() if server.applying else [])
            cluster.propose(1, b"next")
            cluster.settle()
            assert cluster.node(i).applied_index < cluster.node(i).commit_index
    for i in (1, 2):
        age_us = cluster.node(i).stale_age_us(cluster.now_us)
        assert age_us is not None
        assert age_us <= 4 * HEARTBEAT_US


def test_a_leader_that_has_not_applied_all_is_not_current() -> None:
    server = Server(1, size=1)
    server.tick()
    server.applies = False
    server.propose()
    assert age(server) is None
