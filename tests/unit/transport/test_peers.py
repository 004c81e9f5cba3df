from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from raft_agent.consensus import types
from raft_agent.transport import codec, outbound
from raft_agent.transport.transport import PeerTarget
from tests.unit.transport.nodes import (
    CLUSTER,
    HEARTBEAT,
    OTHER_CLUSTER,
    Node,
    RawListener,
    RawPeer,
    connect_all,
    hello_frame,
    run,
    started,
)


def test_a_peer_that_restarts_on_its_port_is_reached_again() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a):
            async with started(b):
                await connect_all(a, b)
                target = b.target()
            await a.until("down", 2)
            a.transport.send(2, HEARTBEAT)
            assert a.transport.stats()[2].dropped_frames == 1
            again = Node(2, port=int(target.address.rpartition(":")[2]))
            async with started(again):
                again.transport.set_peers([a.target()])
                assert await a.until("up", 2) == ("up", 2, "node-02")
                await again.until("up", 1)
                a.transport.send(2, HEARTBEAT)
                await again.until("message", 1, HEARTBEAT)
                assert a.transport.stats()[2].reconnects == 1

    run(test)


def test_a_peer_that_dials_us_is_dialled_at_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the back-off has become: the peer is there."""
    monkeypatch.setattr(outbound, "FIRST_BACK_OFF_S", 3600)
    monkeypatch.setattr(outbound, "MAX_BACK_OFF_S", 3600)

    async def test() -> None:
        a = Node(1)
        listener = RawListener()
        listener.close()
        async with started(a):
            a.transport.set_peers([PeerTarget("node-02", listener.address, 2)])
            while "cannot connect" not in caplog.text:
                await asyncio.sleep(0.005)
            b = Node(2, port=int(listener.address.rpartition(":")[2]))
            async with started(b):
                b.transport.set_peers([a.target()])
                await a.until("up", 2)

    with caplog.at_level(logging.INFO, "raft.transport"):
        run(test)


def test_an_id_that_is_not_known_is_learned_and_then_kept() -> None:
    async def test() -> None:
        a, b = Node(1, cluster_id=""), Node(2, cluster_id="")
        async with started(a, b):
            address = b.target().address
            a.transport.set_peers([PeerTarget("node-02", address, 0)])
            assert await a.until("up") == ("up", 2, "node-02")
            a.transport.set_cluster(CLUSTER)
            a.transport.set_peers([PeerTarget("node-02", address, 2)])
            a.transport.set_peers([PeerTarget("node-02", address, 0)])
            a.transport.send(2, HEARTBEAT)
            await b.until("message", 1, HEARTBEAT)
            assert a.told.empty()
            assert a.transport.stats()[2].reconnects == 0

    run(test)


def test_set_peers_drops_the_removed_and_redials_changed_addresses() -> None:
    async def test() -> None:
        a, b, c = Node(1), Node(2), Node(3)
        moved = Node(2)
        async with started(a, b, c, moved):
            a.transport.set_peers([a.target(), b.target(), c.target()])
            assert {(await a.told.get())[:2] for _ in "bc"} == {("up", 2), ("up", 3)}
            a.transport.set_peers([moved.target()])
            told = [await a.told.get() for _ in range(3)]
            assert {event[:2] for event in told[:2]} == {("down", 2), ("down", 3)}
            assert told[2][:2] == ("up", 2)
            a.transport.send(2, HEARTBEAT)
            await moved.until("message", 1, HEARTBEAT)
            assert set(a.transport.stats()) == {2}
            a.transport.set_peers([])
            await a.until("down", 2)
            assert a.transport.stats() == {}

    run(test)


def test_a_newer_connection_of_a_member_supersedes_the_older() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a):
            older = await RawPeer.dial_as(a, b.hello())
            newer = await RawPeer.dial_as(a, b.hello())
            await older.closed()
            a.transport.send(2, types.HeartbeatReply(3, 1, 2, 0))
            frame = await newer.receive()
            assert frame is not None
            assert codec.decode_message(frame) == types.HeartbeatReply(3, 1, 2, 0)
            assert sum(a.transport.reject_counts.values()) == 0
            newer.close()
            older.close()

    run(test)


def test_a_connection_accepted_earlier_does_not_supersede() -> None:
    """After a pause a dead connection's handshake may be read after the living one's."""

    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a):
            older = await RawPeer.dial(a)
            newer = await RawPeer.dial_as(a, b.hello())
            await older.send(hello_frame(b))
            frame = await older.receive()
            assert frame is not None
            assert b"a newer connection" in frame.body
            await older.closed()
            a.transport.send(2, types.HeartbeatReply(3, 1, 2, 0))
            assert await newer.receive() is not None
            assert a.transport.reject_counts == {"superseded": 1}
            newer.close()
            older.close()

    run(test)


def test_nodes_of_different_clusters_refuse_each_other(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        a, b = Node(1), Node(2, cluster_id=OTHER_CLUSTER)
        async with started(a, b):
            a.transport.set_peers([b.target()])
            await b.until_refused("cluster")
            await a.until_refused("refused")
            assert a.told.empty()

    with caplog.at_level(logging.WARNING, "raft.transport"):
        run(test)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert all(OTHER_CLUSTER in text and CLUSTER in text for text in texts)


@pytest.mark.parametrize("fresh", [1, 2])
def test_a_fresh_node_and_a_member_accept_each_other(fresh: int) -> None:
    async def test() -> None:
        a, b = (Node(i, cluster_id="" if i == fresh else CLUSTER) for i in (1, 2))
        async with started(a, b):
            await connect_all(a, b)

    run(test)


@pytest.mark.parametrize(
    ("target_of", "reason"),
    [
        (lambda node, _: PeerTarget("node-01", f"127.0.0.1:{node.port}", 7), "refused"),
        (lambda _, other: PeerTarget("node-07", f"127.0.0.1:{other.port}", 7), "identity"),
        (lambda _, other: PeerTarget("node-07", f"127.0.0.1:{other.port}", 0), "name"),
    ],
    ids=["itself", "another id", "another name"],
)
def test_whoever_is_not_the_expected_member_is_left(
    target_of: Callable[[Node, Node], PeerTarget], reason: str
) -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            a.transport.set_peers([target_of(a, b)])
            await a.until_refused(reason)
            assert a.told.empty()
            if reason == "refused":
                assert a.transport.reject_counts["self"] > 0

    run(test)


def test_one_member_behind_two_addresses_is_connected_once() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            port = b.port
            a.transport.set_peers(
                [
                    PeerTarget("node-02", f"127.0.0.1:{port}", 0),
                    PeerTarget("node-02", f"localhost:{port}", 0),
                ]
            )
            await a.until("up", 2)
            await a.until_refused("duplicate")

    run(test)
