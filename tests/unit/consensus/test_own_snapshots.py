"""What a node does with the snapshots of its own state machine, and how it starts from them."""

from __future__ import annotations

import msgspec
import pytest

from raft_agent.consensus.invariants import BrokenInvariantError
from raft_agent.consensus.types import AppendEntries, CompactLog, SnapshotTaken, Vote
from tests.unit.consensus.server import Server, configuration_of, entry, log_of, of
from tests.unit.consensus.snapshot_files import snapshot_of

LEADER = 1


def test_a_start_from_a_snapshot_keeps_the_log_that_goes_on_behind_it() -> None:
    server = Server(1, size=1)
    server.tick()
    for number in range(4):
        server.propose(b"%d" % number)
    server.take_snapshot()
    server.propose(b"behind")
    server.take_snapshot()
    applied = list(server.applied)
    server.start()
    assert server.node.commit_index == server.node.applied_index == applied[-1].last_index
    assert server.node.log.base_index == applied[-2].last_index
    server.tick()
    server.propose(b"more")
    assert server.applied[: len(applied)] == applied


def applied_server() -> Server:
    """It leads alone and has applied six entries."""
    server = Server(1, size=1)
    server.tick()
    for number in range(4):
        server.propose(b"%d" % number)
    assert server.node.applied_index == 6
    return server


def test_the_log_is_compacted_up_to_the_older_of_two_snapshots() -> None:
    server = applied_server()
    assert not of(CompactLog, server.take_snapshot())
    server.propose(b"more")
    assert of(CompactLog, server.take_snapshot()) == [CompactLog(6)]
    assert server.node.log.base_index == 6
    assert server.node.configuration == configuration_of(1)


def test_the_log_is_not_compacted_beyond_what_is_on_disk() -> None:
    """It would be gone there before it came."""
    server = Server(2, log=log_of(1, 1), vote=Vote(2))
    server.writes = False
    server.receive(LEADER, AppendEntries(2, 9, 7, 2, 1, 3, (entry(3, 2),)))
    assert server.node.applied_index == 3
    assert of(CompactLog, server.take_snapshot(3)) == [CompactLog(2)]


def test_what_is_compacted_already_is_not_compacted_again() -> None:
    server = applied_server()
    server.take_snapshot(6)
    server.propose(b"more")
    assert not of(CompactLog, server.take_snapshot(6))
    server.propose(b"more")
    assert not of(CompactLog, server.take_snapshot(5))
    assert server.node.log.base_index == 6


def test_a_snapshot_that_is_older_than_the_newest_changes_nothing() -> None:
    server = applied_server()
    server.take_snapshot()
    newest = server.node.state.snapshot
    older = snapshot_of(server.applied[:3], 1, configuration_of(1))
    assert not server.step(SnapshotTaken(older.meta, 3))
    assert server.node.state.snapshot == newest
    assert server.node.log.base_index == 0


def test_another_snapshot_of_the_same_entry_takes_the_place_of_the_first() -> None:
    """That one's file may have gone bad."""
    server = applied_server()
    server.take_snapshot()
    newest = server.node.state.snapshot
    assert newest is not None
    again = msgspec.structs.replace(newest, checksum=newest.checksum ^ 1)
    server.step(SnapshotTaken(again, 0))
    assert server.node.state.snapshot == again


def test_a_snapshot_of_what_was_not_applied_stops_the_node() -> None:
    server = applied_server()
    ahead = snapshot_of([*server.applied, entry(7, 2)], 1, configuration_of(1))
    with pytest.raises(BrokenInvariantError, match="a snapshot holds what was applied"):
        server.step(SnapshotTaken(ahead.meta, 0))
