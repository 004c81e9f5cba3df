"""What a program in the kernel saw of the leader, when an election timer expires."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    Heartbeat,
    HeartbeatReply,
    LeaderStamp,
    PreVote,
    PreVoteReply,
    Role,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import (
    HEARTBEAT_US,
    MAX_TIMEOUT_US,
    MIN_TIMEOUT_US,
    Server,
    notes,
    sends,
)

LEADER, OTHER, STRANGER = 2, 3, 99
TERM = 5


def follower() -> Server:
    server = Server(1)
    server.receive(LEADER, Heartbeat(TERM, 1, 1, 0))
    return server


def pre_vote_is_granted(server: Server) -> bool:
    effects = server.receive(OTHER, PreVote(TERM + 9, 1, 1, 1))
    return sends(PreVoteReply, effects, to=OTHER)[0].granted


def test_a_fresh_stamp_of_the_leader_re_arms_the_timer_with_an_event() -> None:
    server = follower()
    effects = server.tick(stamp=LeaderStamp(30_000, LEADER, TERM))
    assert server.node.role is Role.FOLLOWER
    assert "election_deferred" in notes(effects)
    assert server.node.next_deadline_us is not None
    assert server.node.next_deadline_us >= server.now_us + MIN_TIMEOUT_US


def test_one_silence_is_excused_once_however_fresh_the_stamps_are() -> None:
    server = follower()
    heard_us = server.now_us
    for _ in range(2):
        server.tick(stamp=LeaderStamp(0, LEADER, TERM))
    assert server.node.role is Role.PRE_CANDIDATE
    assert server.now_us <= heard_us + 2 * MAX_TIMEOUT_US


def test_a_stale_stamp_lets_the_election_begin_at_once() -> None:
    server = follower()
    server.tick(stamp=LeaderStamp(MIN_TIMEOUT_US, LEADER, TERM))
    assert server.node.role is Role.PRE_CANDIDATE


def test_the_stamp_goes_before_what_the_socket_says() -> None:
    """Anything at all makes a socket fresh; here it was no word of the leader."""
    server = follower()
    server.tick(leader_silence_us=0, stamp=LeaderStamp(5_000_000, LEADER, TERM))
    assert server.node.role is Role.PRE_CANDIDATE


@pytest.mark.parametrize(
    ("sender", "term", "deferred"),
    [
        (LEADER, TERM, True),
        (OTHER, TERM, False),  # a term has one leader, and it is another
        (LEADER, TERM - 1, False),
        (OTHER, TERM + 1, True),  # elected while this process stood still
        (STRANGER, TERM + 1, False),
        (1, TERM + 1, False),
    ],
)
def test_only_a_leader_that_this_node_would_follow_counts(
    sender: int, term: int, deferred: bool
) -> None:
    server = follower()
    server.tick(stamp=LeaderStamp(0, sender, term))
    assert (server.node.role is Role.FOLLOWER) == deferred


def test_without_a_known_leader_a_stamp_excuses_nothing() -> None:
    server = Server(1)
    server.tick(stamp=LeaderStamp(0, LEADER, 9))
    assert server.node.role is Role.PRE_CANDIDATE


def test_pre_votes_are_refused_for_a_timeout_from_the_stamp_on_and_no_longer() -> None:
    server = follower()
    server.tick(stamp=LeaderStamp(30_000, LEADER, TERM))
    assert not pre_vote_is_granted(server)
    server.now_us += MIN_TIMEOUT_US - 30_000
    assert pre_vote_is_granted(server)


def test_a_stamp_changes_neither_term_nor_leader() -> None:
    server = follower()
    server.tick(stamp=LeaderStamp(0, OTHER, TERM + 1))
    assert (server.node.current_term, server.node.leader_id) == (TERM, LEADER)


def test_a_stamp_prolongs_no_lease_and_makes_no_answer_of_this_node_newer() -> None:
    """The lease counts replies that the process gave; what its kernel saw is none."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.run_for(3 * HEARTBEAT_US)
    server = cluster[2]
    before_us = server.now_us
    age_us = server.node.stale_age_us(before_us)
    effects = server.tick(stamp=LeaderStamp(0, 1, server.node.current_term))
    assert "election_deferred" in notes(effects)
    assert not sends(HeartbeatReply, effects)
    assert age_us is not None
    assert server.node.stale_age_us(server.now_us) == age_us + server.now_us - before_us
