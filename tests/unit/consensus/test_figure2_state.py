"""Figure 2, box "State": what is persistent, what is volatile, and how it starts."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    AppendEntries,
    AppendLog,
    Heartbeat,
    RequestVote,
    Role,
    SaveVote,
    Vote,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import Server, entry, log_of, of, terms_of


def test_current_term_starts_at_zero_on_first_boot() -> None:
    """§5.1: a server that has never run knows no term."""
    server = Server(1, log=[])
    assert server.node.current_term == 0
    assert server.node.voted_for == 0
    assert server.node.log.last_index == 0


def test_current_term_increases_monotonically() -> None:
    """§5.1: a message of an older term never takes the term back."""
    server = Server(1, log=log_of(1, 3))
    seen = [server.node.current_term]
    for term in (5, 2, 7, 1, 6):
        server.receive(2, Heartbeat(term, 1, 1, 0))
        seen.append(server.node.current_term)
    assert seen == [3, 5, 5, 7, 7, 7]


def test_current_term_is_persistent() -> None:
    """§5.1: the term that a server has seen survives a crash."""
    server = Server(1)
    server.receive(2, Heartbeat(9, 1, 1, 0))
    server.start()
    assert server.node.current_term == 9


def test_current_term_is_never_behind_the_log() -> None:
    """§5.1: an entry of a term can't be in a log whose server does not know the term."""
    server = Server(1, log=log_of(1, 4), vote=Vote(2, 3))
    assert server.node.current_term == 4
    assert server.node.voted_for == 0


def test_voted_for_is_persistent() -> None:
    """§5.2: after a crash a server still knows whom it voted for, and votes for nobody else."""
    server = Server(1)
    server.now_us = 1_000_000
    server.receive(2, RequestVote(5, 1, 1, 1, False))
    server.start()
    assert server.node.voted_for == 2
    server.now_us = 2_000_000
    effects = server.receive(3, RequestVote(5, 1, 1, 1, False))
    assert server.node.voted_for == 2
    assert not of(SaveVote, effects)


def test_voted_for_is_null_if_none_in_the_current_term() -> None:
    """§5.2: a new term begins with a vote that nobody has got."""
    server = Server(1, vote=Vote(1, 3))
    assert server.node.voted_for == 3
    server.receive(2, Heartbeat(2, 1, 1, 0))
    assert server.node.voted_for == 0
    assert server.disk_vote == Vote(2, 0)


def test_the_log_is_persistent() -> None:
    """§5.3: what was written is there after a crash, with the terms it was received in."""
    server = Server(1)
    batches = (entry(2, 2), entry(3, 3))
    server.receive(2, AppendEntries(3, 1, 1, 1, 1, 0, batches))
    server.start()
    assert terms_of(server.node) == [1, 2, 3]
    assert server.node.log.resident_batches[1:] == batches


def test_each_log_entry_has_the_term_when_it_was_received_by_the_leader() -> None:
    """§5.3: entries carry the term of the leader that made them; the first index is 1."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1)
    cluster.settle()
    cluster.elect(2)
    cluster.propose(2)
    cluster.settle()
    assert terms_of(cluster.node(3)) == [1, 2, 2, 3, 3]
    assert cluster.node(3).log.base_index == 0


@pytest.mark.parametrize("what", ["commit_index", "applied_index"])
def test_volatile_state_starts_at_zero_after_a_restart(what: str) -> None:
    """Figure 2: how much is committed and applied is learnt anew."""
    cluster = Cluster()
    cluster.elect(1)
    assert getattr(cluster.node(2), what) == 2
    cluster[2].start()
    assert getattr(cluster.node(2), what) == 0


def test_commit_index_and_last_applied_increase_monotonically() -> None:
    """Figure 2: a leader that knows less of what is committed takes nothing back."""
    server = Server(1, log=log_of(1, 1, 1, 1))
    seen = []
    for commit in (2, 1, 4, 3, 0):
        server.receive(2, Heartbeat(1, 1, 1, commit))
        seen.append((server.node.commit_index, server.node.applied_index))
    assert seen == [(2, 2), (2, 2), (4, 4), (4, 4), (4, 4)]


def test_next_index_starts_at_the_leaders_last_log_index_plus_one() -> None:
    """Figure 2, volatile state on leaders: a new leader takes followers to be like itself, so that
    its first message to each follows its own last entry."""
    cluster = Cluster(logs={1: log_of(1, 1, 1), 2: log_of(1), 3: log_of(1)})
    cluster.time_out(1)
    cluster.settle(lambda packet: not isinstance(packet.message, AppendEntries))
    first = [packet.message for packet in cluster.wire]
    assert [type(message) for message in first] == [AppendEntries, AppendEntries]
    assert {message.prev_index for message in first if isinstance(message, AppendEntries)} == {3}


def test_match_index_starts_at_zero_and_increases_monotonically() -> None:
    """Figure 2, volatile state on leaders: nothing is known to be replicated at first, and what is
    known is never unlearnt within a session."""
    cluster = Cluster()
    cluster.time_out(1)
    cluster.settle(lambda packet: not isinstance(packet.message, AppendEntries))
    leader = cluster.node(1)
    assert [progress.match_index for progress in leader.progress.values()] == [0, 0]
    cluster.propose(1)
    seen = [0]
    while cluster.wire:
        packet = cluster.wire[-1]  # the latest first: replies come out of order
        cluster.deliver(lambda waiting, packet=packet: waiting is packet)
        seen.append(leader.progress[2].match_index)
    assert seen == sorted(seen)
    assert seen[-1] == 3


def test_next_index_and_match_index_are_reinitialized_after_election() -> None:
    """Figure 2: what a leader knew of the others is gone when it leads again."""
    cluster = Cluster()
    cluster.elect(1)
    assert cluster.node(1).progress[2].match_index == 2
    cluster.elect(2)
    assert cluster.node(1).progress == {}
    cluster.time_out(1)
    cluster.settle(lambda packet: not isinstance(packet.message, AppendEntries))
    assert cluster.node(1).role is Role.LEADER
    assert cluster.node(1).progress[2].match_index == 0


def test_persistent_state_is_updated_before_responding_to_rpcs() -> None:
    """Figure 2: neither vote nor entries are acknowledged before they are on disk."""
    server = Server(1)
    server.now_us = 1_000_000
    server.saves = server.writes = False
    server.receive(2, RequestVote(5, 1, 1, 1, False))
    assert server.outbox == []
    server.save_vote()
    assert len(server.outbox) == 1
    effects = server.receive(2, AppendEntries(5, 2, 1, 1, 1, 0, (entry(2, 5),)))
    assert of(AppendLog, effects)
    assert len(server.outbox) == 1
    server.write_log()
    assert len(server.outbox) == 2
