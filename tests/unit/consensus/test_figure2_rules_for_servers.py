"""Figure 2, box "Rules for Servers": all servers, followers, candidates."""

from __future__ import annotations

import pytest

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Apply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndex,
    RequestVote,
    Role,
    SaveVote,
    TimeoutNow,
    VoteReply,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import Server, entry, log_of, of, sends


def indexes(batches: tuple[Batch, ...]) -> list[int]:
    return [batch.first_index for batch in batches]


# --- all servers


def test_if_commit_index_exceeds_last_applied_apply_in_log_order() -> None:
    """All servers, §5.3: nothing beyond commitIndex, nothing twice, one portion at a time."""
    server = Server(1, log=log_of(1, 1, 1, 1))
    server.applies = False
    (apply,) = of(Apply, server.receive(2, Heartbeat(1, 1, 1, 2)))
    assert indexes(apply.batches) == [1, 2]
    assert not of(Apply, server.receive(2, Heartbeat(1, 2, 1, 4)))
    assert server.node.applied_index == 0
    (apply,) = of(Apply, server.finish_apply())
    assert server.node.applied_index == 2
    assert indexes(apply.batches) == [3, 4]
    assert not of(Apply, server.finish_apply())
    assert server.node.applied_index == 4


LATER: list[Message] = [
    AppendEntries(7, 1, 1, 0, 0, 0, ()),
    AppendReply(7, 1, 1, True, 1, 0, 0),
    Heartbeat(7, 1, 1, 0),
    HeartbeatReply(7, 1, 1, 0),
    RequestVote(7, 1, 9, 6, False),
    RequestVote(7, 1, 9, 6, True),
    VoteReply(7, 1, False),
    PreVoteReply(7, 1, False),
    ReadIndex(7, 1, False),
]


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE])
@pytest.mark.parametrize("message", LATER, ids=lambda message: type(message).__name__)
def test_a_later_term_in_request_or_response_sets_the_term_and_converts_to_follower(
    role: Role, message: Message
) -> None:
    """All servers, §5.1."""
    server = _server_in(role)
    server.receive(2, message)
    assert server.node.current_term == 7
    assert server.node.role is Role.FOLLOWER
    assert server.disk_vote.term == 7


@pytest.mark.parametrize(
    "message", [m for m in LATER if m != LATER[4]], ids=lambda message: type(message).__name__
)
def test_a_leader_that_hears_of_a_later_term_converts_to_follower(message: Message) -> None:
    """All servers, §5.1; a plain request for votes is the exception, see test_stickiness."""
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster[1].receive(2, message)
    assert leader.role is Role.FOLLOWER
    assert leader.current_term == 7
    assert leader.progress == {}


def _server_in(role: Role) -> Server:
    server = Server(1)
    server.now_us = 1_000_000
    if role is not Role.FOLLOWER:
        server.tick()
    if role is Role.CANDIDATE:
        _grant_pre_vote(server, 2)
    assert server.node.role is role
    return server


def _grant_pre_vote(server: Server, sender: int) -> None:
    asked = [send.message for send in server.outbox if isinstance(send.message, PreVote)][-1]
    server.receive(sender, PreVoteReply(asked.term, asked.request_id, True))


def test_the_term_of_a_pre_vote_is_no_term_to_convert_for() -> None:
    """§9.6 of the thesis: it is one to come; asking for it changes nothing anywhere."""
    server = _server_in(Role.CANDIDATE)
    effects = server.receive(2, PreVote(9, 1, 1, 1))
    assert sends(PreVoteReply, effects)[0].granted
    assert server.node.role is Role.CANDIDATE
    assert not of(SaveVote, effects)


# --- followers


def test_followers_respond_to_rpcs_from_candidates_and_leaders() -> None:
    """Followers, §5.2."""
    server = Server(1)
    server.now_us = 1_000_000
    assert sends(VoteReply, server.receive(2, RequestVote(2, 1, 1, 1, False)), to=2)
    assert sends(HeartbeatReply, server.receive(2, Heartbeat(2, 2, 1, 0)), to=2)
    assert sends(AppendReply, server.receive(2, AppendEntries(2, 3, 1, 1, 1, 0, ())), to=2)


def test_a_follower_that_hears_from_nobody_converts_to_candidate() -> None:
    """Followers, §5.2, by way of a pre-vote; not before its timeout."""
    server = Server(1)
    deadline = server.node.next_deadline_us
    assert deadline is not None
    assert 150_000 <= deadline <= 300_000
    server.tick()
    assert server.node.role is Role.PRE_CANDIDATE
    _grant_pre_vote(server, 3)
    assert server.node.role is Role.CANDIDATE


@pytest.mark.parametrize(
    "message",
    [Heartbeat(1, 1, 1, 0), AppendEntries(1, 1, 1, 1, 1, 0, ()), RequestVote(2, 1, 1, 1, False)],
    ids=["heartbeat", "entries", "vote granted"],
)
def test_the_election_timer_starts_again_with_the_leader_or_a_granted_vote(
    message: Message,
) -> None:
    """Followers, §5.2."""
    server = Server(1)
    server.now_us = 149_999 if not isinstance(message, RequestVote) else 150_001
    server.receive(2, message)
    deadline = server.node.next_deadline_us
    assert deadline is not None
    assert server.now_us + 150_000 <= deadline <= server.now_us + 300_000


def test_election_timeouts_are_spread_over_the_whole_interval() -> None:
    """§5.2: randomized between minimum and maximum, anew each time."""
    server = Server(1)
    waits = set()
    for now_us in range(0, 100_000_000, 100_000):
        server.now_us = now_us
        server.receive(2, Heartbeat(1, 1, 1, 0))
        assert server.node.next_deadline_us is not None
        waits.add(server.node.next_deadline_us - now_us)
    assert all(150_000 <= wait <= 300_000 for wait in waits)
    assert min(waits) < 155_000
    assert max(waits) > 295_000


def test_servers_with_different_seeds_wait_differently() -> None:
    """§5.2: so that split votes are rare."""
    waits = {Server(member_id, size=7).node.next_deadline_us for member_id in range(1, 8)}
    assert len(waits) == 7


# --- candidates


def test_on_conversion_to_candidate_start_an_election() -> None:
    """Candidates, §5.2: a new term, the own vote, a new timer, requests to all other servers."""
    server = Server(1, size=5, log=log_of(1, 1, size=5))
    server.tick()
    _grant_pre_vote(server, 2)
    before = server.now_us
    asked = {send.message for send in server.outbox if isinstance(send.message, PreVote)}
    (request,) = asked
    effects = server.receive(3, PreVoteReply(request.term, request.request_id, True))
    assert server.node.role is Role.CANDIDATE
    assert server.node.current_term == 2
    assert server.node.voted_for == 1
    assert [(save.term, save.voted_for) for save in of(SaveVote, effects)] == [(2, 1)]
    assert server.node.next_deadline_us is not None
    assert server.node.next_deadline_us >= before + 150_000
    for voter in (2, 3, 4, 5):
        (vote,) = sends(RequestVote, effects, to=voter)
        assert (vote.term, vote.last_index, vote.last_term) == (2, 2, 1)


@pytest.mark.parametrize(
    ("size", "granted", "refused", "expected"),
    [
        (1, (), (), Role.LEADER),
        (3, (2,), (), Role.LEADER),
        (3, (2,), (3,), Role.LEADER),
        (3, (), (), Role.CANDIDATE),
        (3, (), (2,), Role.CANDIDATE),
        (4, (2,), (), Role.CANDIDATE),
        (4, (2, 3), (4,), Role.LEADER),
        (5, (2,), (3,), Role.CANDIDATE),
        (5, (2, 3), (), Role.LEADER),
        (5, (2, 3), (4, 5), Role.LEADER),
        (5, (2, 2, 2), (), Role.CANDIDATE),
        (5, (2, 77, 78), (), Role.CANDIDATE),
    ],
)
def test_votes_from_a_majority_of_servers_make_a_leader(
    size: int, granted: tuple[int, ...], refused: tuple[int, ...], expected: Role
) -> None:
    """Candidates, §5.2: each voter once, strangers never."""
    server = Server(1, size=size)
    server.tick()
    for voter in range(2, size // 2 + 2):
        _grant_pre_vote(server, voter)
    if server.node.role is Role.CANDIDATE:
        sent = [send.message for send in server.outbox if isinstance(send.message, RequestVote)]
        for voter in refused:
            server.receive(voter, VoteReply(2, sent[-1].request_id, False))
        for voter in granted:
            server.receive(voter, VoteReply(2, sent[-1].request_id, True))
    assert server.node.role is expected


def test_the_own_vote_counts_only_once_it_is_on_disk() -> None:
    """Candidates, §5.2, and "persistent state": else a crash would vote twice."""
    server = Server(1)
    server.saves = False
    server.tick()
    _grant_pre_vote(server, 2)
    assert not [send for send in server.outbox if isinstance(send.message, RequestVote)]
    request = next(send.message for send in server.held if isinstance(send.message, RequestVote))
    server.receive(2, VoteReply(2, request.request_id, True))
    assert server.node.role is Role.CANDIDATE
    server.save_vote()
    assert server.node.role is Role.LEADER


def test_a_vote_from_an_earlier_ballot_does_not_count() -> None:
    """§5.2: votes are for one term."""
    server = Server(1)
    server.tick()
    _grant_pre_vote(server, 2)
    old = next(send.message for send in server.outbox if isinstance(send.message, RequestVote))
    server.tick()
    _grant_pre_vote(server, 2)
    assert (server.node.role, server.node.current_term) == (Role.CANDIDATE, 3)
    server.receive(2, VoteReply(2, old.request_id, True))
    server.receive(2, VoteReply(3, old.request_id, True))
    assert server.node.role is Role.CANDIDATE


@pytest.mark.parametrize("role", [Role.PRE_CANDIDATE, Role.CANDIDATE])
@pytest.mark.parametrize("with_entries", [True, False], ids=["entries", "heartbeat"])
def test_append_entries_from_the_new_leader_converts_a_candidate_to_follower(
    role: Role, with_entries: bool
) -> None:
    """Candidates, §5.2: of the candidate's own term already."""
    server = _server_in(role)
    term = server.node.current_term
    message: Message = Heartbeat(term, 1, 1, 0)
    if with_entries:
        message = AppendEntries(term, 1, 1, 1, 1, 0, (entry(2, term),))
    server.receive(3, message)
    assert server.node.role is Role.FOLLOWER
    assert server.node.leader_id == 3
    assert server.node.current_term == term


def test_a_candidate_ignores_a_leader_of_an_earlier_term() -> None:
    """§5.2: it goes on being a candidate."""
    server = _server_in(Role.CANDIDATE)
    server.receive(3, Heartbeat(1, 1, 1, 0))
    assert server.node.role is Role.CANDIDATE


def test_if_the_election_timeout_elapses_start_a_new_election() -> None:
    """Candidates, §5.2: with a new pre-vote first, and in a new term once that is won."""
    server = _server_in(Role.CANDIDATE)
    server.tick()
    assert server.node.role is Role.PRE_CANDIDATE
    assert server.node.current_term == 2
    _grant_pre_vote(server, 3)
    assert server.node.role is Role.CANDIDATE
    assert server.node.current_term == 3


def test_only_followers_with_the_right_to_vote_stand_when_told_to() -> None:
    """§3.10 of the thesis: TimeoutNow starts an election at once, without a pre-vote."""
    server = Server(1)
    effects = server.receive(2, TimeoutNow(1, 1))
    assert server.node.role is Role.CANDIDATE
    assert all(vote.transfer for vote in sends(RequestVote, effects))
    stranger = Server(9)
    assert stranger.node.role is Role.LEARNER
    stranger.receive(2, TimeoutNow(1, 1))
    assert stranger.node.role is Role.LEARNER
