"""What a node does while it stands for election, and what it keeps from one ballot to the next."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Heartbeat,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    Refused,
    RequestVote,
    Role,
    TimeoutNow,
    VotePersisted,
    VoteReply,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import MIN_TIMEOUT_US, Server, of, sends


def pre_candidate(size: int = 3) -> tuple[Server, int]:
    """A server that has just asked for pre-votes, and the number of its question."""
    server = Server(size=size)
    (request, *_) = sends(PreVote, server.tick())
    return server, request.request_id


def candidate(size: int = 3) -> tuple[Server, int]:
    server, ballot = pre_candidate(size)
    request: RequestVote | None = None
    for voter in range(2, size + 1):
        effects = server.receive(voter, PreVoteReply(2, ballot, True))
        request = next(iter(sends(RequestVote, effects)), request)
    assert request is not None
    assert server.node.role is Role.CANDIDATE
    return server, request.request_id


def test_refusals_of_an_earlier_ballot_are_forgotten() -> None:
    server, ballot = pre_candidate()
    server.receive(2, PreVoteReply(1, ballot, False))
    (request, *_) = sends(PreVote, server.tick())
    server.receive(3, PreVoteReply(1, request.request_id, False))
    assert server.node.role is Role.PRE_CANDIDATE
    server.receive(2, PreVoteReply(2, request.request_id, True))
    assert server.node.role is Role.CANDIDATE


def test_grants_of_an_earlier_ballot_are_forgotten() -> None:
    server, ballot = pre_candidate(5)
    server.receive(2, PreVoteReply(2, ballot, True))
    (request, *_) = sends(PreVote, server.tick())
    server.receive(3, PreVoteReply(2, request.request_id, True))
    assert server.node.role is Role.PRE_CANDIDATE


def test_an_election_of_the_own_accord_does_not_claim_to_be_a_transfer() -> None:
    """Voters that hear a leader would give it the vote."""
    server, ballot = pre_candidate()
    requests = sends(RequestVote, server.receive(2, PreVoteReply(2, ballot, True)))
    assert [request.transfer for request in requests] == [False, False]


def test_a_candidate_has_a_whole_timeout_from_when_it_stood() -> None:
    """However late the pre-votes came."""
    server, ballot = pre_candidate()
    due = server.node.next_deadline_us
    assert due is not None
    server.now_us = due - 1
    server.receive(2, PreVoteReply(2, ballot, True))
    assert server.node.role is Role.CANDIDATE
    now_due = server.node.next_deadline_us
    assert now_due is not None
    assert now_due >= server.now_us + MIN_TIMEOUT_US


def test_a_candidate_knows_no_leader() -> None:
    """Not even the one that handed over to it: it does not lead in this term."""
    server = Server()
    server.receive(2, Heartbeat(1, 1, 1, 0))
    assert server.node.leader_id == 2
    server.receive(2, TimeoutNow(1, 2))
    assert server.node.role is Role.CANDIDATE
    assert server.node.leader_id == 0


def test_a_candidate_that_lost_stays_one_until_its_timer_fires() -> None:
    server, ballot = candidate()
    assert server.node.state.fruitless_elections == 1
    for voter in (2, 3):
        server.receive(voter, VoteReply(2, ballot, False))
    assert server.node.role is Role.CANDIDATE
    server.tick()
    assert server.node.role is Role.PRE_CANDIDATE
    assert server.node.current_term == 2


def test_an_earlier_save_on_disk_is_not_yet_the_own_vote() -> None:
    """A server of one would lead by a vote that it could forget and give to somebody else."""
    server = Server(size=1)
    server.saves = False
    server.receive(9, AppendReply(5, 1, 1, True, 0, 0, 0))
    earlier = server.node.state.vote_seq
    server.receive(9, TimeoutNow(5, 2))
    assert server.node.role is Role.CANDIDATE
    server.step(VotePersisted(earlier))
    assert server.node.role is Role.CANDIDATE
    server.step(VotePersisted(server.node.state.vote_seq))
    assert server.node.role is Role.LEADER


@pytest.mark.parametrize("role", [Role.PRE_CANDIDATE, Role.LEADER])
def test_only_a_follower_stands_when_it_is_told_to(role: Role) -> None:
    """Whoever else hears of a hand-over in its own term has doubts of its own, or leads."""
    cluster = Cluster()
    node = cluster.elect(1)
    if role is Role.PRE_CANDIDATE:
        server, _ = pre_candidate()
        node = server.node
        server.receive(2, TimeoutNow(1, 2))
    else:
        cluster[1].receive(2, TimeoutNow(node.current_term, 2))
    assert node.role is role


def test_a_candidate_follows_whoever_won_its_term() -> None:
    server, _ = candidate()
    server.receive(3, AppendEntries(2, 1, 1, 1, 1, 0, ()))
    assert server.node.role is Role.FOLLOWER
    assert server.node.leader_id == 3


def test_a_deposed_leader_refuses_no_tag_for_a_followers_question() -> None:
    """The number of a follower's question is none of this node's tags."""
    cluster = Cluster()
    node = cluster.elect(1)
    effects = cluster[1].receive(2, ReadIndex(node.current_term, 77, False))
    effects += cluster[1].receive(3, Heartbeat(9, 1, 1, 0))
    assert not of(Refused, effects)
    assert [m.request_id for m in sends(ReadIndexReply, effects, to=2)] == [77]


def test_no_ballot_is_opened_while_a_vote_is_being_written() -> None:
    """It would only queue behind that one; the timer runs anew."""
    server = Server()
    server.saves = False
    server.receive(9, AppendReply(5, 1, 1, True, 0, 0, 0))
    effects = server.tick()
    assert not sends(PreVote, effects)
    assert server.node.role is Role.FOLLOWER
    due_us = server.node.next_deadline_us
    assert due_us is not None
    assert due_us >= server.now_us + MIN_TIMEOUT_US
    server.save_vote()
    assert sends(PreVote, server.tick())


def test_the_time_for_an_answer_runs_from_when_the_question_could_leave() -> None:
    server, ballot = pre_candidate()
    server.saves = False
    server.receive(2, PreVoteReply(2, ballot, True))
    assert server.node.role is Role.CANDIDATE
    due_us = server.node.next_deadline_us
    assert due_us is not None
    server.now_us = due_us - 1
    server.save_vote()
    later_us = server.node.next_deadline_us
    assert later_us is not None
    assert later_us >= server.now_us + MIN_TIMEOUT_US


@pytest.mark.parametrize("leader_known", [True, False])
def test_an_old_write_of_a_vote_or_one_under_a_leader_moves_no_timer(leader_known: bool) -> None:
    server = Server()
    server.saves = False
    server.receive(9, AppendReply(5, 1, 1, True, 0, 0, 0))
    if leader_known:
        server.receive(2, Heartbeat(5, 1, 1, 0))
    else:
        server.receive(9, AppendReply(6, 1, 1, True, 0, 0, 0))
    due_us = server.node.next_deadline_us
    server.now_us += 1000
    server.step(VotePersisted(1))
    assert server.node.next_deadline_us == due_us
