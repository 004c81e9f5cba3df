"""A learner is nobody's majority: not for a commit, an election, a read or a leader's own standing
(§4.2.1 of the thesis)."""

from __future__ import annotations

from raft_agent.consensus.types import (
    AppendReply,
    MembershipChange,
    PreVote,
    PreVoteReply,
    Read,
    ReadReady,
    RequestVote,
    Role,
)
from tests.unit.consensus.harness import Cluster, member, with_learners
from tests.unit.consensus.server import MAX_TIMEOUT_US, notes, of, sends


def parted(*there: int) -> Cluster:
    """1 leads the voters 1, 2, 3; 4 and 5 are learners that have everything; then only `there` hear
    of each other."""
    cluster = with_learners(4, 5)
    cluster.part(set(there), set(cluster.servers) - set(there))
    return cluster


def test_a_learner_is_never_counted_for_a_commit() -> None:
    cluster = parted(1, 4, 5)
    before = cluster.node(1).commit_index
    cluster.propose(1)
    cluster.settle()
    assert cluster.node(1).progress[4].match_index == cluster.node(1).log.last_index
    assert cluster.node(1).commit_index == before


def test_a_learner_is_never_asked_for_a_vote_and_its_vote_counts_for_nothing() -> None:
    cluster = parted(1, 4, 5)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert cluster.node(1).role is not Role.LEADER
    effects = cluster.time_out(1)
    for learner in (4, 5):
        assert not sends(PreVote, effects, to=learner)
    request_id = sends(PreVote, effects)[0].request_id
    for learner in (4, 5):
        effects = cluster[1].receive(learner, PreVoteReply(9, request_id, granted=True))
        assert not sends(RequestVote, effects)


def test_a_learner_is_never_counted_for_a_read() -> None:
    cluster = parted(1, 4, 5)
    cluster.step(1, Read(7))
    cluster.settle()
    assert not of(ReadReady, cluster[1].history)


def test_a_learner_is_never_counted_for_a_lease() -> None:
    cluster = parted(1, 4, 5)
    cluster.now_us += MAX_TIMEOUT_US // 2
    cluster.run(1, lambda server: server.tick())
    cluster.settle()
    assert cluster.node(1).role is Role.LEADER
    assert not cluster.node(1).has_lease(cluster[1].now_us)


def test_a_leader_that_only_learners_hear_steps_down() -> None:
    cluster = parted(1, 4, 5)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert "quorum_lost" in notes(cluster[1].history)


def test_a_learner_never_stands() -> None:
    cluster = parted(4, 5)
    cluster.run_for(20 * MAX_TIMEOUT_US)
    for learner in (4, 5):
        assert cluster.node(learner).role is Role.LEARNER
        assert not sends(PreVote, cluster[learner].history)


def test_a_late_reply_from_before_a_member_went_moves_nothing_in_the_same_term() -> None:
    """Nobody comes back under its id; what one that has gone still says counts for nobody, and what
    a member said before its connection broke counts no more."""
    cluster = parted(1, 2, 3, 4, 5)
    node = cluster.node(1)
    session = node.progress[4].session
    cluster.change(1, MembershipChange(remove=(4,)))
    cluster.settle()
    old = AppendReply(2, 1, session, True, node.log.last_index, 0, 0)
    assert not cluster[1].receive(4, old)
    assert 4 not in node.progress

    session = node.progress[5].session
    cluster.connect(1, 5)
    cluster.drop()
    assert node.progress[5].match_index == 0
    old = AppendReply(2, 1, session, True, node.log.last_index, 0, 0)
    cluster[1].receive(5, old)
    assert node.progress[5].match_index == 0


def test_a_new_member_in_the_same_term_begins_with_nothing() -> None:
    cluster = parted(1, 2, 3, 4, 5)
    node = cluster.node(1)
    sessions = {progress.session for progress in node.progress.values()}
    cluster.change(1, MembershipChange(add=(member(6),), remove=(4,)))
    assert node.progress[6].match_index == 0
    assert node.progress[6].session not in sessions
