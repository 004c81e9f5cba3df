"""When a disk counts as hanging, to the microsecond, and what a leader does then."""

from __future__ import annotations

from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Effect,
    Heartbeat,
    HeartbeatReply,
    LogPersisted,
    PreVote,
    Role,
    TimeoutNow,
    TimerExpired,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import (
    HEARTBEAT_US,
    MAX_TIMEOUT_US,
    MIN_TIMEOUT_US,
    SETTINGS,
    Server,
    entry,
    log_of,
    notes,
    sends,
)

PATIENCE_US = SETTINGS.disk_stall_us


def writer() -> Server:
    """A follower with one write under way since now."""
    server = Server(log=log_of(1), now_us=10 * MAX_TIMEOUT_US)
    server.writes = False
    server.receive(2, AppendEntries(1, 1, 1, 1, 1, 0, (entry(2, 1),)))
    return server


def stalls(server: Server, after_us: int) -> bool:
    server.now_us += after_us
    server.node.step(TimerExpired(), server.now_us)
    return server.node.state.disk_stalls


def test_a_disk_hangs_once_a_write_has_taken_longer_than_the_patience() -> None:
    server = writer()
    assert not stalls(server, PATIENCE_US)
    assert stalls(server, 1)


def test_a_disk_with_nothing_to_write_does_not_hang() -> None:
    server = writer()
    server.step(LogPersisted(1))
    assert not stalls(server, 10 * PATIENCE_US)


def test_a_disk_that_gets_on_does_not_hang() -> None:
    """Two writes, each of which takes nearly as long as it may."""
    server = writer()
    server.receive(2, AppendEntries(1, 2, 1, 2, 1, 0, (entry(3, 1),)))
    assert not stalls(server, PATIENCE_US - 1)
    server.step(LogPersisted(1))
    assert not stalls(server, PATIENCE_US)
    assert stalls(server, 1)


def test_the_patience_begins_with_the_write_and_not_with_the_one_before() -> None:
    server = writer()
    server.step(LogPersisted(1))
    server.now_us += 10 * PATIENCE_US
    server.receive(2, AppendEntries(1, 2, 1, 2, 1, 0, (entry(3, 1),)))
    assert not stalls(server, PATIENCE_US)
    assert stalls(server, 1)


def led_on(*, committed: bool) -> tuple[Server, list[Effect]]:
    """A leader whose write takes longer than the patience, still heard by all; and what its timer
    makes it do. `committed`: the others have the entry."""
    cluster = Cluster()
    node = cluster.elect(1)
    server = cluster[1]
    server.writes = False
    server.propose()
    server.now_us += PATIENCE_US + 1
    for peer in (2, 3):
        session = node.progress[peer].session
        server.receive(peer, HeartbeatReply(2, 1, session, 0))
        if committed:
            server.receive(peer, AppendReply(2, 1, session, True, 3, 0, 0))
    return server, server.step(TimerExpired())


def test_a_leader_whose_disk_hangs_makes_room_where_the_others_get_on() -> None:
    """It hands over to one whose disk has what its own hangs on: nobody waits for a time-out."""
    _, effects = led_on(committed=True)
    assert [note for note in notes(effects) if note != "transfer_started"] == ["disk_stalls"]
    assert len(sends(TimeoutNow, effects)) == 1


def test_a_leader_whose_disk_hangs_leads_on_where_nobody_gets_on() -> None:
    server, effects = led_on(committed=False)
    assert server.node.role is Role.LEADER
    assert sends(Heartbeat, effects)
    assert not sends(TimeoutNow, effects)


def test_a_hand_over_off_a_hanging_disk_that_fails_is_not_tried_again_at_once() -> None:
    server, _ = led_on(committed=True)
    tried = 0
    for _ in range(PATIENCE_US // HEARTBEAT_US - 1):
        server.now_us += HEARTBEAT_US
        for peer in (2, 3):
            session = server.node.progress[peer].session
            server.receive(peer, HeartbeatReply(2, 1, session, 0))
        tried += len(sends(TimeoutNow, server.step(TimerExpired())))
    assert server.node.role is Role.LEADER
    assert tried == 0


def test_a_disk_that_hung_makes_its_node_leave_the_next_elections_to_others() -> None:
    server, _ = led_on(committed=True)
    server.writes = True
    server.write_log()
    server.receive(2, HeartbeatReply(9, 1, 1, 0))
    due_us = server.node.next_deadline_us
    assert due_us is not None
    assert due_us >= server.now_us + MIN_TIMEOUT_US + 2 * MAX_TIMEOUT_US


def test_a_leader_leads_on_while_its_disk_is_slow_and_does_not_hang() -> None:
    cluster = Cluster()
    node = cluster.elect(1)
    server = cluster[1]
    server.writes = False
    server.propose()
    server.now_us += PATIENCE_US
    for peer in (2, 3):
        session = node.progress[peer].session
        server.receive(peer, AppendReply(2, 1, session, True, 3, 0, 0))
    assert node.commit_index > node.state.persisted_index
    server.step(TimerExpired())
    assert node.role is Role.LEADER


def test_a_node_whose_disk_hangs_does_not_stand_and_one_whose_disk_is_slow_does() -> None:
    """It could not vote for itself on that disk, let alone commit by it."""
    for waited_us, stands in ((PATIENCE_US, True), (PATIENCE_US + 1, False)):
        server = writer()
        server.now_us += waited_us
        assert bool(sends(PreVote, server.step(TimerExpired()))) is stands
