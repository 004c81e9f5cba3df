"""Figure 2, box "AppendEntries RPC": what the receiver does, 1 to 5."""

from __future__ import annotations

import pytest

from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.invariants import BrokenInvariantError
from raft_agent.consensus.membership import encode_configuration
from raft_agent.consensus.types import (
    AppendEntries,
    AppendLog,
    AppendReply,
    ConfigurationChanged,
    Heartbeat,
    HeartbeatReply,
    Role,
)
from tests.unit.consensus.server import (
    Server,
    configuration_of,
    entry,
    log_of,
    notes,
    of,
    sends,
    terms_of,
)


def append(
    term: int, prev: tuple[int, int], *batches: Batch, commit: int = 0, request_id: int = 7
) -> AppendEntries:
    """From a leader of `term`, behind `prev` (index, term)."""
    return AppendEntries(term, request_id, 4, prev[0], prev[1], commit, batches)


# --- 1


def test_reply_false_if_term_is_less_than_current_term() -> None:
    """Receiver 1, §5.1: the sender learns the later term, and nothing else happens."""
    server = Server(1, log=log_of(1, 5))
    effects = server.receive(2, append(4, (1, 1), entry(2, 4), commit=2))
    assert terms_of(server.node) == [1, 5]
    assert server.node.commit_index == 0
    assert server.node.leader_id == 0
    (reply,) = sends(HeartbeatReply, effects, to=2)
    assert reply.term == 5
    assert not sends(AppendReply, effects)


def test_a_stale_leader_does_not_keep_the_receiver_from_standing() -> None:
    """Receiver 1, §5.2: only the current leader resets the election timer."""
    server = Server(1, log=log_of(1, 5))
    due = server.node.next_deadline_us
    server.now_us = 100_000
    server.receive(2, append(4, (1, 1)))
    server.receive(2, Heartbeat(4, 1, 1, 0))
    assert server.node.next_deadline_us == due


# --- 2


@pytest.mark.parametrize("prev", [(3, 2), (9, 2), (2, 1)])
def test_reply_false_if_the_log_has_no_entry_at_prev_log_index_with_that_term(
    prev: tuple[int, int],
) -> None:
    """Receiver 2, §5.3: nothing is taken in behind an entry that is not there."""
    server = Server(1, log=log_of(1, 2))
    effects = server.receive(2, append(2, prev, entry(prev[0] + 1, 2), commit=9))
    (reply,) = sends(AppendReply, effects, to=2)
    assert not reply.success
    assert (reply.request_id, reply.session) == (7, 4)
    assert terms_of(server.node) == [1, 2]
    assert server.node.commit_index == 0


def test_a_refusal_says_where_the_logs_may_still_agree() -> None:
    """§5.3, last paragraphs: the hint is the follower's last entry at or before prev_log_index of
    a term that the leader's log may hold there."""
    server = Server(1, log=log_of(1, 1, 2, 2, 5, 5))
    effects = server.receive(2, append(6, (6, 4)))
    (reply,) = sends(AppendReply, effects)
    assert (reply.hint_index, reply.hint_term) == (4, 2)
    (reply,) = sends(AppendReply, server.receive(2, append(6, (90, 6))))
    assert (reply.hint_index, reply.hint_term) == (6, 5)


def test_prev_log_index_zero_always_agrees() -> None:
    """§5.3: before the first entry all logs are equal."""
    server = Server(1, log=log_of(1))
    (reply,) = sends(AppendReply, server.receive(2, append(1, (0, 0))))
    assert reply.success
    assert reply.match_index == 0


# --- 3


def test_delete_the_existing_entry_and_all_that_follow_it_if_it_conflicts() -> None:
    """Receiver 3, §5.3: same index, different term."""
    server = Server(1, log=log_of(1, 2, 2, 2))
    effects = server.receive(2, append(3, (2, 2), entry(3, 3)))
    assert terms_of(server.node) == [1, 2, 3]
    (write,) = of(AppendLog, effects)
    assert write.truncate_from == 3
    assert [batch.term for batch in server.disk] == [1, 2, 3]


def test_entries_that_do_not_conflict_are_never_deleted() -> None:
    """Receiver 3: an old, delayed request holds less than the log does and cuts nothing."""
    server = Server(1)
    server.receive(2, append(2, (1, 1), entry(2, 2), entry(3, 2), entry(4, 2)))
    for old in (append(2, (1, 1), entry(2, 2)), append(2, (1, 1)), append(2, (2, 2), entry(3, 2))):
        effects = server.receive(2, old)
        assert not of(AppendLog, effects)
        assert terms_of(server.node) == [1, 2, 2, 2]
        assert sends(AppendReply, effects)[0].success


def test_a_conflict_in_the_middle_of_a_request_keeps_what_agrees() -> None:
    """Receiver 3 and 4: only from the first conflict on is anything written."""
    server = Server(1, log=log_of(1, 2, 2, 2))
    effects = server.receive(2, append(4, (1, 1), entry(2, 2), entry(3, 4), entry(4, 4)))
    (write,) = of(AppendLog, effects)
    assert write.truncate_from == 3
    assert [batch.first_index for batch in write.batches] == [3, 4]


def test_a_committed_entry_is_never_deleted() -> None:
    """§5.4: a leader that asks for that is no Raft leader; the node stops."""
    server = Server(1, log=log_of(1, 2, 2))
    server.receive(2, Heartbeat(2, 1, 1, 3))
    with pytest.raises(BrokenInvariantError, match="committed entry is never cut"):
        server.receive(3, append(3, (1, 1), entry(2, 3)))


def test_a_configuration_that_is_deleted_is_in_force_no_more() -> None:
    """§6: a server uses the latest configuration in its log, so a cut brings the older one back."""
    server = Server(1)
    three, four = configuration_of(3), configuration_of(4)
    added = encode(BatchKind.CONFIGURATION, 2, 2, 1, encode_configuration(four))
    effects = server.receive(2, append(2, (1, 1), added))
    assert server.node.configuration == four
    assert of(ConfigurationChanged, effects) == [ConfigurationChanged(four, 2)]
    effects = server.receive(3, append(3, (1, 1), entry(2, 3)))
    assert server.node.configuration == three
    assert of(ConfigurationChanged, effects) == [ConfigurationChanged(three, 1)]


# --- 4


def test_append_any_new_entries_not_already_in_the_log() -> None:
    """Receiver 4: what overlaps is written once, in order."""
    server = Server(1)
    server.receive(2, append(2, (1, 1), entry(2, 2), entry(3, 2)))
    effects = server.receive(2, append(2, (1, 1), entry(2, 2), entry(3, 2), entry(4, 2)))
    (write,) = of(AppendLog, effects)
    assert [batch.first_index for batch in write.batches] == [4]
    assert write.truncate_from == 0
    (reply,) = sends(AppendReply, effects)
    assert (reply.success, reply.match_index) == (True, 4)


def test_a_repeated_request_changes_nothing_and_gets_the_same_answer() -> None:
    """§5.5: the RPCs are idempotent."""
    server = Server(1)
    request = append(2, (1, 1), entry(2, 2, count=3))
    first = sends(AppendReply, server.receive(2, request))
    effects = server.receive(2, request)
    assert sends(AppendReply, effects) == first
    assert not of(AppendLog, effects)
    assert server.node.log.last_index == 4


@pytest.mark.parametrize(
    "batches",
    [(entry(3, 2),), (entry(2, 2), entry(4, 2)), (entry(2, 3),), (entry(2, 2), entry(3, 1))],
    ids=["gap at start", "gap inside", "later than the leader's term", "terms fall"],
)
def test_a_request_that_no_leader_could_have_sent_is_not_taken_in(
    batches: tuple[Batch, ...],
) -> None:
    """§5.3: entries follow each other without a gap, in terms that never fall."""
    server = Server(1)
    effects = server.receive(2, append(2, (1, 1), *batches))
    assert terms_of(server.node) == [1]
    assert "malformed_append" in notes(effects)
    assert not sends(AppendReply, effects)


def test_a_configuration_that_can_not_be_read_is_not_taken_in() -> None:
    """The bytes came over the network with a good checksum; they must not end the process."""
    server = Server(1)
    nonsense = encode(BatchKind.CONFIGURATION, 2, 2, 1, b"no configuration")
    effects = server.receive(2, append(2, (1, 1), nonsense))
    assert terms_of(server.node) == [1]
    assert "malformed_append" in notes(effects)


# --- 5


@pytest.mark.parametrize(
    ("leader_commit", "sent", "expected"), [(2, 2, 2), (9, 2, 3), (9, 0, 1), (3, 2, 3)]
)
def test_commit_index_is_the_minimum_of_leader_commit_and_the_last_new_entry(
    leader_commit: int, sent: int, expected: int
) -> None:
    """Receiver 5: what lies behind the request may not be the leader's, so it does not count."""
    server = Server(1, log=log_of(1, 1, 1, 1, 1))
    batches = [entry(index, 1) for index in range(2, 2 + sent)]
    server.receive(2, append(2, (1, 1), *batches, commit=leader_commit))
    assert server.node.commit_index == expected
    assert server.node.log.last_index == 5


def test_a_leader_commit_that_is_not_greater_changes_nothing() -> None:
    """Receiver 5: only "if leaderCommit > commitIndex"."""
    server = Server(1, log=log_of(1, 1, 1))
    server.receive(2, append(1, (3, 1), commit=3))
    server.receive(2, append(1, (3, 1), commit=2))
    assert server.node.commit_index == 3


# --- results


def test_the_reply_has_the_current_term_for_the_leader_to_update_itself() -> None:
    """Figure 2, "Results"."""
    server = Server(1, log=log_of(1, 2))
    (reply,) = sends(AppendReply, server.receive(2, append(6, (2, 2))))
    assert reply.term == 6
    assert server.node.current_term == 6


def test_leader_id_is_so_the_follower_can_redirect_clients() -> None:
    """Figure 2, "Arguments": leaderId."""
    server = Server(1)
    server.receive(3, append(2, (1, 1)))
    assert server.node.leader_id == 3
    assert server.node.role is Role.FOLLOWER


def test_a_second_leader_in_one_term_stops_the_node() -> None:
    """§5.2: at most one leader is elected in a term; whoever sees two must not go on."""
    server = Server(1)
    server.receive(3, append(2, (1, 1)))
    with pytest.raises(BrokenInvariantError, match="a term has one leader"):
        server.receive(2, append(2, (1, 1)))
