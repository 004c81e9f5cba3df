"""What a leader keeps count of: commits, contacts, uncommitted bytes, places in logs."""

from __future__ import annotations

import pytest

from raft_agent.consensus.leadership import Leadership
from raft_agent.consensus.node import Node
from raft_agent.consensus.progress import ReplicationState
from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Effect,
    Heartbeat,
    HeartbeatReply,
    PeerConnected,
    ReadLog,
    Role,
    Settings,
    TimerExpired,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import (
    HEARTBEAT_US,
    MAX_TIMEOUT_US,
    MIN_TIMEOUT_US,
    Server,
    log_of,
    of,
    sends,
)

# Heartbeats without an answer after which a leader still leads.
BORNE_BEATS = MAX_TIMEOUT_US // HEARTBEAT_US


def leader(settings: Settings | None = None) -> tuple[Server, Node, Leadership]:
    """Leads term 2 of three; its no-op at index 2 is committed and known to all."""
    cluster = Cluster(settings=settings or Settings())
    node = cluster.elect(1)
    assert node.state.leadership is not None
    return cluster[1], node, node.state.leadership


def acknowledge(server: Server, peer: int, match_index: int) -> None:
    progress = server.node.progress[peer]
    server.receive(peer, AppendReply(2, 1, progress.session, True, match_index, 0, 0))


def test_a_commit_index_never_goes_back_when_peers_are_met_anew() -> None:
    """A new session knows nothing of a peer, so a quorum seems to hold less than it does."""
    server, node, _ = leader()
    server.propose(b"a")
    server.propose(b"b")
    acknowledge(server, 2, 4)
    assert node.commit_index == 4
    server.step(PeerConnected(2, "n2"))
    server.step(PeerConnected(3, "n3"))
    acknowledge(server, 2, 3)
    assert node.commit_index == 4


def test_only_what_is_committed_is_no_longer_counted_as_uncommitted() -> None:
    server, _, leadership = leader()
    assert leadership.uncommitted_bytes == 0
    server.propose(b"short")
    first = leadership.uncommitted_bytes
    server.propose(b"a longer one")
    second = leadership.uncommitted_bytes - first
    assert (first, second) == (85, 92)
    acknowledge(server, 2, 3)
    assert leadership.uncommitted_bytes == second
    acknowledge(server, 2, 4)
    assert leadership.uncommitted_bytes == 0


def beat(server: Server, times: int) -> list[Effect]:
    """Heartbeats that nobody answers; the effects of the last."""
    effects: list[Effect] = []
    for _ in range(times):
        server.now_us += HEARTBEAT_US
        effects = server.step(TimerExpired())
    return effects


def test_acknowledgements_keep_a_leader_in_office_as_heartbeat_replies_do() -> None:
    server, node, _ = leader()
    beat(server, BORNE_BEATS)
    acknowledge(server, 3, 2)
    beat(server, BORNE_BEATS)
    assert node.role is Role.LEADER


def test_a_leader_that_steps_down_sends_no_more_heartbeats() -> None:
    server, node, _ = leader()
    assert sends(Heartbeat, beat(server, BORNE_BEATS))
    effects = beat(server, 1)
    assert node.role is Role.FOLLOWER
    assert not sends(Heartbeat, effects)
    assert not sends(AppendEntries, effects)
    due_us = node.next_deadline_us
    assert due_us is not None
    assert due_us >= server.now_us + MIN_TIMEOUT_US


def test_a_peer_that_connects_anew_is_probed_at_the_end_of_the_log() -> None:
    server, _, _ = leader()
    server.propose()
    (probe,) = sends(AppendEntries, server.step(PeerConnected(2, "n2")), to=2)
    assert (probe.prev_index, probe.batches) == (3, ())


def test_what_is_overdue_is_sent_again_from_right_behind_what_is_acknowledged() -> None:
    server, _, _ = leader()
    server.propose()
    server.propose()
    acknowledge(server, 2, 3)
    acknowledge(server, 3, 3)
    for _ in range(8):
        server.now_us += HEARTBEAT_US
        effects = server.step(TimerExpired())
        for peer in (2, 3):
            for beat in sends(Heartbeat, effects, to=peer):
                assert beat.commit_index == 3
        again = sends(AppendEntries, effects, to=2)
        if again:
            break
        # A quorum is heard, so that it leads on; but the entry is lost on the way.
        server.node.progress[3].last_contact_us = server.now_us
    assert [(m.prev_index, [b.first_index for b in m.batches]) for m in again] == [(3, [4])]


def test_a_commit_that_goes_out_with_the_next_entries_is_not_announced_as_well() -> None:
    server, _, _ = leader(Settings(max_inflight_messages=1))
    server.propose(b"a")
    server.propose(b"b")
    progress = server.node.progress[2]
    effects = server.receive(2, AppendReply(2, 1, progress.session, True, 3, 0, 0))
    (request,) = sends(AppendEntries, effects, to=2)
    assert (request.prev_index, request.commit_index) == (3, 3)
    assert not sends(Heartbeat, effects, to=2)


def test_a_commit_is_not_announced_while_more_is_on_its_way_but_when_that_is_committed() -> None:
    server, _, _ = leader()
    server.propose(b"a")
    server.propose(b"b")
    session = server.node.progress[2].session
    of_a, of_b = sends(AppendEntries, server.history, to=2)[-2:]
    effects = server.receive(2, AppendReply(2, of_a.request_id, session, True, 3, 0, 0))
    assert server.node.commit_index == 3
    assert not sends(Heartbeat, effects)
    effects = server.receive(2, AppendReply(2, of_b.request_id, session, True, 4, 0, 0))
    assert [beat.commit_index for beat in sends(Heartbeat, effects, to=2)] == [4]


def test_a_commit_that_a_heartbeat_carried_is_not_announced_as_well() -> None:
    server, _, leadership = leader()
    for progress in leadership.progress.values():
        progress.commit_sent = 0
    server.now_us += HEARTBEAT_US
    effects = server.step(TimerExpired())
    assert [beat.commit_index for beat in sends(Heartbeat, effects)] == [2, 2]


@pytest.mark.parametrize("match_index", [2, 3])
def test_what_a_peer_has_acknowledged_meanwhile_is_not_sent_from_disk(match_index: int) -> None:
    """A late acknowledgement may overtake the disk."""
    log = log_of(1, 1, 1, 1)
    cluster = Cluster(logs={1: log, 2: log, 3: log_of(1)})
    cluster.servers[1] = server = Server(1, log=log, resident_from=5, peer_names=("n1", "n2", "n3"))
    cluster.down.add(3)
    node = cluster.elect(1)
    server.reads = False
    probe = sends(AppendEntries, server.history, to=3)[-1]
    effects = server.receive(3, AppendReply(2, probe.request_id, probe.session, False, 0, 1, 1))
    assert [asked.from_index for asked in of(ReadLog, effects)] == [2]
    server.receive(3, AppendReply(2, 1, probe.session, True, match_index, 0, 0))
    effects = server.read_log()
    assert not [m for m in sends(AppendEntries, effects, to=3) if m.batches]
    assert node.progress[3].next_index == match_index + 1
    assert [asked.from_index for asked in of(ReadLog, effects)] == [match_index + 1]


def test_a_refusal_of_what_is_in_flight_makes_the_leader_probe_at_once() -> None:
    """The follower lost its log's end; to wait for the time-out would cost an election timeout."""
    server, node, _ = leader()
    (request,) = sends(AppendEntries, server.propose(), to=2)
    progress = node.progress[2]
    assert progress.state is ReplicationState.REPLICATE
    refusal = AppendReply(2, request.request_id, progress.session, False, 0, 1, 1)
    assert [m.prev_index for m in sends(AppendEntries, server.receive(2, refusal), to=2)] == [2]
    assert node.progress[2].state is ReplicationState.PROBE


def test_a_refusal_of_something_else_is_of_yesterday() -> None:
    server, node, _ = leader()
    (request,) = sends(AppendEntries, server.propose(), to=2)
    refusal = AppendReply(2, request.request_id + 1000, node.progress[2].session, False, 0, 1, 1)
    assert not sends(AppendEntries, server.receive(2, refusal), to=2)
    assert node.progress[2].state is ReplicationState.REPLICATE


def test_patience_begins_with_the_first_message_that_is_not_acknowledged() -> None:
    """However long nothing was sent before, and however much is sent behind it."""
    server, node, _ = leader()
    for _ in range(40):
        server.now_us += HEARTBEAT_US
        for peer, progress in node.progress.items():
            server.receive(peer, HeartbeatReply(2, 1, progress.session, 0))
    server.propose()
    sent_us = server.now_us
    progress = node.progress[2]
    assert not progress.is_overdue(server.now_us, MAX_TIMEOUT_US)
    server.now_us = sent_us + MAX_TIMEOUT_US
    server.propose()
    assert not progress.is_overdue(server.now_us, MAX_TIMEOUT_US)
    assert progress.is_overdue(server.now_us + 1, MAX_TIMEOUT_US)


def test_an_answer_of_an_older_term_gets_no_answer() -> None:
    server, _, _ = leader()
    for stale in (AppendReply(1, 1, 1, True, 1, 0, 0), HeartbeatReply(1, 1, 1, 0)):
        assert not server.receive(2, stale)
