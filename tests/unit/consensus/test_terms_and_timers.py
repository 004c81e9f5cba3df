"""Terms, votes, cuts and timers at the edges where one step more or less is wrong."""

from __future__ import annotations

import pytest

from raft_agent.consensus.invariants import BrokenInvariantError
from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    LogPersisted,
    PreVoteReply,
    RefusalReason,
    Refused,
    RequestVote,
    Role,
    RoleChanged,
    TimeoutNow,
    TimerExpired,
    TransferDone,
    TransferLeadership,
    VoteReply,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import (
    MAX_TIMEOUT_US,
    MIN_TIMEOUT_US,
    Server,
    entry,
    log_of,
    of,
    sends,
)


@pytest.mark.parametrize(("term", "candidate"), [(4, 2), (5, 3)], ids=["fallen", "second vote"])
def test_a_term_that_falls_and_a_second_vote_stop_the_node(term: int, candidate: int) -> None:
    state = Server().node.state
    state.save_vote(5, 2)
    with pytest.raises(BrokenInvariantError, match="votes once in a term, and terms never fall"):
        state.save_vote(term, candidate)


def test_a_term_that_falls_stops_a_node_that_has_not_voted_too() -> None:
    state = Server().node.state
    state.save_vote(5, 0)
    with pytest.raises(BrokenInvariantError, match="terms never fall"):
        state.save_vote(4, 0)


def test_a_vote_in_the_term_that_is_known_already_is_allowed_once() -> None:
    state = Server().node.state
    state.save_vote(5, 0)
    state.save_vote(5, 2)
    assert (state.current_term, state.voted_for) == (5, 2)
    state.save_vote(6, 3)
    assert (state.current_term, state.voted_for) == (6, 3)


@pytest.mark.parametrize("from_index", [2, 3])
def test_a_leader_that_would_cut_what_is_committed_stops_the_node(from_index: int) -> None:
    server = Server(log=log_of(1, 1, 1, 1))
    server.receive(2, Heartbeat(1, 1, 1, 3))
    request = AppendEntries(2, 1, 1, from_index - 1, 1, 0, (entry(from_index, 2),))
    with pytest.raises(BrokenInvariantError, match="a committed entry is never cut"):
        server.receive(3, request)


def test_what_is_behind_the_commit_may_be_cut() -> None:
    server = Server(log=log_of(1, 1, 1, 1))
    server.receive(2, Heartbeat(1, 1, 1, 3))
    server.receive(3, AppendEntries(2, 1, 1, 3, 1, 0, (entry(4, 2),)))
    assert server.node.log.term_at(4) == 2


def test_a_write_from_before_a_cut_counts_up_to_the_cut() -> None:
    server = Server(log=log_of(1))
    server.writes = False
    server.receive(2, AppendEntries(1, 1, 1, 1, 1, 0, (entry(2, 1), entry(3, 1), entry(4, 1))))
    server.receive(3, AppendEntries(2, 1, 1, 3, 1, 0, (entry(4, 2),)))
    server.step(LogPersisted(1))
    assert server.node.state.persisted_index == 3
    server.step(LogPersisted(2))
    assert server.node.state.persisted_index == 4


def test_what_is_on_disk_before_a_cut_stays_there() -> None:
    server = Server(log=log_of(1, 1, 1, 1))
    server.writes = False
    server.receive(3, AppendEntries(2, 1, 1, 3, 1, 0, (entry(4, 2),)))
    assert server.node.state.persisted_index == 3


def test_every_change_of_role_term_and_leader_is_told_once() -> None:
    server = Server()
    assert of(RoleChanged, server.receive(2, Heartbeat(3, 1, 1, 0))) == [
        RoleChanged(Role.FOLLOWER, 3, 2)
    ]
    assert not of(RoleChanged, server.receive(2, Heartbeat(3, 2, 1, 0)))
    server.now_us += 2 * MAX_TIMEOUT_US
    assert of(RoleChanged, server.step(TimerExpired())) == [RoleChanged(Role.PRE_CANDIDATE, 3, 0)]


def test_a_leader_that_steps_down_gives_others_a_whole_timeout() -> None:
    cluster = Cluster()
    node = cluster.elect(1)
    server = cluster[1]
    for _ in range(20):
        server.now_us += 20_000
        for peer in (2, 3):
            session = node.progress[peer].session
            server.receive(peer, HeartbeatReply(node.current_term, 1, session, 0))
    server.receive(2, HeartbeatReply(9, 1, 1, 0))
    assert node.role is Role.FOLLOWER
    due_us = node.next_deadline_us
    assert due_us is not None
    assert due_us >= server.now_us + MIN_TIMEOUT_US


def test_a_word_given_to_a_leader_holds_when_its_term_is_over() -> None:
    """Its lease counts on it: it does not know yet that it leads no more."""
    server = Server(now_us=0)
    server.now_us = 10 * MAX_TIMEOUT_US
    server.receive(2, Heartbeat(1, 1, 1, 0))
    server.receive(3, AppendReply(5, 1, 1, True, 0, 0, 0))
    assert server.node.leader_id == 0
    server.now_us += MIN_TIMEOUT_US - 1
    (reply,) = sends(VoteReply, server.receive(3, RequestVote(6, 7, 1, 1, False)))
    assert not reply.granted
    server.now_us += 1
    (reply,) = sends(VoteReply, server.receive(3, RequestVote(6, 8, 1, 1, False)))
    assert reply.granted


def test_a_hand_over_ends_at_its_deadline_and_not_before() -> None:
    cluster = Cluster()
    node = cluster.elect(1)
    server = cluster[1]
    server.step(TransferLeadership(5, 2))
    leadership = node.state.leadership
    assert leadership is not None
    assert leadership.transfer is not None
    deadline_us = leadership.transfer.deadline_us
    for peer in (2, 3):
        node.progress[peer].last_contact_us = deadline_us
    server.now_us = deadline_us - 1
    assert not of(Refused, server.step(TimerExpired()))
    leadership.heartbeat_due_us = deadline_us
    server.now_us = deadline_us
    assert of(Refused, server.step(TimerExpired())) == [Refused(5, RefusalReason.TIMED_OUT, 0)]
    assert leadership.transfer is None


def test_a_hand_over_that_comes_back_has_moved_nothing() -> None:
    """Its target won, and told this node to stand before anything else of it arrived."""
    cluster = Cluster()
    node = cluster.elect(1)
    server = cluster[1]
    server.step(TransferLeadership(5, 2))
    server.receive(2, RequestVote(3, 7, 2, 2, True))
    effects = server.receive(2, TimeoutNow(3, 8))
    (request, *_) = sends(RequestVote, effects)
    effects = server.receive(3, VoteReply(4, request.request_id, True))
    assert node.role is Role.LEADER
    assert not of(TransferDone, effects)
    assert [(refused.tag, refused.reason) for refused in of(Refused, effects)] == [
        (5, RefusalReason.TIMED_OUT)
    ]


def test_a_late_grant_of_a_pre_vote_changes_nothing_for_a_leader() -> None:
    cluster = Cluster()
    node = cluster.elect(1)
    cluster[1].receive(3, PreVoteReply(3, node.state.next_request_id(), True))
    assert node.role is Role.LEADER
    assert node.current_term == 2
