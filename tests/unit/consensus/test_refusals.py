"""Who is refused, when, and with what reason; nobody is left without an answer."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Heartbeat,
    LogRead,
    Propose,
    Proposed,
    Read,
    ReadIndex,
    ReadIndexReply,
    ReadLog,
    ReadReady,
    RefusalReason,
    Refused,
    Settings,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import MIN_TIMEOUT_US, Server, entry, log_of, of, sends


def follower(*terms: int) -> Server:
    """Of the leader 2, in the term of the log's last entry."""
    log = log_of(*terms)
    server = Server(log=log)
    server.receive(2, Heartbeat(log[-1].term, 1, 1, 0))
    return server


def question(server: Server, tag: int) -> int:
    """Have a follower ask the leader for a read; the number of its question."""
    (asked,) = sends(ReadIndex, server.step(Read(tag)), to=2)
    return asked.request_id


def test_a_follower_refuses_a_proposal_and_names_the_leader() -> None:
    assert of(Refused, follower(1).step(Propose(5, 1, b"x"))) == [
        Refused(5, RefusalReason.NOT_LEADER, 2)
    ]


def test_without_a_leader_a_proposal_is_refused_so() -> None:
    assert of(Refused, Server().step(Propose(5, 1, b"x"))) == [
        Refused(5, RefusalReason.NO_LEADER, 0)
    ]


@pytest.mark.parametrize(("over", "taken"), [(0, True), (1, False)])
def test_uncommitted_bytes_may_reach_the_limit_and_not_pass_it(over: int, taken: bool) -> None:
    """The no-op and the first proposal are not committed yet when the second one comes."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, b"1234")
    waiting = cluster.node(1).state.leadership
    assert waiting is not None
    limit = waiting.uncommitted_bytes + 10
    cluster = Cluster(settings=Settings(max_uncommitted_bytes=limit))
    cluster.elect(1)
    cluster.propose(1, b"1234")
    effects = cluster.propose(1, bytes(10 + over), tag=2)
    assert bool(of(Proposed, effects)) is taken
    assert [refused.reason for refused in of(Refused, effects)] == [RefusalReason.BUSY][taken:]


def test_a_leader_that_can_not_confirm_refuses_the_followers_read() -> None:
    """An index of 0 is no index: a read answered at it would see anything."""
    server = follower(1)
    effects = server.receive(2, ReadIndexReply(1, question(server, 7), 0))
    assert not of(ReadReady, effects)
    assert of(Refused, effects) == [Refused(7, RefusalReason.NO_LEADER, 2)]


def test_a_read_that_the_leader_confirms_may_be_answered_at_its_index() -> None:
    server = follower(1)
    effects = server.receive(2, ReadIndexReply(1, question(server, 7), 1))
    assert of(ReadReady, effects) == [ReadReady(7, 1)]


def test_a_read_asked_of_a_leader_that_was_replaced_is_refused_at_once() -> None:
    """Even when the very message that tells of the new term names its leader."""
    server = follower(1)
    question(server, 7)
    effects = server.receive(3, AppendEntries(2, 1, 1, 1, 1, 0, (entry(2, 2),)))
    assert [(refused.tag, refused.reason) for refused in of(Refused, effects)] == [
        (7, RefusalReason.NO_LEADER)
    ]


def test_a_read_of_the_log_that_was_not_asked_for_is_not_sent() -> None:
    """Such as one from before the peer's place in the log was found to be another."""
    log = log_of(1, 1, 1, 1)
    cluster = Cluster(logs={1: log, 2: log, 3: log_of(1)})
    cluster.servers[1] = server = Server(1, log=log, resident_from=5, peer_names=("n1", "n2", "n3"))
    cluster.down.add(3)
    node = cluster.elect(1)
    server.reads = False
    first_probe = sends(AppendEntries, server.history, to=3)[-1]
    refusal = AppendReply(
        node.current_term, first_probe.request_id, first_probe.session, False, 0, 1, 1
    )
    effects = server.receive(3, refusal)
    assert [asked.from_index for asked in of(ReadLog, effects)] == [2]
    effects = server.step(LogRead(3, 3, tuple(log[2:])))
    assert not sends(AppendEntries, effects, to=3)
    effects = server.read_log()
    assert [m.prev_index for m in sends(AppendEntries, effects, to=3)] == [1]


def test_sessions_are_positive_numbers() -> None:
    """They go over the wire as unsigned ones."""
    cluster = Cluster()
    node = cluster.elect(1)
    assert sorted(progress.session for progress in node.progress.values()) == [1, 2]


@pytest.mark.parametrize(
    "word", [Heartbeat(1, 2, 1, 0), AppendEntries(1, 2, 1, 1, 1, 0, ())], ids=["beat", "append"]
)
def test_a_lost_question_is_asked_again_whatever_the_leader_says(
    word: Heartbeat | AppendEntries,
) -> None:
    server = follower(1)
    first = question(server, 7)
    server.now_us += MIN_TIMEOUT_US
    assert not sends(ReadIndex, server.receive(2, word))
    server.now_us += 1
    (again,) = sends(ReadIndex, server.receive(2, word))
    assert again.request_id != first
