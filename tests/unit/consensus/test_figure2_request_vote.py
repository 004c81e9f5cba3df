"""Figure 2, box "RequestVote RPC": what the receiver does, 1 and 2."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    Heartbeat,
    PreVote,
    PreVoteReply,
    RequestVote,
    Role,
    SaveVote,
    Vote,
    VoteReply,
)
from tests.unit.consensus.server import Server, log_of, of, sends

LATE_US = 1_000_000


def voter(*terms: int, vote: Vote | None = None) -> Server:
    """A server that has been up for so long, without a leader, that it may vote."""
    server = Server(1, log=log_of(*(terms or (1,))), vote=vote)
    server.now_us = LATE_US
    return server


def ask(server: Server, term: int, last: tuple[int, int], sender: int = 2) -> VoteReply:
    """Ask for a vote with a log that ends at `last` (index, term)."""
    effects = server.receive(sender, RequestVote(term, 9, last[0], last[1], False))
    (reply,) = sends(VoteReply, effects, to=sender)
    assert reply.request_id == 9
    return reply


def test_reply_false_if_term_is_less_than_current_term() -> None:
    """Receiver 1, §5.1: with the later term, so that the candidate gives up."""
    server = voter(1, 5)
    assert ask(server, 4, (9, 4)) == VoteReply(5, 9, False)
    assert server.node.voted_for == 0


def test_grant_vote_if_voted_for_is_null_and_the_log_is_up_to_date() -> None:
    """Receiver 2, §5.2."""
    server = voter(1, 2)
    assert ask(server, 3, (2, 2)) == VoteReply(3, 9, True)
    assert server.node.voted_for == 2
    assert server.disk_vote == Vote(3, 2)


def test_grant_vote_if_voted_for_is_the_candidate() -> None:
    """Receiver 2: the answer may have been lost, so the same candidate gets it again, unwritten."""
    server = voter(1, 2)
    ask(server, 3, (2, 2))
    effects = server.receive(2, RequestVote(3, 9, 2, 2, False))
    assert sends(VoteReply, effects)[0].granted
    assert not of(SaveVote, effects)


def test_refuse_if_voted_for_is_another_candidate() -> None:
    """§5.2: first come, first served; one vote a term."""
    server = voter(1, 2)
    ask(server, 3, (2, 2), sender=2)
    assert not ask(server, 3, (9, 2), sender=3).granted
    assert server.node.voted_for == 2
    assert ask(server, 4, (9, 2), sender=3).granted


@pytest.mark.parametrize(
    ("last", "granted"),
    [
        ((3, 2), True),  # equal
        ((4, 2), True),  # longer
        ((2, 2), False),  # shorter
        ((1, 3), True),  # later last term, though shorter
        ((9, 1), False),  # earlier last term, though longer
    ],
)
def test_the_candidates_log_must_be_at_least_as_up_to_date(
    last: tuple[int, int], granted: bool
) -> None:
    """Receiver 2, §5.4.1: the later last term wins, then the longer log."""
    server = voter(1, 2, 2)
    assert ask(server, 4, last).granted is granted
    assert server.node.voted_for == (2 if granted else 0)
    assert server.node.current_term == 4


def test_a_vote_is_on_disk_before_it_is_granted() -> None:
    """Figure 2, "persistent state": updated before responding."""
    server = voter(1)
    server.saves = False
    server.receive(2, RequestVote(3, 9, 1, 1, False))
    assert server.outbox == []
    server.save_vote()
    assert server.outbox[0].message == VoteReply(3, 9, True)


def test_a_refusal_in_a_new_term_waits_for_the_term_to_be_on_disk() -> None:
    """§5.1: a server that names a term must still know it after a crash."""
    server = voter(1, 2)
    server.saves = False
    server.receive(2, RequestVote(3, 9, 1, 1, False))
    assert server.outbox == []
    server.save_vote()
    assert server.outbox[0].message == VoteReply(3, 9, False)


def test_candidates_and_leaders_do_not_vote_for_others_in_their_term() -> None:
    """§5.2: they have voted for themselves."""
    server = voter(1)
    server.tick()
    (asked,) = {send.message for send in server.outbox if isinstance(send.message, PreVote)}
    server.receive(2, PreVoteReply(asked.term, asked.request_id, True))
    assert server.node.role is Role.CANDIDATE
    assert not ask(server, server.node.current_term, (99, 1), sender=3).granted
    assert server.node.voted_for == 1


def test_granting_a_vote_resets_the_election_timer_and_refusing_does_not() -> None:
    """Rules for followers, §5.2."""
    server = voter(1, 2)
    server.receive(3, Heartbeat(3, 1, 1, 0))
    server.now_us += 200_000
    due = server.node.next_deadline_us
    assert not ask(server, 3, (1, 1)).granted
    assert server.node.next_deadline_us == due
    assert ask(server, 3, (2, 2)).granted
    assert server.node.next_deadline_us is not None
    assert server.node.next_deadline_us >= server.now_us + 150_000
