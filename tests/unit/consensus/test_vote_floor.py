"""A damaged batch at the log's end may have been acknowledged: the node votes as if it were still
there, and does not stand, until a leader has filled its place again."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    PreVote,
    PreVoteReply,
    RequestVote,
    Role,
    TimeoutNow,
    Vote,
    VoteReply,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import (
    MAX_TIMEOUT_US,
    Server,
    entry,
    log_of,
    notes,
    sends,
    terms_of,
)

FLOOR = Vote(3, 0, floor_term=3, floor_index=5)


def damaged(*, late: bool = True) -> Server:
    """The log ended at (term 3, index 5); the last batch, from index 4 on, is damaged."""
    server = Server(1, log=log_of(1, 2, 3), vote=FLOOR)
    server.now_us = 10 * MAX_TIMEOUT_US if late else 0
    return server


def test_it_does_not_stand_for_election() -> None:
    server = damaged()
    for _ in range(5):
        effects = server.tick()
        assert not sends(PreVote, effects)
        assert server.node.role is Role.FOLLOWER
    assert server.node.current_term == 3


def test_it_does_not_stand_when_told_to_either() -> None:
    server = damaged()
    server.receive(2, TimeoutNow(3, 1))
    assert server.node.role is Role.FOLLOWER
    assert server.node.current_term == 3


@pytest.mark.parametrize(
    ("last", "granted"),
    [((3, 3), False), ((4, 3), False), ((5, 3), True), ((9, 2), False), ((4, 4), True)],
)
def test_it_votes_as_if_its_log_ended_with_the_damaged_batch(
    last: tuple[int, int], granted: bool
) -> None:
    server = damaged()
    pre = sends(PreVoteReply, server.receive(2, PreVote(4, 1, last[0], last[1])))[0]
    reply = sends(VoteReply, server.receive(2, RequestVote(4, 2, last[0], last[1], False)))[0]
    assert (pre.granted, reply.granted) == (granted, granted)


def test_it_says_truly_where_its_log_ends_when_a_leader_asks() -> None:
    """What is damaged is not there: the leader must send it again."""
    server = damaged()
    effects = server.receive(2, AppendEntries(4, 1, 1, 5, 3, 0, ()))
    (reply,) = sends(AppendReply, effects)
    assert (reply.success, reply.hint_index, reply.hint_term) == (False, 3, 3)


def test_it_stands_again_once_the_place_is_filled_on_disk() -> None:
    server = damaged()
    server.writes = False
    effects = server.receive(
        2, AppendEntries(4, 1, 1, 3, 3, 0, (entry(4, 3, count=2), entry(6, 4)))
    )
    assert "log_refilled" not in notes(effects)
    assert not sends(PreVote, server.tick())
    assert "log_refilled" in notes(server.write_log())
    assert sends(PreVote, server.tick())


def test_half_of_the_place_filled_is_not_enough() -> None:
    server = damaged()
    server.receive(2, AppendEntries(3, 1, 1, 3, 3, 0, (entry(4, 3),)))
    assert not sends(PreVote, server.tick())
    server.receive(2, AppendEntries(3, 2, 1, 4, 3, 0, (entry(5, 3),)))
    assert sends(PreVote, server.tick())


def test_an_entry_of_a_later_term_fills_the_place_too() -> None:
    """Its leader was elected without the damaged entries, so they were never committed."""
    server = damaged()
    server.receive(2, AppendEntries(4, 1, 1, 3, 3, 0, (entry(4, 4),)))
    assert sends(PreVote, server.tick())


def test_the_floor_outlives_a_restart() -> None:
    server = damaged()
    server.receive(2, RequestVote(7, 1, 9, 6, False))
    server.start()
    assert not sends(PreVote, server.tick())
    effects = server.receive(3, PreVote(8, 1, 4, 3))
    assert not sends(PreVoteReply, effects)[0].granted


def test_a_floor_that_the_log_has_reached_already_holds_nothing_back() -> None:
    """A crash between the refilling and the storage's note of it."""
    server = Server(1, log=log_of(1, 2, 3, 3, 3), vote=FLOOR)
    assert sends(PreVote, server.tick())


def test_the_only_copy_besides_a_damaged_one_leads() -> None:
    """An entry on 1 and 2 was committed; on 2 it is damaged now. 3, without it, can't win."""
    cluster = Cluster(
        logs={1: log_of(1, 2, 2), 2: log_of(1, 2), 3: log_of(1, 2)},
        votes={2: Vote(2, 0, floor_term=2, floor_index=3)},
    )
    cluster.down.add(1)
    cluster.run_for(10 * MAX_TIMEOUT_US)
    assert cluster.leaders == []
    cluster.restart(1)
    cluster.run_for(10 * MAX_TIMEOUT_US)
    assert len(cluster.leaders) == 1
    for member_id in (1, 2, 3):
        assert terms_of(cluster.node(member_id))[:3] == [1, 2, 2]
