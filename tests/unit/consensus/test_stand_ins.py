"""A learner stands in for the leader that left entries with it alone: only when somebody with a
shorter log needs its vote, and only until a voter can lead (in the spirit of §4.2.2 of the thesis).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raft_agent.consensus.membership import first_entry
from raft_agent.consensus.types import (
    AppendReply,
    Configuration,
    Effect,
    Heartbeat,
    PreVote,
    PreVoteReply,
    Removed,
    RequestVote,
    Role,
    TimeoutNow,
    Vote,
    VoteReply,
)
from tests.unit.consensus.server import MAX_TIMEOUT_US, Server, configuration_of, entry, sends

LEARNER = 4
KNOWN = Configuration("c1", configuration_of(4).members, (1, 2, 3), learners=(LEARNER,))
LOG = [first_entry(KNOWN), entry(2, 1), entry(3, 3)]
SHORTER = PreVote(4, 1, 2, 2)


def learner(*, vote: Vote | None = None) -> Server:
    """4 is a learner by its log, which ends at (term 3, index 3); nobody was heard for long."""
    server = Server(LEARNER, log=LOG, vote=vote)
    server.now_us = 10 * MAX_TIMEOUT_US
    return server


def asked() -> Server:
    """A candidate with a shorter log wants the vote of the learner."""
    server = learner()
    (reply,) = sends(PreVoteReply, server.receive(3, SHORTER))
    assert not reply.granted
    return server


def stands(effects: list[Effect]) -> bool:
    return bool(sends(PreVote, effects))


def grant_pre_votes(server: Server, effects: list[Effect], *voters: int) -> list[Effect]:
    request_id = sends(PreVote, effects)[0].request_id
    seen: list[Effect] = []
    for voter in voters:
        seen += server.receive(voter, PreVoteReply(4, request_id, granted=True))
    return seen


def elected() -> Server:
    server = asked()
    effects = grant_pre_votes(server, server.tick(), 1, 2)
    request_id = sends(RequestVote, effects)[0].request_id
    for voter in (1, 2):
        server.receive(voter, VoteReply(4, request_id, granted=True))
    return server


def test_it_asks_the_voters_of_its_own_log_when_its_timer_expires() -> None:
    server = asked()
    assert server.node.role is Role.LEARNER
    effects = server.tick()
    for voter in (1, 2, 3):
        (request,) = sends(PreVote, effects, to=voter)
        assert (request.term, request.last_index, request.last_term) == (4, 3, 3)


def test_who_has_a_log_as_good_does_not_need_it() -> None:
    server = learner()
    (reply,) = sends(PreVoteReply, server.receive(3, PreVote(4, 1, 3, 3)))
    assert reply.granted
    assert not stands(server.tick())


def test_it_stands_once_for_each_time_that_it_is_asked() -> None:
    server = asked()
    assert stands(server.tick())
    assert not stands(server.tick())
    assert server.node.role is Role.LEARNER
    server.receive(3, SHORTER)
    assert stands(server.tick())


def test_a_candidate_that_nobody_asks_again_is_a_learner_after_its_time() -> None:
    server = asked()
    grant_pre_votes(server, server.tick(), 1, 2)
    assert server.node.role is Role.CANDIDATE
    assert not stands(server.tick())
    assert server.node.role is Role.LEARNER


def test_its_own_vote_is_none() -> None:
    """Two of three voters are a majority; one and itself are not."""
    server = asked()
    effects = server.tick()
    assert not sends(RequestVote, grant_pre_votes(server, effects, 1))
    effects = grant_pre_votes(server, effects, 2)
    request_id = sends(RequestVote, effects)[0].request_id
    assert server.node.voted_for == LEARNER
    server.receive(1, VoteReply(4, request_id, granted=True))
    assert server.node.role is Role.CANDIDATE
    server.receive(2, VoteReply(4, request_id, granted=True))
    assert server.node.role is Role.LEADER


def test_while_a_leader_may_live_it_does_not_take_the_question_for_one() -> None:
    server = learner()
    server.receive(1, Heartbeat(3, 1, 1, 0, 0))
    server.receive(3, SHORTER)
    assert not stands(server.tick())


def test_a_leader_that_comes_makes_the_question_void() -> None:
    server = asked()
    server.receive(1, Heartbeat(4, 1, 1, 0, 0))
    assert not stands(server.tick())


def damaged() -> Server:
    server = learner(vote=Vote(3, 0, floor_term=3, floor_index=9))
    server.receive(3, SHORTER)
    return server


def removed() -> Server:
    server = asked()
    server.receive(1, Removed(4, 1))
    return server


def no_member() -> Server:
    """By its log it is none, so nobody can have counted on what it holds."""
    server = Server(9, log=LOG)
    server.now_us = 10 * MAX_TIMEOUT_US
    server.receive(3, SHORTER)
    return server


@pytest.mark.parametrize("unfit", [damaged, removed, no_member])
def test_who_may_not_lead_does_not_stand_in(unfit: Callable[[], Server]) -> None:
    server = unfit()
    assert not stands(server.tick())
    assert server.node.role is Role.LEARNER


def test_it_hands_over_once_it_has_committed_and_is_a_learner_again() -> None:
    server = elected()
    session = {peer: progress.session for peer, progress in server.node.progress.items()}
    last_index = server.node.log.last_index
    effects = server.receive(1, AppendReply(4, 1, session[1], True, last_index, 0, 0))
    assert server.node.role is Role.LEADER
    assert not sends(TimeoutNow, effects)
    effects = server.receive(2, AppendReply(4, 1, session[2], True, last_index, 0, 0))
    assert server.node.commit_index == last_index
    assert len(sends(TimeoutNow, effects)) == len(sends(TimeoutNow, effects, to=2)) == 1
    assert server.node.role is Role.LEARNER


def test_what_it_holds_itself_counts_for_no_commit() -> None:
    server = elected()
    session = server.node.progress[1].session
    server.receive(1, AppendReply(4, 1, session, True, server.node.log.last_index, 0, 0))
    assert server.node.commit_index == 0
