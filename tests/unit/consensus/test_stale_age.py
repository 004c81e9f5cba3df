"""How old the answer to a stale read may be: never younger than it says."""

from __future__ import annotations

from raft_agent.consensus.types import AppendReply, Heartbeat, HeartbeatReply, Role
from tests.unit.consensus.harness import Cluster, Packet
from tests.unit.consensus.server import HEARTBEAT_US, MIN_TIMEOUT_US, Server, log_of, sends


def is_append_reply(packet: Packet) -> bool:
    return isinstance(packet.message, AppendReply)


def heartbeat(
    term: int, commit: int, as_of_us: int, as_of_index: int, request_id: int = 1
) -> Heartbeat:
    return Heartbeat(term, request_id, 1, commit, as_of_us, as_of_index)


def age(server: Server) -> int | None:
    return server.node.stale_age_us(server.now_us)


def follower() -> Server:
    """Its clock shows 1070, and it began at 1000."""
    server = Server(2, log=log_of(1, 1, 1), now_us=1_000)
    server.now_us += 70
    return server


def test_nothing_is_said_of_the_age_before_a_stamp_has_come_back() -> None:
    server = follower()
    assert age(server) is None
    server.receive(1, heartbeat(1, 3, 0, 0))
    assert age(server) is None


def test_a_follower_tells_its_clock_in_each_reply() -> None:
    server = follower()
    for number in range(2, 5):
        server.now_us += 10
        (reply,) = sends(HeartbeatReply, server.receive(1, heartbeat(1, 3, 0, 0, number)))
        assert reply.stamp_us == server.now_us


def test_a_follower_that_has_applied_all_is_as_old_as_its_stamp_that_came_back() -> None:
    server = follower()
    server.receive(1, heartbeat(1, 3, 1_010, 3))
    assert age(server) == 60
    server.now_us += 70
    assert age(server) == 130


def test_words_that_lay_in_a_socket_make_nobody_younger() -> None:
    """A process that was stopped reads them long after they were said."""
    server = follower()
    server.receive(1, heartbeat(1, 3, 1_010, 3))
    server.now_us += 2_000_000
    server.receive(1, heartbeat(1, 3, 1_060, 3))
    assert age(server) == 2_000_010


def test_a_late_word_from_before_makes_nobody_older() -> None:
    server = follower()
    server.receive(1, heartbeat(1, 3, 1_060, 3))
    server.receive(1, heartbeat(1, 3, 1_010, 3))
    assert age(server) == 10


def test_stamps_from_before_the_start_and_from_a_time_to_come_count_nothing() -> None:
    """The machine has restarted in between, and its clock with it."""
    server = follower()
    server.receive(1, heartbeat(1, 3, 999, 3))
    server.receive(1, heartbeat(1, 3, 1_071, 3))
    assert age(server) is None


def test_a_follower_that_has_not_applied_all_grows_older_while_it_hears_its_leader() -> None:
    server = follower()
    server.receive(1, heartbeat(1, 3, 1_010, 3))
    server.receive(1, heartbeat(1, 3, 1_060, 4))
    assert age(server) == 60


def test_a_follower_is_as_old_as_the_stamp_that_it_has_caught_up_with() -> None:
    server = follower()
    server.applies = False
    server.receive(1, heartbeat(1, 3, 1_010, 3))
    server.now_us += 70
    assert age(server) is None
    server.finish_apply()
    assert age(server) == 130


def echoes(cluster: Cluster) -> list[tuple[int, int]]:
    """What is on its way back to the second server: (stamp, index)."""
    return [
        (packet.message.as_of_us, packet.message.as_of_index)
        for packet in cluster.wire
        if packet.to == 2 and isinstance(packet.message, Heartbeat)
    ]


def beat(cluster: Cluster, *deaf: int) -> None:
    """A heartbeat later, in which nobody hears these servers."""
    cluster.now_us += HEARTBEAT_US
    cluster.run(1, lambda server: server.tick())
    cluster.settle(lambda packet: packet.sender not in deaf)


def test_a_stamp_goes_back_once_a_later_round_has_reached_a_quorum() -> None:
    cluster = Cluster(3, now_us=1_000)
    cluster.elect(1)
    beat(cluster)
    stamped_us = cluster.now_us
    beat(cluster, 2, 3)  # the round that began behind the stamp is not answered
    cluster.drop()
    cluster.now_us += HEARTBEAT_US
    cluster.run(1, lambda server: server.tick())
    assert all(stamp_us < stamped_us for stamp_us, _ in echoes(cluster))
    cluster.settle()
    cluster.now_us += HEARTBEAT_US
    cluster.run(1, lambda server: server.tick())
    assert echoes(cluster) == [(stamped_us, cluster.node(1).commit_index)]


def test_a_stamp_from_before_a_new_connection_does_not_go_back() -> None:
    cluster = Cluster(3, now_us=1_000)
    cluster.elect(1)
    beat(cluster)
    cluster.now_us += HEARTBEAT_US
    cluster.run(1, lambda server: server.tick())
    cluster.drop(lambda packet: packet.to == 2)
    cluster.connect(1, 2)
    cluster.settle(lambda packet: packet.sender != 2)
    cluster.drop()
    cluster.now_us += HEARTBEAT_US
    cluster.run(1, lambda server: server.tick())
    assert echoes(cluster) == [(0, 0)]


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
    cluster.run_for(3 * HEARTBEAT_US)
    assert cluster.node(2).stale_age_us(cluster.now_us) in range(3 * HEARTBEAT_US + 1)


def test_a_leader_is_current_while_it_has_its_lease() -> None:
    cluster = Cluster(3, now_us=1_000)
    cluster.elect(1)
    beat(cluster)
    cluster.now_us += MIN_TIMEOUT_US // 2
    assert cluster.node(1).stale_age_us(cluster.now_us) == 0


def test_a_leader_without_a_lease_is_as_old_as_the_last_round_that_a_quorum_answered() -> None:
    cluster = Cluster(3, now_us=1_000)
    cluster.elect(1)
    beat(cluster)
    round_us = cluster.now_us
    cluster.part({1}, {2, 3})
    beat(cluster)
    cluster.now_us = round_us + MIN_TIMEOUT_US + 1
    assert cluster.node(1).stale_age_us(cluster.now_us) == MIN_TIMEOUT_US + 1


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
