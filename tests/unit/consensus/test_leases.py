"""A leader's lease (§6.4.1 of the thesis): whoever gave its word votes for nobody else meanwhile,
whatever happens, and the leader counts on no more than was promised."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent.consensus.lease import Lease
from raft_agent.consensus.types import (
    Configuration,
    Effect,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    PreVoteReply,
    Read,
    ReadIndex,
    ReadIndexReply,
    ReadReady,
    RequestVote,
    Role,
    TimeoutNow,
    TransferLeadership,
    VoteReply,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import (
    HEARTBEAT_US,
    MAX_TIMEOUT_US,
    MIN_TIMEOUT_US,
    SETTINGS,
    Server,
    configuration_of,
    examples,
    of,
    sends,
)

PROMISED_US = MIN_TIMEOUT_US - MIN_TIMEOUT_US * SETTINGS.clock_drift_ppm // 1_000_000


def heartbeat(term: int, request_id: int = 1) -> Heartbeat:
    return Heartbeat(term, request_id, 1, 0)


def granted(effects: list[Effect]) -> bool:
    (reply,) = sends(VoteReply, effects)
    return reply.granted


def leading() -> Cluster:
    """1 leads; a round of heartbeats has just been answered."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.run(1, lambda server: server.tick())
    cluster.now_us = cluster[1].now_us
    cluster.settle()
    return cluster


# --- whoever gave its word


def promising_voter() -> Server:
    """A voter of term 1 that has answered its leader's heartbeat a moment ago."""
    server = Server(2)
    server.now_us = 10 * MAX_TIMEOUT_US
    (reply,) = sends(HeartbeatReply, server.receive(1, heartbeat(1)))
    assert reply.withheld_us == MIN_TIMEOUT_US
    server.now_us += MIN_TIMEOUT_US - 1
    return server


def test_a_voter_withholds_its_vote_for_as_long_as_it_promised() -> None:
    server = promising_voter()
    assert not granted(server.receive(3, RequestVote(2, 1, 9, 1, transfer=False)))
    server.now_us += 1
    assert granted(server.receive(3, RequestVote(2, 2, 9, 1, transfer=False)))


def test_a_voter_keeps_its_word_in_the_term_that_it_has_learnt_of_meanwhile() -> None:
    """A late answer to its own pre-vote tells it of term 2, in which 3 already stands: the leader
    of term 1 counts on its word all the same."""
    server = promising_voter()
    server.receive(3, PreVoteReply(2, 1, granted=False))
    assert server.node.current_term == 2
    assert not granted(server.receive(3, RequestVote(2, 1, 9, 1, transfer=False)))
    server.now_us += 1
    assert granted(server.receive(3, RequestVote(2, 2, 9, 1, transfer=False)))


def test_an_election_that_the_leader_asked_for_breaks_no_word_in_a_term_known_already() -> None:
    server = promising_voter()
    server.receive(3, PreVoteReply(2, 1, granted=False))
    assert granted(server.receive(3, RequestVote(2, 1, 9, 1, transfer=True)))


def test_a_vote_that_was_given_is_confirmed_while_a_new_leader_is_heard() -> None:
    """The answer may have been lost; it is the same vote."""
    server = Server(2)
    server.now_us = 10 * MAX_TIMEOUT_US
    request = RequestVote(2, 1, 9, 1, transfer=False)
    assert granted(server.receive(3, request))
    server.receive(3, heartbeat(2))
    assert granted(server.receive(3, request))


def test_a_voter_that_restarts_inside_a_lease_withholds_its_vote() -> None:
    server = promising_voter()
    server.start()
    server.now_us += MIN_TIMEOUT_US - 1
    assert not granted(server.receive(3, RequestVote(2, 1, 9, 1, transfer=False)))
    server.now_us += 1
    assert granted(server.receive(3, RequestVote(2, 2, 9, 1, transfer=False)))


def test_a_voter_that_comes_back_with_a_shorter_timeout_keeps_the_longer_word() -> None:
    server = Server(2, word_us=4 * MIN_TIMEOUT_US)
    server.start()
    started_us = server.now_us
    server.now_us += MIN_TIMEOUT_US
    server.receive(1, heartbeat(1))  # which must not shorten it
    server.now_us = started_us + 4 * MIN_TIMEOUT_US - 1
    assert not granted(server.receive(3, RequestVote(2, 1, 9, 1, transfer=False)))
    server.now_us += 1
    assert granted(server.receive(3, RequestVote(2, 2, 9, 1, transfer=False)))


def test_a_voter_with_a_longer_word_does_not_stand_before_that_is_over() -> None:
    server = Server(2, word_us=8 * MAX_TIMEOUT_US)
    server.start()
    over_us = server.now_us + 8 * MAX_TIMEOUT_US
    assert server.node.next_deadline_us == over_us
    server.receive(3, RequestVote(2, 1, 9, 1, transfer=False))  # has the timer set anew
    assert server.node.next_deadline_us == over_us


def test_a_voter_does_not_stand_itself_while_it_withholds_its_vote() -> None:
    for seed in range(20):
        server = Server(2)
        server.starts = seed
        server.start()
        server.receive(1, heartbeat(1))
        due_us = server.node.next_deadline_us
        assert due_us is not None
        assert due_us >= server.now_us + MIN_TIMEOUT_US


def test_who_refuses_a_leader_of_an_older_term_promises_it_nothing() -> None:
    server = promising_voter()
    server.receive(3, PreVoteReply(2, 1, granted=False))
    (reply,) = sends(HeartbeatReply, server.receive(1, heartbeat(1)))
    assert (reply.term, reply.withheld_us) == (2, 0)


# --- what the leader makes of it


def test_a_lease_runs_from_when_the_heartbeat_left_and_is_shortened_by_the_drift() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.run(1, lambda server: server.tick())
    sent_us = cluster.now_us = cluster[1].now_us
    cluster.now_us += HEARTBEAT_US // 2
    cluster.settle()
    node = cluster.node(1)
    assert node.has_lease(sent_us + PROMISED_US - 1)
    assert not node.has_lease(sent_us + PROMISED_US)


@examples
@given(withheld_us=st.integers(0, 10**10), drift_ppm=st.integers(0, 500_000))
def test_the_drift_is_taken_off_in_full(withheld_us: int, drift_ppm: int) -> None:
    """In whole microseconds, and never less than the whole of it."""
    lease = Lease()
    lease.sent(1, 1_000, 1)
    lease.promised(2, 1, withheld_us, drift_ppm)
    latest_us = 1_000 + Fraction(withheld_us * (1_000_000 - drift_ppm), 1_000_000)
    three = configuration_of(3)
    assert not lease.holds(three, 1, math.floor(latest_us))
    assert lease.holds(three, 1, math.floor(latest_us) - 1)


def test_a_lease_is_not_held_by_a_machine_that_was_suspended() -> None:
    """Its clock has gone on; the first step after it knows."""
    cluster = leading()
    assert of(ReadReady, cluster.step(1, Read(7, lease=True)))
    cluster.now_us += MIN_TIMEOUT_US
    effects = cluster.step(1, Read(8, lease=True))
    assert not of(ReadReady, effects)
    assert sends(Heartbeat, effects)  # it takes a round
    cluster.settle()
    assert [ready.tag for ready in of(ReadReady, cluster[1].history)] == [7, 8]


def test_a_lease_is_given_up_before_the_target_may_stand_and_for_the_whole_term() -> None:
    cluster = leading()
    assert cluster.node(1).has_lease(cluster.now_us)
    effects = cluster.step(1, TransferLeadership(1, 2))
    assert sends(TimeoutNow, effects, to=2)
    assert not cluster.node(1).has_lease(cluster.now_us)
    cluster.drop()
    cluster.run_for(MAX_TIMEOUT_US)
    assert cluster.node(1).role is Role.LEADER
    cluster.run_for(2 * HEARTBEAT_US)
    assert not cluster.node(1).has_lease(cluster.now_us)


def test_a_target_that_is_not_up_to_date_costs_no_lease_yet() -> None:
    cluster = leading()
    cluster.propose(1)
    cluster.drop()
    cluster.step(1, TransferLeadership(1, 2))
    assert cluster.node(1).has_lease(cluster.now_us)


def test_no_read_is_answered_by_a_lease_before_the_own_term_has_committed() -> None:
    """Until then the leader does not know all that is committed."""
    cluster = Cluster(3)
    cluster.time_out(1)
    for kind in (PreVote, PreVoteReply, RequestVote, VoteReply):
        cluster.deliver(lambda packet, kind=kind: isinstance(packet.message, kind))
    cluster.drop()
    cluster.run(1, lambda leader: leader.tick())
    cluster.now_us = cluster[1].now_us
    for kind in (Heartbeat, HeartbeatReply):
        cluster.deliver(lambda packet, kind=kind: isinstance(packet.message, kind))
    node = cluster.node(1)
    assert node.role is Role.LEADER
    assert node.commit_index < 2
    assert node.has_lease(cluster.now_us)
    assert not of(ReadReady, cluster.step(1, Read(1, lease=True)))


def test_a_follower_asks_for_a_lease_only_when_all_that_wait_are_content_with_it() -> None:
    cluster = leading()
    effects = cluster.step(2, Read(1, lease=True))
    assert [ask.lease for ask in sends(ReadIndex, effects)] == [True]
    cluster.step(2, Read(2, lease=True))
    cluster.step(2, Read(3, lease=False))
    cluster.settle()
    assert [ready.tag for ready in of(ReadReady, cluster[2].history)] == [1, 2, 3]
    assert [ask.lease for ask in sends(ReadIndex, cluster[2].history)] == [True, False]


def test_a_leader_answers_a_follower_by_its_lease_without_a_round() -> None:
    cluster = leading()
    node = cluster.node(1)
    effects = cluster[1].receive(2, ReadIndex(2, 9, lease=True))
    assert sends(ReadIndexReply, effects) == [ReadIndexReply(2, 9, node.commit_index)]
    assert not sends(Heartbeat, effects)
    effects = cluster[1].receive(2, ReadIndex(2, 10, lease=False))
    assert not sends(ReadIndexReply, effects)
    assert sends(Heartbeat, effects)


def test_what_one_read_is_content_with_proves_nothing_for_another() -> None:
    cluster = leading()
    cluster.cut = {(2, 1), (3, 1)}
    cluster.step(1, Read(1, lease=False))
    cluster.step(1, Read(2, lease=False))
    cluster.step(1, Read(3, lease=True))
    assert [ready.tag for ready in of(ReadReady, cluster[1].history)] == [3]
    cluster.cut = set()
    cluster.run(1, lambda server: server.tick())
    cluster.settle()
    assert [ready.tag for ready in of(ReadReady, cluster[1].history)] == [3, 1, 2]


def test_an_answer_to_a_heartbeat_that_never_left_in_this_term_proves_nothing() -> None:
    lease = Lease()
    lease.promised(2, 5, MIN_TIMEOUT_US, 0)
    assert not lease.holds(configuration_of(3), 1, 0)


def test_a_late_answer_never_shortens_a_lease() -> None:
    lease = Lease()
    lease.sent(1, 1_000, 10**6)
    lease.sent(2, 2_000, 10**6)
    lease.promised(2, 2, 100, 0)
    lease.promised(2, 1, 100, 0)
    assert lease.holds(configuration_of(3), 1, 2_099)
    assert not lease.holds(configuration_of(3), 1, 2_100)


@pytest.mark.parametrize(("age_us", "counts"), [(500, True), (501, False)])
def test_heartbeats_are_forgotten_once_they_prove_nothing_more(age_us: int, counts: bool) -> None:
    lease = Lease()
    lease.sent(1, 1_000, 500)
    lease.sent(2, 1_000 + age_us, 500)
    lease.promised(2, 1, 10_000, 0)
    assert lease.holds(configuration_of(3), 1, 1_100) == counts


def test_a_lease_needs_both_majorities_while_joint() -> None:
    members = configuration_of(5).members
    joint = Configuration("c1", members, (1, 4, 5), voters_outgoing=(1, 2, 3))
    for promising, held in (((2,), False), ((4,), False), ((2, 4), True)):
        lease = Lease()
        lease.sent(1, 0, 10**6)
        for peer in promising:
            lease.promised(peer, 1, 100, 0)
        assert lease.holds(joint, 1, 50) == held


def test_a_learners_word_is_no_part_of_a_lease() -> None:
    members = configuration_of(4).members
    lease = Lease()
    lease.sent(1, 0, 10**6)
    lease.promised(4, 1, 100, 0)
    assert not lease.holds(Configuration("c1", members, (1, 2, 3), learners=(4,)), 1, 50)


def test_a_leader_that_is_no_voter_any_more_counts_only_others() -> None:
    lease = Lease()
    lease.sent(1, 0, 10**6)
    lease.promised(2, 1, 100, 0)
    going = Configuration("c1", configuration_of(3).members, (2, 3))
    assert not lease.holds(going, 1, 50)
    lease.promised(3, 1, 100, 0)
    assert lease.holds(going, 1, 50)


def test_a_leader_alone_has_a_lease_and_loses_it_with_the_lead() -> None:
    server = Server(1, size=1)
    server.tick()
    assert server.node.has_lease(10**12)
    server.receive(2, VoteReply(9, 1, granted=False))
    assert not server.node.has_lease(0)
