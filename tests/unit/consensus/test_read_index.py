"""Linearizable reads without a log entry (§6.4 of the thesis, §8 of the paper)."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    AppendEntries,
    Heartbeat,
    HeartbeatReply,
    Read,
    ReadIndex,
    ReadIndexReply,
    ReadReady,
    RefusalReason,
    Refused,
    Role,
    StorageFailed,
)
from tests.unit.consensus.harness import Cluster, Packet, led
from tests.unit.consensus.server import (
    HEARTBEAT_US,
    MAX_TIMEOUT_US,
    MIN_TIMEOUT_US,
    Server,
    log_of,
    of,
    sends,
)


def ready(cluster: Cluster, member_id: int) -> list[tuple[int, int]]:
    return [(read.tag, read.index) for read in of(ReadReady, cluster[member_id].history)]


def refused(cluster: Cluster, member_id: int) -> list[int]:
    return [answer.tag for answer in of(Refused, cluster[member_id].history)]


def is_question(packet: Packet) -> bool:
    return isinstance(packet.message, ReadIndex)


def is_answer(packet: Packet) -> bool:
    return isinstance(packet.message, ReadIndexReply)


# --- the leader


def test_the_leader_answers_after_one_round_of_heartbeats_from_a_majority() -> None:
    cluster = led(5)
    cluster.step(1, Read(7))
    assert ready(cluster, 1) == []
    cluster.deliver(lambda packet: packet.to in (2, 3))
    cluster.deliver(lambda packet: packet.sender == 2)
    assert ready(cluster, 1) == []
    cluster.deliver(lambda packet: packet.sender == 3)
    assert ready(cluster, 1) == [(7, 2)]


def test_the_index_is_the_commit_index_at_the_start_of_the_round() -> None:
    cluster = led()
    for number in range(3):
        cluster.propose(1, b"%d" % number)
    cluster.settle()
    cluster.step(1, Read(7))
    cluster.settle()
    assert ready(cluster, 1) == [(7, 5)]


def test_a_leader_waits_for_its_no_op_to_be_committed() -> None:
    """§8: before that it does not know what the terms before have committed."""
    cluster = Cluster(logs={i: log_of(1, 1, 1) for i in (1, 2, 3)})
    cluster.time_out(1)
    cluster.settle(lambda packet: not isinstance(packet.message, AppendEntries))
    assert cluster.node(1).role is Role.LEADER
    cluster.step(1, Read(7))
    cluster.settle(lambda packet: not isinstance(packet.message, AppendEntries))
    cluster[1].now_us = cluster.now_us + HEARTBEAT_US
    assert ready(cluster, 1) == []
    cluster.settle()
    assert ready(cluster, 1) == [(7, 4)]


def test_replies_to_heartbeats_from_before_the_read_prove_nothing() -> None:
    cluster = led()
    cluster.now_us += HEARTBEAT_US
    cluster.run(1, lambda server: server.tick())
    cluster.deliver()
    early = cluster.drop()
    assert [type(packet.message) for packet in early] == [HeartbeatReply] * 2
    cluster.step(1, Read(7))
    cluster.drop()
    cluster.wire += early
    cluster.settle()
    assert ready(cluster, 1) == []


def test_reads_that_come_while_a_round_is_out_wait_for_the_next() -> None:
    cluster = led()
    cluster.step(1, Read(1))
    rounds = len(sends(Heartbeat, cluster[1].history, to=2))
    for tag in (2, 3, 4):
        assert not sends(Heartbeat, cluster.step(1, Read(tag)))
    cluster.deliver(lambda packet: packet.to == 2)
    cluster.deliver(lambda packet: packet.sender == 2)
    assert ready(cluster, 1) == [(1, 2)]
    cluster.settle()
    assert ready(cluster, 1) == [(1, 2), (2, 2), (3, 2), (4, 2)]
    asking = [m for m in sends(Heartbeat, cluster[1].history, to=2)[rounds:] if m.request_id]
    assert len(asking) == 1


def test_a_lost_round_is_made_up_for_by_the_next_heartbeat() -> None:
    cluster = led()
    cluster.step(1, Read(7))
    cluster.drop()
    cluster.run_for(2 * HEARTBEAT_US)
    assert ready(cluster, 1) == [(7, 2)]


def test_a_reconnect_in_the_middle_of_a_round_does_not_lose_the_read() -> None:
    cluster = led()
    cluster.step(1, Read(7))
    cluster.drop()
    cluster.connect(1, 2)
    cluster.connect(1, 3)
    cluster.run_for(2 * HEARTBEAT_US)
    assert ready(cluster, 1) == [(7, 2)]


def test_a_leader_of_one_answers_at_once() -> None:
    cluster = led(1)
    assert of(ReadReady, cluster.step(1, Read(7))) == [ReadReady(7, 2)]


def test_a_minority_leader_never_answers() -> None:
    """The majority may have another leader by now, and writes that this one does not know."""
    cluster = led(5)
    cluster.part([1, 2], [3, 4, 5])
    cluster.step(1, Read(7))
    cluster.run_for(10 * MAX_TIMEOUT_US)
    assert ready(cluster, 1) == []
    assert refused(cluster, 1) == [7]
    assert cluster.leaders[0] in (3, 4, 5)


def test_a_deposed_leader_refuses_what_waits() -> None:
    cluster = led()
    cluster.step(1, Read(7))
    cluster.drop()
    cluster.step(1, Read(8))
    effects = cluster.run(1, lambda server: server.receive(2, Heartbeat(9, 1, 1, 0)))
    assert {(r.tag, r.reason) for r in of(Refused, effects)} == {
        (7, RefusalReason.NOT_LEADER),
        (8, RefusalReason.NOT_LEADER),
    }


# --- followers


def test_a_follower_reads_by_asking_the_leader() -> None:
    cluster = led()
    cluster.propose(1)
    cluster.settle()
    cluster.step(2, Read(7))
    cluster.settle()
    assert ready(cluster, 2) == [(7, 3)]


def test_a_follower_read_sees_a_write_that_was_acknowledged_before_it() -> None:
    """Though the follower has not heard of the write itself."""
    cluster = led()
    cluster.cut = {(1, 2)}
    cluster.propose(1)
    cluster.settle()
    assert cluster.node(1).commit_index == 3
    cluster.heal()
    cluster.step(2, Read(7))
    cluster.settle()
    assert ready(cluster, 2) == [(7, 3)]


def test_one_question_is_out_at_a_time_and_later_reads_wait_for_the_next() -> None:
    cluster = led()
    for tag in (1, 2, 3):
        cluster.step(2, Read(tag))
    assert len([packet for packet in cluster.wire if is_question(packet)]) == 1
    cluster.settle()
    assert ready(cluster, 2) == [(1, 2), (2, 2), (3, 2)]
    assert len(sends(ReadIndex, cluster[2].history)) == 2


@pytest.mark.parametrize("lost", [is_question, is_answer], ids=["question", "answer"])
def test_a_lost_question_or_answer_is_asked_again(lost: object) -> None:
    cluster = led()
    cluster.step(2, Read(7))
    cluster.settle(lambda packet: not lost(packet))  # type: ignore[operator]
    assert cluster.drop(lost)  # type: ignore[arg-type]
    cluster.run_for(MIN_TIMEOUT_US + 2 * HEARTBEAT_US)
    assert ready(cluster, 2) == [(7, 2)]


def test_an_answer_to_an_earlier_question_does_not_answer_a_later_one() -> None:
    cluster = led()
    cluster.step(2, Read(1))
    cluster.settle(lambda packet: not is_answer(packet))
    (early,) = cluster.drop(is_answer)
    cluster.wire.append(early)
    cluster.settle()
    cluster.propose(1)
    cluster.settle()
    cluster.step(2, Read(2))
    cluster.run(2, lambda server: server.receive(1, early.message))
    assert ready(cluster, 2) == [(1, 2)]
    cluster.settle()
    assert ready(cluster, 2) == [(1, 2), (2, 3)]


def test_without_a_known_leader_a_read_is_refused() -> None:
    server = Server(1)
    assert of(Refused, server.step(Read(7))) == [Refused(7, RefusalReason.NO_LEADER, 0)]


def test_a_change_of_leadership_refuses_what_a_follower_asked() -> None:
    cluster = led()
    cluster.step(2, Read(7))
    cluster.drop()
    cluster.elect(3)
    assert ready(cluster, 2) == []
    assert refused(cluster, 2) == [7]


def test_a_follower_that_loses_its_leader_refuses_what_waits() -> None:
    cluster = led()
    cluster.part([1], [2], [3])
    cluster.step(2, Read(7))
    cluster.step(2, Read(8))
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert sorted(refused(cluster, 2)) == [7, 8]


def test_a_follower_that_becomes_leader_itself_refuses_what_it_had_asked() -> None:
    cluster = led()
    cluster.step(2, Read(7))
    cluster.drop()
    cluster.elect(2)
    assert refused(cluster, 2) == [7]


def test_a_deposed_leader_tells_its_followers_that_it_can_not_confirm() -> None:
    cluster = led()
    cluster.step(2, Read(7))
    cluster.deliver(is_question)
    cluster.drop()
    effects = cluster.run(1, lambda server: server.receive(3, HeartbeatReply(9, 1, 1, 0)))
    assert [m.index for m in sends(ReadIndexReply, effects, to=2)] == [0]


def test_a_node_that_does_not_lead_answers_a_question_with_no_index() -> None:
    cluster = led()
    effects = cluster[2].receive(3, ReadIndex(2, 5, False))
    assert sends(ReadIndexReply, effects, to=3) == [ReadIndexReply(2, 5, 0)]


def test_a_failed_disk_refuses_reads_that_wait_and_new_ones() -> None:
    cluster = led()
    cluster.step(2, Read(7))
    effects = cluster.step(2, StorageFailed("gone"))
    assert [(r.tag, r.reason) for r in of(Refused, effects)] == [(7, RefusalReason.NO_LEADER)]
    effects = cluster.step(2, Read(8))
    assert of(Refused, effects) == [Refused(8, RefusalReason.STORAGE_FAILED, 0)]


def test_a_read_from_before_a_restart_is_not_answered_after_it() -> None:
    """Request ids begin anywhere after each start, so an old answer fits no new question."""
    cluster = led()
    cluster.step(2, Read(7))
    cluster.settle(lambda packet: not is_answer(packet))
    (old,) = cluster.drop(is_answer)
    cluster.restart(2)
    cluster.run_for(2 * HEARTBEAT_US)
    cluster.step(2, Read(7))
    cluster.drop(is_question)
    cluster.wire.append(old)
    cluster.settle()
    assert ready(cluster, 2) == []
