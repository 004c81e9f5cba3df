"""Learners get the log and decide nothing; who is one may change with the log."""

from __future__ import annotations

import pytest

from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.membership import encode_configuration, first_entry
from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Configuration,
    ConfigurationChanged,
    PreVote,
    PreVoteReply,
    RefusalReason,
    Refused,
    RequestVote,
    Role,
    TimeoutNow,
    TransferLeadership,
    VoteReply,
)
from tests.unit.consensus.server import MAX_TIMEOUT_US, Server, configuration_of, entry, of, sends

LEARNER = 4


def with_learner(*, voters: tuple[int, ...] = (1, 2, 3)) -> Configuration:
    members = configuration_of(4).members
    learners = tuple(m.id for m in members if m.id not in voters)
    return Configuration("c1", members, voters, learners=learners)


def changed(index: int, term: int, configuration: Configuration) -> Batch:
    payload = encode_configuration(configuration)
    return encode(BatchKind.CONFIGURATION, index, term, 1, payload)


def leader() -> Server:
    """1 of the voters 1, 2, 3 leads term 2; its no-op stands at index 2."""
    server = Server(1, log=[first_entry(with_learner())])
    (request, *_) = sends(PreVote, server.tick())
    server.receive(2, PreVoteReply(2, request.request_id, True))
    server.receive(2, VoteReply(2, server.node.state.next_request_id() - 1, True))
    assert server.node.role is Role.LEADER
    return server


def acknowledge(server: Server, peer: int, match_index: int) -> None:
    session = server.node.progress[peer].session
    server.receive(peer, AppendReply(2, 1, session, True, match_index, 0, 0))


def test_a_learner_gets_the_log_and_does_not_count_for_a_commit() -> None:
    server = leader()
    assert set(server.node.progress) == {2, 3, LEARNER}
    acknowledge(server, LEARNER, 2)
    assert server.node.commit_index == 0
    acknowledge(server, 2, 2)
    assert server.node.commit_index == 2


def test_a_learner_never_stands_for_election() -> None:
    server = Server(LEARNER, log=[first_entry(with_learner())])
    assert server.node.role is Role.LEARNER
    assert not sends(PreVote, server.tick())
    server.receive(2, TimeoutNow(1, 1))
    assert server.node.role is Role.LEARNER


def test_the_lead_is_handed_to_no_learner() -> None:
    server = leader()
    effects = server.step(TransferLeadership(5, LEARNER))
    assert [refused.reason for refused in of(Refused, effects)] == [RefusalReason.UNKNOWN_TARGET]
    effects = server.step(TransferLeadership(6, 9))
    assert [refused.reason for refused in of(Refused, effects)] == [RefusalReason.UNKNOWN_TARGET]


def test_without_a_target_the_voter_that_is_furthest_gets_the_lead() -> None:
    """Neither the learner, which is further, nor the voter with the larger id, which is behind."""
    server = leader()
    acknowledge(server, LEARNER, 2)
    acknowledge(server, 2, 2)
    effects = server.step(TransferLeadership(5))
    assert len(sends(TimeoutNow, effects, to=2)) == 1
    assert not of(Refused, effects)


def follower(member_id: int) -> Server:
    server = Server(member_id, log=[first_entry(with_learner())])
    server.receive(1, AppendEntries(1, 1, 1, 1, 1, 0, ()))
    return server


def test_a_configuration_in_the_log_makes_a_voter_of_a_learner_and_a_cut_undoes_it() -> None:
    """A server uses the latest configuration in its log, committed or not (§6)."""
    server = follower(LEARNER)
    promoted = changed(2, 1, with_learner(voters=(1, 2, 3, LEARNER)))
    effects = server.receive(1, AppendEntries(1, 2, 1, 1, 1, 0, (promoted,)))
    assert [c.configuration.voters for c in of(ConfigurationChanged, effects)] == [(1, 2, 3, 4)]
    assert server.node.role is Role.FOLLOWER
    effects = server.receive(2, AppendEntries(2, 3, 1, 1, 1, 0, (entry(2, 2),)))
    assert [c.configuration.voters for c in of(ConfigurationChanged, effects)] == [(1, 2, 3)]
    assert server.node.role is Role.LEARNER


def test_a_configuration_in_the_log_makes_a_learner_of_a_voter() -> None:
    server = follower(3)
    demoted = changed(2, 1, with_learner(voters=(1, 2)))
    server.receive(1, AppendEntries(1, 2, 1, 1, 1, 0, (demoted,)))
    assert server.node.role is Role.LEARNER


@pytest.mark.parametrize("member_id", [3, LEARNER])
def test_an_entry_that_is_no_configuration_changes_no_role(member_id: int) -> None:
    server = follower(member_id)
    role = server.node.role
    effects = server.receive(1, AppendEntries(1, 2, 1, 1, 1, 0, (entry(2, 1),)))
    assert not of(ConfigurationChanged, effects)
    assert server.node.role is role


def test_a_learner_that_is_asked_for_its_vote_stays_a_learner() -> None:
    """Its candidate may know a later configuration in which it is a voter."""
    server = Server(LEARNER, log=[first_entry(with_learner())])
    server.now_us = 10 * MAX_TIMEOUT_US
    (reply,) = sends(VoteReply, server.receive(2, RequestVote(2, 7, 1, 1, False)))
    assert reply.granted
    assert server.node.role is Role.LEARNER
