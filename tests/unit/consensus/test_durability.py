"""What may leave a node before what is on disk; and what happens when the disk fails."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    AppendEntries,
    AppendLog,
    AppendReply,
    Apply,
    Effect,
    Heartbeat,
    HeartbeatReply,
    LogPersisted,
    Propose,
    Proposed,
    Read,
    RefusalReason,
    Refused,
    RequestVote,
    Role,
    SaveVote,
    Send,
    StorageFailed,
    TimerExpired,
    TransferLeadership,
    VotePersisted,
    VoteReply,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import (
    HEARTBEAT_US,
    MAX_TIMEOUT_US,
    Server,
    entry,
    log_of,
    notes,
    of,
)


def manual(*terms: int) -> Server:
    server = Server(1, log=log_of(*(terms or (1,))))
    server.writes = server.saves = False
    return server


def gates(effects: list[Effect], kind: type) -> list[tuple[int, int]]:
    return [(s.after_log, s.after_vote) for s in of(Send, effects) if isinstance(s.message, kind)]


# --- what waits for what


def test_a_followers_acknowledgement_waits_for_its_write() -> None:
    server = manual()
    effects = server.receive(2, AppendEntries(1, 1, 1, 1, 1, 0, (entry(2, 1),)))
    (write,) = of(AppendLog, effects)
    assert gates(effects, AppendReply) == [(write.seq, 0)]


def test_a_repeated_request_waits_for_the_first_ones_write() -> None:
    """The entries are in memory and not on disk: to say "I have them" would be a lie."""
    server = manual()
    request = AppendEntries(1, 1, 1, 1, 1, 0, (entry(2, 1),))
    (write,) = of(AppendLog, server.receive(2, request))
    server.receive(2, AppendEntries(1, 2, 1, 2, 1, 0, (entry(3, 1),)))
    effects = server.receive(2, request)
    assert gates(effects, AppendReply) == [(write.seq, 0)]
    server.write_log()
    assert gates(server.receive(2, request), AppendReply) == [(0, 0)]


def test_an_empty_request_behind_an_unwritten_entry_waits_as_well() -> None:
    server = manual()
    (write,) = of(AppendLog, server.receive(2, AppendEntries(1, 1, 1, 1, 1, 0, (entry(2, 1),))))
    effects = server.receive(2, AppendEntries(1, 2, 1, 2, 1, 0, ()))
    assert gates(effects, AppendReply) == [(write.seq, 0)]


def test_after_a_cut_only_the_new_write_counts() -> None:
    """The write of what was cut may still be under way; its end says nothing of the new entries."""
    server = manual()
    server.receive(2, AppendEntries(2, 1, 1, 1, 1, 0, (entry(2, 2), entry(3, 2))))
    effects = server.receive(3, AppendEntries(3, 2, 1, 1, 1, 0, (entry(2, 3),)))
    (write,) = of(AppendLog, effects)
    assert write.truncate_from == 2
    assert [gate[0] for gate in gates(effects, AppendReply)] == [write.seq]
    server.step(LogPersisted(write.seq - 1))
    assert server.node.state.persisted_index == 1
    server.step(LogPersisted(write.seq))
    assert server.node.state.persisted_index == 2


def test_heartbeat_replies_do_not_wait_for_log_writes() -> None:
    """A slow disk must not look like a dead follower."""
    server = manual()
    server.receive(2, AppendEntries(1, 1, 1, 1, 1, 0, (entry(2, 1),)))
    effects = server.receive(2, Heartbeat(1, 2, 1, 0))
    assert gates(effects, HeartbeatReply) == [(0, 0)]


def test_a_heartbeat_reply_in_a_new_term_waits_for_the_term() -> None:
    server = manual()
    effects = server.receive(2, Heartbeat(5, 2, 1, 0))
    (save,) = of(SaveVote, effects)
    assert (save.term, save.voted_for) == (5, 0)
    assert gates(effects, HeartbeatReply) == [(0, save.seq)]
    server.save_vote()
    assert gates(server.receive(2, Heartbeat(5, 3, 1, 0)), HeartbeatReply) == [(0, 0)]


def test_requests_for_votes_and_votes_wait_for_the_vote() -> None:
    server = manual()
    server.now_us = MAX_TIMEOUT_US
    effects = server.receive(2, RequestVote(5, 1, 1, 1, False))
    (save,) = of(SaveVote, effects)
    assert (save.term, save.voted_for) == (5, 2)
    assert gates(effects, VoteReply) == [(0, save.seq)]


def test_the_vote_is_saved_before_what_depends_on_it_and_once_a_step() -> None:
    """Effects are carried out in their order."""
    server = manual()
    server.now_us = MAX_TIMEOUT_US
    effects = server.receive(2, RequestVote(5, 1, 1, 1, False))
    assert isinstance(effects[0], SaveVote)
    assert len(of(SaveVote, effects)) == 1


def test_a_log_write_is_told_before_the_acknowledgement_that_waits_for_it() -> None:
    server = manual()
    effects = server.receive(2, AppendEntries(1, 1, 1, 1, 1, 0, (entry(2, 1),)))
    kinds = [type(effect) for effect in effects]
    assert kinds.index(AppendLog) < kinds.index(Send)


def test_the_leader_sends_while_its_own_write_runs() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster[1].writes = False
    effects = cluster.propose(1)
    assert gates(effects, AppendEntries) == [(0, 0), (0, 0)]


def test_a_commit_does_not_wait_for_the_leaders_own_disk_when_a_majority_has_it() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster[1].writes = False
    cluster.propose(1, b"x")
    cluster.settle()
    assert cluster.applied(1) == [b"x"]


def test_numbers_of_writes_rise_by_one() -> None:
    cluster = Cluster()
    for leader in (1, 2, 3, 1):
        cluster.elect(leader)
        cluster.propose(leader)
        cluster.settle()
    for server in cluster.servers.values():
        writes = [write.seq for write in of(AppendLog, server.history)]
        saves = [save.seq for save in of(SaveVote, server.history)]
        assert writes == list(range(1, len(writes) + 1))
        assert saves == list(range(1, len(saves) + 1))


def test_nothing_acknowledged_is_lost_when_all_lose_power_at_once() -> None:
    """Writes under way are lost everywhere; what a client could have heard of is not."""
    cluster = Cluster()
    cluster.elect(1)
    for number in range(10):
        cluster.propose(1, b"%d" % number)
        cluster.settle()
    for server in cluster.servers.values():
        server.writes = False
    cluster.propose(1, b"never acknowledged")
    cluster.settle()
    assert b"never acknowledged" not in cluster.applied(1)
    cluster.drop()
    for member_id in (1, 2, 3):
        cluster[member_id].writes = True
        cluster.restart(member_id)
    cluster.run_for(10 * MAX_TIMEOUT_US)
    assert len(cluster.leaders) == 1
    assert [cluster.applied(i) for i in (1, 2, 3)] == [[b"%d" % n for n in range(10)]] * 3


# --- a disk that fails


def test_a_leader_whose_disk_fails_steps_down_and_another_takes_over() -> None:
    cluster = Cluster()
    cluster.elect(1)
    effects = cluster.step(1, StorageFailed("fsync: EIO"))
    assert cluster.node(1).role is Role.FOLLOWER
    assert "storage_failed" in notes(effects)
    cluster.run_for(5 * MAX_TIMEOUT_US)
    assert cluster.leaders[0] in (2, 3)


@pytest.mark.parametrize("event", [Propose(7, 1, b"x"), Read(7), TransferLeadership(7, 0)])
def test_a_node_whose_disk_failed_refuses_and_says_why(event: object) -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.step(1, StorageFailed("fsync: EIO"))
    effects = cluster.step(1, event)  # type: ignore[arg-type]
    assert of(Refused, effects) == [Refused(7, RefusalReason.STORAGE_FAILED, 0)]
    assert not of(Proposed, effects)


def test_a_node_whose_disk_failed_never_acknowledges_votes_or_stands() -> None:
    server = manual()
    server.receive(2, AppendEntries(1, 1, 1, 1, 1, 0, (entry(2, 1),)))
    server.step(StorageFailed("fsync: EIO"))
    server.now_us = 10 * MAX_TIMEOUT_US
    for message in (
        AppendEntries(1, 2, 1, 2, 1, 2, ()),
        Heartbeat(1, 3, 1, 2),
        RequestVote(9, 4, 9, 8, False),
    ):
        assert server.receive(2, message) == []
    assert server.step(TimerExpired()) == []
    assert server.node.next_deadline_us is None
    assert server.outbox == []
    assert server.node.role is Role.FOLLOWER


def test_words_of_success_that_come_after_the_failure_count_for_nothing() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster[1].writes = False
    cluster.propose(1, b"x")
    cluster.step(1, StorageFailed("disk full"))
    for event in (LogPersisted(99), VotePersisted(99)):
        assert cluster.step(1, event) == []
    assert leader.commit_index == 2


def test_a_candidate_whose_disk_fails_is_no_candidate_any_more() -> None:
    server = manual()
    server.tick()
    assert server.node.role is Role.PRE_CANDIDATE
    server.step(StorageFailed("fsync: EIO"))
    assert server.node.role is Role.FOLLOWER


def test_a_new_core_made_from_the_disk_takes_part_again() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster[1].writes = False
    cluster.propose(1, b"in memory only")
    cluster.drop()
    cluster.step(1, StorageFailed("disk full"))
    cluster.run_for(3 * MAX_TIMEOUT_US)
    cluster[1].writes = True
    cluster.restart(1)
    (leader,) = cluster.leaders
    cluster.propose(leader, b"x")
    cluster.run_for(3 * HEARTBEAT_US)
    assert cluster.applied(1) == [b"x"]
    assert cluster[1].disk == cluster[leader].disk


def test_a_fresh_node_whose_disk_fails_does_not_found() -> None:
    server = Server(1, log=[], bootstrap=True)
    server.step(StorageFailed("read-only file system"))
    assert server.node.next_deadline_us is None
    assert not of(AppendLog, server.step(TimerExpired()))
    assert not of(Apply, server.history)
