"""The stream of a snapshot: as fast as its client reads, and gone with it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raft_agent import wire
from raft_agent.api import protocol, rescuing
from raft_agent.api.client import RequestFailed, SyncClient
from raft_agent.api.streams import PUMP_BYTES
from raft_agent.machine.commands import Put
from tests.unit.cli.served import Served, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """With more than a socket holds unread."""
    with serving(tmp_path / "s") as found:
        found.call(lambda: setattr(found.host.machine, "keys_at_once", 0))
        for number in range(40):
            commands = [Put(f"{number}-{part}", bytes(200_000), -1) for part in range(4)]
            found.call(found.host.apply_commands, commands)
        yield found


def begin(served: Served) -> socket.socket:
    """A client that has asked for a snapshot and reads nothing of it."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(20)
    client.connect(str(served.path))
    body = protocol.ENCODER.encode([protocol.SnapshotSave(1)])
    client.sendall(wire.encode(wire.FrameType.CLIENT_REQUEST, body, count=1))
    wait_for_views(served, 1)
    return client


def wait_for_views(served: Served, count: int) -> None:
    """Snapshots that are being taken: each change costs more while there is one."""
    deadline = time.monotonic() + 20
    while served.call(lambda: len(served.host.machine._views)) != count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_client_that_leaves_ends_the_snapshot(served: Served) -> None:
    client = begin(served)
    client.close()
    wait_for_views(served, 0)


def test_a_client_that_reads_nothing_loses_it_and_hears_why(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescuing, "_UNREAD_S", 0.2)
    client = begin(served)
    wait_for_views(served, 0)
    reader = wire.FrameReader(frozenset({wire.FrameType.CLIENT_REPLY, wire.FrameType.CLIENT_PUSH}))
    error = None
    while error is None:
        for frame in reader.feed(client.recv(1 << 20)):
            for reply in protocol.REPLIES_DECODER.decode(frame.body):
                error = reply.error
    client.close()
    assert error.code is protocol.ErrorCode.BUSY
    assert "read nothing" in error.error


def test_what_waits_for_the_client_is_bounded(served: Served) -> None:
    client = begin(served)
    assert served.server is not None
    (connection,) = served.server._connections
    deadline = time.monotonic() + 20
    while served.call(lambda: connection.unsent_bytes) < PUMP_BYTES:
        assert time.monotonic() < deadline
    most = max(served.call(lambda: connection.unsent_bytes) for _ in range(200))
    client.close()
    # What is let unread, and one piece more.
    assert most < 2 * PUMP_BYTES


def test_a_node_without_a_leader_gives_none(served: Served, tmp_path: Path) -> None:
    served.call(setattr, served.host, "leader", None)
    with SyncClient(str(served.path)) as client, pytest.raises(RequestFailed) as refused:
        client.save_snapshot(str(tmp_path / "b.raft"))
    assert refused.value.code is protocol.ErrorCode.NO_LEADER
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
