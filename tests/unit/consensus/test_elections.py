"""Pre-vote, votes refused while a leader lives, check-quorum, and stalls of the own process."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    Heartbeat,
    HeartbeatReply,
    PreVote,
    PreVoteReply,
    RequestVote,
    Role,
    SaveVote,
    TimerExpired,
    VoteReply,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import (
    HEARTBEAT_US,
    MAX_TIMEOUT_US,
    MIN_TIMEOUT_US,
    Server,
    notes,
    of,
    sends,
)


def vote(server: Server, term: int, *, transfer: bool = False) -> bool:
    effects = server.receive(3, RequestVote(term, 1, 1, 1, transfer))
    return sends(VoteReply, effects, to=3)[0].granted


def pre_vote(server: Server, term: int) -> bool:
    effects = server.receive(3, PreVote(term, 1, 1, 1))
    assert not of(SaveVote, effects)
    return sends(PreVoteReply, effects, to=3)[0].granted


# --- pre-vote (§9.6 of the thesis)


def test_answering_a_pre_vote_changes_nothing() -> None:
    server = Server(1)
    server.now_us = 2 * MIN_TIMEOUT_US
    state = (server.node.current_term, server.node.voted_for, server.node.next_deadline_us)
    assert pre_vote(server, 2)
    assert pre_vote(server, 9)
    assert state == (
        server.node.current_term,
        server.node.voted_for,
        server.node.next_deadline_us,
    )
    assert vote(server, 2)


def test_a_pre_vote_is_refused_for_a_term_that_is_not_to_come() -> None:
    server = Server(1)
    server.receive(2, Heartbeat(5, 1, 1, 0))
    server.now_us = 10 * MAX_TIMEOUT_US
    effects = server.receive(3, PreVote(5, 7, 1, 1))
    assert sends(PreVoteReply, effects) == [PreVoteReply(5, 7, False)]
    assert pre_vote(server, 6)


def test_a_pre_vote_is_refused_to_a_log_that_could_not_win() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.now_us += 10 * MAX_TIMEOUT_US
    effects = cluster.run(2, lambda server: server.receive(3, PreVote(3, 7, 1, 1)))
    assert sends(PreVoteReply, effects) == [PreVoteReply(2, 7, False)]


def test_no_term_is_raised_before_a_majority_has_granted_the_pre_vote() -> None:
    server = Server(1, size=5)
    asked = sends(PreVote, server.tick(), to=2)[0]
    assert asked.term == 2
    server.receive(2, PreVoteReply(2, asked.request_id, True))
    assert server.node.current_term == 1
    server.receive(2, PreVoteReply(2, asked.request_id, True))
    assert server.node.current_term == 1
    server.receive(3, PreVoteReply(2, asked.request_id, True))
    assert server.node.current_term == 2


def test_a_late_pre_vote_reply_does_not_count_for_a_later_ballot() -> None:
    server = Server(1)
    old = sends(PreVote, server.tick(), to=2)[0]
    server.tick()
    server.receive(2, PreVoteReply(old.term, old.request_id, True))
    assert server.node.role is Role.PRE_CANDIDATE


def test_a_lost_pre_vote_makes_a_follower_that_tries_again() -> None:
    server = Server(1)
    asked = sends(PreVote, server.tick(), to=2)[0]
    for voter in (2, 3):
        server.receive(voter, PreVoteReply(1, asked.request_id, False))
    assert server.node.role is Role.FOLLOWER
    assert sends(PreVote, server.tick())


# --- a live leader's followers do not vote (§4.2.3 of the thesis)


def test_votes_are_refused_while_a_live_leader_is_known() -> None:
    server = Server(1)
    server.now_us = 5 * MAX_TIMEOUT_US
    server.receive(2, Heartbeat(1, 1, 1, 0))
    server.now_us += MIN_TIMEOUT_US - 1
    assert not vote(server, 9)
    assert not pre_vote(server, 9)
    assert server.node.current_term == 1
    assert server.node.leader_id == 2
    server.now_us += 1
    assert pre_vote(server, 9)
    assert vote(server, 9)


def test_votes_are_refused_for_one_minimum_election_timeout_after_start() -> None:
    """It may have promised a leader just before it crashed."""
    server = Server(1, now_us=1_000_000)
    server.now_us = 1_000_000 + MIN_TIMEOUT_US - 1
    assert not vote(server, 9)
    assert not pre_vote(server, 9)
    assert server.node.current_term == 1
    server.now_us += 1
    assert vote(server, 9)


def test_a_leader_refuses_votes() -> None:
    cluster = Cluster()
    cluster.elect(1)
    effects = cluster[1].receive(3, RequestVote(9, 1, 99, 8, False))
    assert sends(VoteReply, effects) == [VoteReply(2, 1, False)]
    assert cluster.node(1).role is Role.LEADER


def test_a_vote_that_the_leader_itself_asked_for_is_not_refused_for_its_sake() -> None:
    """§3.10 of the thesis."""
    server = Server(1)
    server.now_us = MIN_TIMEOUT_US
    server.receive(2, Heartbeat(1, 1, 1, 0))
    assert vote(server, 2, transfer=True)


# --- check-quorum (§6.2 of the thesis)


def beat(cluster: Cluster, leader: int) -> None:
    cluster.now_us += HEARTBEAT_US
    cluster.step(leader, TimerExpired())


@pytest.mark.parametrize(("size", "answering"), [(3, 1), (5, 2)])
def test_a_leader_with_a_quorum_leads_on(size: int, answering: int) -> None:
    cluster = Cluster(size)
    cluster.elect(1)
    cluster.part(range(1, answering + 2), range(answering + 2, size + 1))
    for _ in range(40):
        beat(cluster, 1)
        cluster.settle()
    assert cluster.node(1).role is Role.LEADER


@pytest.mark.parametrize(("size", "answering"), [(2, 0), (3, 0), (5, 1)])
def test_a_leader_that_hears_no_majority_for_an_election_timeout_steps_down(
    size: int, answering: int
) -> None:
    cluster = Cluster(size)
    leader = cluster.elect(1)
    cluster.part(range(1, answering + 2), range(answering + 2, size + 1))
    lost_us = cluster.now_us
    while leader.role is Role.LEADER and cluster.now_us < lost_us + 10 * MAX_TIMEOUT_US:
        beat(cluster, 1)
        cluster.settle()
    assert leader.role is Role.FOLLOWER
    assert leader.leader_id == 0
    assert leader.current_term == 2
    assert MAX_TIMEOUT_US < cluster.now_us - lost_us <= MAX_TIMEOUT_US + 2 * HEARTBEAT_US
    assert "quorum_lost" in notes(cluster[1].history)


def test_a_leader_that_stood_still_does_not_take_its_own_silence_for_that_of_the_others() -> None:
    """It has asked nobody anything meanwhile; whoever is in a later term says so in its answer."""
    cluster = Cluster()
    leader = cluster.elect(1)
    beat(cluster, 1)
    cluster.settle()
    cluster.now_us += 2 * MAX_TIMEOUT_US
    cluster.step(1, TimerExpired())
    assert leader.role is Role.LEADER
    cluster.settle()
    for _ in range(20):
        beat(cluster, 1)
        cluster.settle()
    assert leader.role is Role.LEADER
    assert leader.current_term == 2


def test_a_leader_that_stands_still_over_and_over_still_misses_its_quorum() -> None:
    """Silence is counted while it runs: half of the time here."""
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.part([1], [2], [3])
    lost_us = cluster.now_us
    while leader.role is Role.LEADER and cluster.now_us < lost_us + 10 * MAX_TIMEOUT_US:
        cluster.now_us += 2 * HEARTBEAT_US
        cluster.step(1, TimerExpired())
    assert leader.role is Role.FOLLOWER
    assert cluster.now_us - lost_us <= 2 * (MAX_TIMEOUT_US + 2 * HEARTBEAT_US)


def test_replies_of_an_older_session_do_not_keep_a_leader_in_office() -> None:
    """They may have been on their way since before the peer was lost."""
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.part([1], [2], [3])
    old = [(peer, progress.session) for peer, progress in leader.progress.items()]
    cluster.connect(1, 2)
    cluster.connect(1, 3)
    lost_us = cluster.now_us
    while leader.role is Role.LEADER and cluster.now_us < lost_us + 10 * MAX_TIMEOUT_US:
        beat(cluster, 1)
        for peer, session in old:
            cluster[1].receive(peer, HeartbeatReply(2, 1, session, 0))
    assert leader.role is Role.FOLLOWER


# --- stalls of the own process


def followed() -> Server:
    server = Server(1)
    server.receive(2, Heartbeat(1, 1, 1, 0))
    return server


def test_a_silence_that_the_kernel_can_excuse_re_arms_the_timer_once() -> None:
    server = followed()
    effects = server.tick(leader_silence_us=30_000)
    assert server.node.role is Role.FOLLOWER
    assert server.node.leader_id == 2
    assert "election_deferred" in notes(effects)
    assert not sends(PreVote, effects)
    assert server.node.next_deadline_us is not None
    assert server.node.next_deadline_us >= server.now_us + MIN_TIMEOUT_US
    server.tick(leader_silence_us=30_000)
    assert server.node.role is Role.PRE_CANDIDATE


def test_the_excuse_is_good_again_after_the_leader_was_heard() -> None:
    server = followed()
    for _ in range(3):
        server.tick(leader_silence_us=30_000)
        assert server.node.role is Role.FOLLOWER
        server.receive(2, Heartbeat(1, 1, 1, 0))


@pytest.mark.parametrize("silence_us", [None, MIN_TIMEOUT_US, 5_000_000])
def test_a_silence_that_the_kernel_confirms_is_no_excuse(silence_us: int | None) -> None:
    server = followed()
    server.tick(leader_silence_us=silence_us)
    assert server.node.role is Role.PRE_CANDIDATE


def test_without_a_known_leader_nothing_is_excused() -> None:
    server = Server(1)
    server.tick(leader_silence_us=0)
    assert server.node.role is Role.PRE_CANDIDATE


def test_while_the_silence_is_excused_votes_are_refused_as_the_kernel_heard_it() -> None:
    server = followed()
    server.tick(leader_silence_us=30_000)
    assert not vote(server, 9)
    server.now_us += MIN_TIMEOUT_US - 30_000
    assert vote(server, 9)


def test_a_timer_that_fires_early_does_nothing() -> None:
    server = followed()
    server.now_us = 1000
    assert server.step(TimerExpired()) == []
    assert server.node.role is Role.FOLLOWER
