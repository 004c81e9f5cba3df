"""Logs larger than memory: batches that left it are asked for with ReadLog."""

from __future__ import annotations

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Apply,
    Heartbeat,
    LogRead,
    PeerConnected,
    PreVote,
    PreVoteReply,
    ReadLog,
    RequestVote,
    Role,
    Settings,
    Vote,
    VoteReply,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import (
    Server,
    entry,
    first_resident_index,
    log_of,
    of,
    sends,
    terms_of,
)

SMALL = Settings(resident_bytes=2_000, max_apply_bytes=1_000, max_append_bytes=1_000)


def long_log(terms: int = 2, entries: int = 60) -> list[Batch]:
    return [*log_of(1), *[entry(index, terms) for index in range(2, entries + 1)]]


def lagging(*, reads: bool = True) -> Cluster:
    """1 leads with few batches in memory; 3 lacks all but the first entry and can't be reached."""
    log = long_log()
    cluster = Cluster(logs={1: log, 2: log, 3: log_of(1)}, settings=SMALL)
    cluster.down.add(3)
    cluster.elect(1)
    assert first_resident_index(cluster.node(1).log) > 20
    cluster[1].reads = reads
    return cluster


def test_applied_batches_leave_memory_and_terms_stay() -> None:
    cluster = lagging()
    log = cluster.node(1).log
    assert log.resident_bytes <= 2 * SMALL.resident_bytes
    assert terms_of(cluster.node(1)) == [1, *[2] * 59, 3]


def test_what_is_not_applied_or_not_on_disk_stays_in_memory() -> None:
    """Nobody else has it."""
    server = Server(1, log=long_log(), settings=SMALL)
    server.applies = False
    server.receive(2, Heartbeat(2, 1, 1, 60))
    assert first_resident_index(server.node.log) == 1
    server.applies = True
    server.finish_apply()
    assert first_resident_index(server.node.log) > 1
    server.writes = False
    batches = tuple(entry(index, 2, payload=b"x" * 500) for index in range(61, 81))
    server.receive(2, AppendEntries(2, 1, 1, 60, 2, 80, batches))
    assert server.node.applied_index == 80
    assert first_resident_index(server.node.log) <= 61
    server.write_log()
    assert first_resident_index(server.node.log) > 61


# --- for peers


def test_a_peer_that_lags_behind_memory_is_fed_from_disk() -> None:
    cluster = lagging()
    cluster.restart(3)
    cluster.settle()
    assert cluster[3].disk == cluster[1].disk
    assert of(ReadLog, cluster[1].history)


def test_one_read_is_under_way_for_a_peer_and_it_names_the_peer() -> None:
    cluster = lagging(reads=False)
    cluster.restart(3)
    cluster.settle()
    for _ in range(5):
        cluster.propose(1)
        cluster.settle()
    (read,) = cluster[1].reading
    assert (read.purpose, read.from_index) == (3, 2)
    assert cluster.node(3).log.last_index == 1
    assert cluster.node(2).commit_index == 66


def test_what_was_read_goes_out_and_the_next_part_is_read() -> None:
    cluster = lagging(reads=False)
    cluster.restart(3)
    cluster.settle()
    reads = 0
    while cluster[1].reading:
        reads += 1
        cluster.run(1, lambda server: server.read_log())
        cluster.settle()
    assert reads >= 3
    assert cluster[3].disk == cluster[1].disk


def test_a_read_from_before_a_reconnect_may_be_used_but_never_twice() -> None:
    cluster = lagging(reads=False)
    cluster.restart(3)
    cluster.settle()
    cluster.step(1, PeerConnected(3, "n3"))
    cluster.settle()
    assert len(cluster[1].reading) == 2
    while cluster[1].reading:
        cluster.run(1, lambda server: server.read_log())
        cluster.settle()
    assert cluster[3].disk == cluster[1].disk


def test_a_read_that_starts_before_what_was_asked_for_sends_the_whole_batch() -> None:
    """The disk gives whole batches; the follower's log ended inside one of the leader's."""
    log = [*log_of(1), entry(2, 3, count=10), *[entry(i, 3) for i in range(12, 70)]]
    behind = log_of(1, 2, 2, 2)
    cluster = Cluster(logs={1: log, 2: log, 3: behind}, settings=SMALL)
    cluster.down.add(3)
    cluster.elect(1)
    assert first_resident_index(cluster.node(1).log) > 12
    cluster.restart(3)
    cluster.settle()
    assert cluster[3].disk == cluster[1].disk


def test_a_read_for_a_leadership_that_is_over_is_ignored() -> None:
    cluster = lagging(reads=False)
    cluster.restart(3)
    cluster.settle()
    answer = cluster[1].answer_to(cluster[1].reading.popleft())
    cluster.elect(2)
    assert not sends(AppendEntries, cluster.step(1, answer))


def test_a_read_is_asked_for_again_when_it_found_nothing() -> None:
    """Empty: the log was cut there in the meantime, which a leader's never is while it leads."""
    cluster = lagging(reads=False)
    cluster.restart(3)
    cluster.settle()
    read = cluster[1].reading.popleft()
    cluster.step(1, LogRead(3, read.from_index, ()))
    assert list(cluster[1].reading) == [read]


def test_a_read_from_before_the_log_was_cut_is_not_sent_as_the_leaders_own() -> None:
    """1 asks the disk, loses its office, its log is cut, it leads again and asks for the same
    place: then the first answer comes, with entries that are in its log no more."""
    server = Server(1, log=long_log(entries=60), settings=SMALL, resident_from=61)
    server.reads = False
    _lead(server, peer_ends_at=31)
    server.read_log()
    request = sends(AppendEntries, server.history, to=2)[-1]
    server.receive(
        2, AppendReply(request.term, request.request_id, request.session, True, 32, 0, 0)
    )
    (read,) = server.reading
    stale = server.answer_to(read)
    assert (stale.from_index, stale.batches[-1].last_index) >= (33, 36)
    server.reading.clear()
    server.receive(3, AppendEntries(4, 1, 1, 34, 2, 0, (entry(35, 4),)))
    assert terms_of(server.node) == [1, *[2] * 33, 4]
    _lead(server, peer_ends_at=32)
    assert [again.from_index for again in server.reading] == [33]
    sent = sends(AppendEntries, server.step(stale), to=2)
    held = server.node.log.holds
    assert all(held(batch.last_index, batch.term) for m in sent for batch in m.batches)


def _lead(server: Server, *, peer_ends_at: int) -> None:
    """Win an election with 2's vote; 2 says that its log ends there, in an entry of term 2."""
    server.tick()
    if server.node.role is Role.FOLLOWER:
        server.tick()
    asked = sends(PreVote, server.history, to=2)[-1]
    server.receive(2, PreVoteReply(asked.term, asked.request_id, True))
    request = sends(RequestVote, server.history, to=2)[-1]
    server.receive(2, VoteReply(request.term, request.request_id, True))
    assert server.node.role is Role.LEADER
    probe = sends(AppendEntries, server.history, to=2)[-1]
    server.receive(
        2, AppendReply(probe.term, probe.request_id, probe.session, False, 0, peer_ends_at, 2)
    )


# --- for applying


def test_a_restarted_node_applies_from_disk_what_it_does_not_hold_in_memory() -> None:
    server = Server(1, log=long_log(), settings=SMALL, resident_from=50)
    server.receive(2, Heartbeat(2, 1, 1, 60))
    assert server.node.applied_index == 60
    assert [batch.first_index for batch in server.applied] == list(range(1, 61))
    assert {read.purpose for read in of(ReadLog, server.history)} == {0}


def test_one_read_and_one_portion_are_under_way_for_applying() -> None:
    server = Server(1, log=long_log(), settings=SMALL, resident_from=50)
    server.reads = server.applies = False
    server.receive(2, Heartbeat(2, 1, 1, 30))
    server.receive(2, Heartbeat(2, 2, 1, 40))
    assert [read.from_index for read in server.reading] == [1]
    (apply,) = of(Apply, server.read_log())
    assert sum(len(batch.record) for batch in apply.batches) <= SMALL.max_apply_bytes
    server.receive(2, Heartbeat(2, 3, 1, 60))
    assert not server.reading
    server.finish_apply()
    assert len(server.reading) == 1


def test_a_read_that_brings_more_than_is_committed_applies_what_is() -> None:
    server = Server(1, log=long_log(), settings=SMALL, resident_from=50)
    server.reads = False
    server.receive(2, Heartbeat(2, 1, 1, 3))
    server.read_log()
    assert server.node.applied_index == 3


def test_an_answer_that_nobody_waits_for_is_ignored() -> None:
    server = Server(1, log=long_log(), settings=SMALL, resident_from=50)
    assert server.step(LogRead(0, 1, tuple(long_log()[:5]))) == []
    assert server.step(LogRead(7, 1, tuple(long_log()[:5]))) == []


def test_a_log_that_is_all_on_disk_can_be_cut() -> None:
    server = Server(1, log=long_log(), vote=Vote(3), resident_from=1000)
    server.receive(2, AppendEntries(3, 1, 1, 30, 2, 0, (entry(31, 3),)))
    assert terms_of(server.node) == [1, *[2] * 29, 3]
    assert [batch.first_index for batch in server.node.log.resident_batches] == [31]
