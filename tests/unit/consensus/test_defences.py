"""What can't happen among correct nodes stops this one, and numbers that are a format stay."""

from __future__ import annotations

import pytest

from raft_agent.consensus import batch
from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.invariants import BrokenInvariantError
from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Applied,
    Apply,
    Heartbeat,
    HeartbeatReply,
    LogRead,
    ReadLog,
    Settings,
    StorageFailed,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import MIN_TIMEOUT_US, Server, entry, log_of, of, sends


@pytest.mark.parametrize(
    "message",
    [AppendEntries(2, 1, 1, 1, 1, 0, ()), Heartbeat(2, 1, 1, 0)],
    ids=["append", "beat"],
)
def test_a_second_leader_in_its_own_term_stops_a_leader(message: object) -> None:
    cluster = Cluster()
    assert cluster.elect(1).current_term == 2
    assert isinstance(message, AppendEntries | Heartbeat)
    with pytest.raises(BrokenInvariantError, match="a term has one leader"):
        cluster[1].receive(2, message)


@pytest.mark.parametrize(
    "message",
    [AppendEntries(1, 1, 1, 1, 1, 0, ()), Heartbeat(1, 1, 1, 0)],
    ids=["append", "beat"],
)
def test_a_second_leader_in_its_own_term_stops_a_follower(message: object) -> None:
    server = Server()
    server.receive(2, Heartbeat(1, 1, 1, 0))
    assert isinstance(message, AppendEntries | Heartbeat)
    with pytest.raises(BrokenInvariantError, match="a term has one leader"):
        server.receive(3, message)


def reader() -> tuple[Server, ReadLog]:
    """A node that has committed 3 entries and has none of them in memory, with what it asks for."""
    server = Server(log=log_of(1, 1, 1), resident_from=4)
    server.reads = False
    effects = server.receive(2, Heartbeat(1, 1, 1, 3))
    (asked,) = of(ReadLog, effects)
    return server, asked


@pytest.mark.parametrize(
    "found", [(), tuple(log_of(1, 1, 1)[1:])], ids=["nothing", "something behind it"]
)
def test_a_committed_entry_that_is_not_on_disk_stops_the_node(found: tuple[Batch, ...]) -> None:
    server, asked = reader()
    with pytest.raises(BrokenInvariantError, match="applied without a gap"):
        server.step(LogRead(asked.purpose, asked.from_index, found))


def test_what_was_not_handed_over_can_not_have_been_applied() -> None:
    server, asked = reader()
    server.applies = False
    server.step(LogRead(asked.purpose, asked.from_index, tuple(server.disk)))
    with pytest.raises(BrokenInvariantError, match="what was handed over is what was applied"):
        server.step(Applied(2))


def test_an_announced_commit_wants_no_reply() -> None:
    server = Server(log=log_of(1, 1))
    assert not sends(HeartbeatReply, server.receive(2, Heartbeat(1, 0, 1, 2)))
    assert server.node.commit_index == 2
    assert sends(HeartbeatReply, server.receive(2, Heartbeat(1, 9, 4, 2))) == [
        HeartbeatReply(1, 9, 4, MIN_TIMEOUT_US)
    ]


def test_every_field_of_a_reply_says_what_it_means_or_nothing() -> None:
    server = Server(log=log_of(1, 1))
    done = server.receive(2, AppendEntries(1, 5, 6, 2, 1, 0, (entry(3, 1),)))
    assert sends(AppendReply, done) == [AppendReply(1, 5, 6, True, 3, 0, 0)]
    refused = server.receive(2, AppendEntries(1, 7, 6, 9, 1, 0, ()))
    assert sends(AppendReply, refused) == [AppendReply(1, 7, 6, False, 0, 3, 1)]


def test_the_numbers_of_the_format_are_these() -> None:
    """They stand in files; another number is another format."""
    assert {kind.name: kind.value for kind in BatchKind} == {
        "NOOP": 0,
        "COMMANDS": 1,
        "CONFIGURATION": 2,
        "AUDIT": 3,
    }
    assert batch.MAX_PAYLOAD_BYTES == 16 << 20
    record = encode(1, 0x0102030405060708, 9, 10, b"payload").record
    head = b"RBAT" + bytes([1, 1, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 9]) + bytes(7) + b"\x0a\0\0\0\x07"
    assert record.startswith(head + bytes(3))
    assert record[40:-40] == b"payload"
    assert record[:40] == record[-40:]


def test_a_node_whose_disk_failed_applies_nothing_more() -> None:
    """What its memory holds may not be what the disk says."""
    server = Server(log=log_of(1, 1, 1), settings=Settings(max_apply_bytes=1))
    server.applies = False
    assert of(Apply, server.receive(2, Heartbeat(1, 1, 1, 3)))
    server.step(StorageFailed("EIO"))
    assert not of(Apply, server.finish_apply())
