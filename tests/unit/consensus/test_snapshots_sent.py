"""What a leader sends to a follower that its log can't bring up (§7 of the paper)."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Effect,
    MembershipChange,
    PeerConnected,
    PreVote,
    PreVoteReply,
    ReadSnapshot,
    Role,
    Settings,
    SnapshotChunk,
    SnapshotRead,
    SnapshotReply,
    VoteReply,
)
from tests.unit.consensus.harness import Cluster, member
from tests.unit.consensus.server import (
    HEARTBEAT_US,
    MAX_TIMEOUT_US,
    Server,
    log_of,
    notes,
    of,
    sends,
)


@pytest.mark.parametrize("compact_to", [3, 4])
def test_a_follower_whose_log_differs_at_the_base_gets_a_snapshot(compact_to: int) -> None:
    """Its last entry stands where the leader's log begins, or behind, and is of an older term."""
    long = log_of(1, 2, 4, 4, 4)
    cluster = Cluster(3, logs={1: long, 2: long, 3: log_of(1, 2, 3, 3)})
    cluster.down = {3}
    cluster.elect(1)
    cluster.run_for(5 * MAX_TIMEOUT_US)  # it is waited for no longer
    cluster.run(1, lambda server: server.take_snapshot(compact_to))
    cluster.restart(3)
    cluster.settle()
    cluster.propose(1, b"after")
    cluster.settle()
    assert cluster.applied(3) == cluster.applied(1)
    assert cluster[3].disk_base == (6, 5)


def test_a_probe_that_was_lost_is_sent_again_and_no_snapshot_in_its_place() -> None:
    """The follower may hold all that it needs; only its answer is overdue."""
    cluster = Cluster(3, logs=dict.fromkeys((1, 2, 3), log_of(*[1] * 8)))
    cluster.down = {3}
    cluster.elect(1)
    for payload in (b"a", b"b"):
        cluster.propose(1, payload)
        cluster.settle()
    cluster.run(1, lambda server: server.take_snapshot(8))
    cluster.down = set()
    cluster.run_for(4 * MAX_TIMEOUT_US)
    assert not [note for note in cluster[3].history if "snapshot" in str(note)]
    assert cluster.applied(3) == cluster.applied(1)
    assert sends(AppendEntries, cluster[1].history, to=3)


def test_a_fresh_learner_gets_its_snapshot_over_a_link_slower_than_heartbeats() -> None:
    """It answers each message with its token; that must not begin the transmission anew."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.run(1, lambda server: server.take_snapshot(2))
    cluster.change(1, MembershipChange(add=(member(4),)))
    cluster.settle()
    cluster.delay_us[4] = HEARTBEAT_US + HEARTBEAT_US // 5
    cluster.add(4)
    cluster.run_for(4 * MAX_TIMEOUT_US)
    assert cluster.node(4).commit_index == cluster.node(1).commit_index
    assert notes(cluster[1].history).count("snapshot_offered") == 1


# --- one leader, whose follower the test speaks for

CHUNK = 100
PATIENCE_US = 4 * MAX_TIMEOUT_US


def sending() -> Server:
    """1 leads term 2 and has just offered 3 its snapshot of the entry 12."""
    small = Settings(snapshot_chunk_bytes=CHUNK)
    server = Server(1, log=log_of(*[1] * 10), settings=small)
    (request, *_) = sends(PreVote, server.tick())
    server.receive(2, PreVoteReply(2, request.request_id, True))
    server.receive(2, VoteReply(2, server.node.state.next_request_id() - 1, True))
    assert server.node.role is Role.LEADER
    server.propose(b"x")
    server.receive(2, AppendReply(2, 1, server.node.progress[2].session, True, 12, 0, 0))
    assert server.node.applied_index == 12
    server.take_snapshot(12)
    (probe,) = sends(AppendEntries, server.step(PeerConnected(3, "n3")), to=3)
    refusal = AppendReply(2, probe.request_id, probe.session, False, 0, 5, 1)
    (offer,) = sends(SnapshotChunk, server.receive(3, refusal))
    assert offer.data == b""
    return server


def last_chunk(server: Server) -> SnapshotChunk:
    return sends(SnapshotChunk, server.history, to=3)[-1]


def answer(server: Server, offset: int, *, done: bool = False) -> list[Effect]:
    """To what was sent last."""
    chunk = last_chunk(server)
    reply = SnapshotReply(2, chunk.request_id, chunk.session, chunk.index, offset, done)
    return server.receive(3, reply)


def test_an_offer_names_the_file_and_has_no_data() -> None:
    server = sending()
    file = server.snapshots.newest
    assert file is not None
    offer = last_chunk(server)
    assert (offer.index, offer.index_term) == (12, 2)
    assert (offer.size_bytes, offer.checksum) == (len(file.data), file.meta.checksum)
    assert (offer.offset, offer.token) == (0, 0)


def test_pieces_go_one_at_a_time_from_where_the_follower_is() -> None:
    server = sending()
    file = server.snapshots.newest
    assert file is not None
    for offset in (7, 7 + CHUNK, 7 + 2 * CHUNK):
        effects = answer(server, offset)
        assert of(ReadSnapshot, effects) == [ReadSnapshot(3, 12, offset, CHUNK)]
        (chunk,) = sends(SnapshotChunk, effects, to=3)
        assert (chunk.offset, chunk.data) == (offset, file.data[offset : offset + CHUNK])
    assert notes(server.history).count("snapshot_offered") == 1


def test_no_entries_are_sent_while_a_snapshot_is() -> None:
    server = sending()
    assert not sends(AppendEntries, server.propose(b"y"), to=3)
    server.now_us += PATIENCE_US // 2
    assert not sends(AppendEntries, server.tick(), to=3)


def test_the_log_follows_once_the_snapshot_is_there() -> None:
    server = sending()
    server.propose(b"y")
    effects = answer(server, 0, done=True)
    (append,) = sends(AppendEntries, effects, to=3)
    assert (append.prev_index, append.prev_term) == (12, 2)
    assert [batch.first_index for batch in append.batches] == [13]
    assert server.node.progress[3].match_index == 12
    assert "snapshot_sent" in notes(effects)


def test_only_the_answer_to_what_was_sent_last_goes_on() -> None:
    server = sending()
    first = last_chunk(server)
    answer(server, 0)
    late = SnapshotReply(2, first.request_id, first.session, 12, CHUNK, False)
    assert not server.receive(3, late)


def test_what_another_session_or_snapshot_says_counts_for_nothing() -> None:
    server = sending()
    chunk = last_chunk(server)
    for session, index in ((chunk.session + 1, 12), (chunk.session, 11)):
        effects = server.receive(3, SnapshotReply(2, chunk.request_id, session, index, 0, True))
        assert not effects
    assert server.node.progress[3].match_index == 0
    assert not server.receive(9, SnapshotReply(2, chunk.request_id, chunk.session, 12, 0, True))


def test_whoever_has_the_whole_file_is_waited_for() -> None:
    server = sending()
    assert not of(ReadSnapshot, answer(server, last_chunk(server).size_bytes))
    server.now_us += 1
    assert not sends(SnapshotChunk, server.tick(), to=3)


def test_an_overdue_answer_is_asked_for_by_another_offer() -> None:
    server = sending()
    answer(server, 0)
    sent_us = server.now_us
    assert last_chunk(server).data
    for us, is_offered in ((PATIENCE_US, False), (PATIENCE_US + 1, True)):
        server.now_us = sent_us + us
        progress = server.node.progress
        progress[2].last_contact_us = server.now_us
        server.node.state.leadership.heartbeat_due_us = server.now_us  # type: ignore[union-attr]
        effects = server.tick()
        assert bool(sends(SnapshotChunk, effects, to=3)) == is_offered
    assert last_chunk(server).data == b""
    assert of(ReadSnapshot, answer(server, CHUNK))[0].offset == CHUNK


def test_a_piece_that_was_read_before_another_offer_is_not_sent() -> None:
    server = sending()
    server.installs = False
    answer(server, 0)
    server.now_us += PATIENCE_US + 1
    server.node.progress[2].last_contact_us = server.now_us
    assert sends(SnapshotChunk, server.tick(), to=3)
    assert not sends(SnapshotChunk, server.do_snapshot_work())


def test_an_answer_while_a_piece_is_read_asks_for_no_other() -> None:
    server = sending()
    server.installs = False
    answer(server, 0)
    assert not of(ReadSnapshot, answer(server, 0))
    assert len(server.snapshot_work) == 1


def test_a_newer_snapshot_is_sent_from_the_start_when_the_file_is_gone() -> None:
    server = sending()
    answer(server, 0)
    for payload in (b"y", b"z"):
        server.propose(payload)
        last_index = server.node.log.last_index
        session = server.node.progress[2].session
        server.receive(2, AppendReply(2, 1, session, True, last_index, 0, 0))
        server.take_snapshot(12)
    (offer,) = sends(SnapshotChunk, answer(server, CHUNK), to=3)
    assert (offer.index, offer.offset, offer.data) == (14, 0, b"")
    (chunk,) = sends(SnapshotChunk, answer(server, 0), to=3)
    assert (chunk.index, chunk.offset) == (14, 0)
    assert chunk.data


def test_a_file_that_can_not_be_read_is_asked_for_again_only_after_a_while() -> None:
    """There is no newer one; to ask at once would be to ask for ever."""
    server = sending()
    server.snapshots.kept.clear()
    assert not sends(SnapshotChunk, answer(server, 0), to=3)
    server.now_us += PATIENCE_US + 1
    server.node.progress[2].last_contact_us = server.now_us
    assert sends(SnapshotChunk, server.tick(), to=3)


def test_a_follower_that_reconnects_goes_on_where_it_was() -> None:
    server = sending()
    answer(server, 0)
    (probe,) = sends(AppendEntries, server.step(PeerConnected(3, "n3")), to=3)
    server.receive(3, AppendReply(2, probe.request_id, probe.session, False, 0, 5, 1))
    assert last_chunk(server).session == probe.session
    assert of(ReadSnapshot, answer(server, CHUNK))[0].offset == CHUNK


def test_what_is_read_for_who_is_no_peer_any_more_is_not_sent() -> None:
    server = sending()
    assert not server.step(SnapshotRead(9, 12, 0, b"x"))
    server.step(PeerConnected(3, "n3"))
    assert not server.step(SnapshotRead(3, 12, 0, b"x"))
    server.receive(2, AppendReply(9, 1, 1, False, 0, 0, 0))
    assert server.node.role is not Role.LEADER
    assert not server.step(SnapshotRead(3, 12, 0, b"x"))
