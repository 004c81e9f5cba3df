"""One member, one id, one name: whoever contradicts the configuration is left, and said so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from raft_agent.transport.handshake import decode_hello, encode_hello
from raft_agent.transport.transport import PeerTarget
from raft_agent.wire import FrameType
from tests.unit.transport.nodes import (
    HEARTBEAT,
    Node,
    RawListener,
    RawPeer,
    connect_all,
    hello_frame,
    run,
    started,
)


async def refusal(node: Node, hello: bytes) -> str:
    """Why a handshake is refused; "" when it isn't."""
    peer = await RawPeer.dial(node)
    await peer.send(hello)
    frame = await peer.receive()
    assert frame is not None
    said = decode_hello(frame).refusal
    if said:
        await peer.closed()
    peer.close()
    return said


def test_an_id_under_another_name_is_refused_and_the_real_member_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As an agent says that was started on a copy of another member's data directory."""

    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            await connect_all(a, b)
            said = [await refusal(a, hello_frame(b, name="node-03")) for _ in range(5)]
            assert said == ["id 0000000000000002 is node-02, but 'node-03' says it"] * 5
            assert a.transport.reject_counts == {"identity": 5}
            b.transport.send(1, HEARTBEAT)
            await a.until("message", 2, HEARTBEAT)
            a.transport.send(2, HEARTBEAT)
            await b.until("message", 1, HEARTBEAT)
            assert a.told.empty()

    with caplog.at_level(logging.WARNING):
        run(test)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "id 0000000000000002 is node-02, but 'node-03' says it" in line


@pytest.mark.parametrize(
    ("changes", "reason", "text"),
    [
        ({"name": "node-02"}, "self", "id 0000000000000001 is node-01, but 'node-02' says it"),
        (
            {"name": "node-01", "address": "10.9.9.9:5555"},
            "self",
            "10.9.9.9:5555 has this node's id: one data directory is a copy of the other",
        ),
        (
            {"member_id": 7, "name": "node-01"},
            "name",
            "'node-01' is this node's own name, but 0000000000000007 says it",
        ),
    ],
    ids=["our id, another name", "our id and name elsewhere", "our name, another id"],
)
def test_nobody_else_has_our_id_or_our_name(
    caplog: pytest.LogCaptureFixture, changes: dict[str, object], reason: str, text: str
) -> None:
    async def test() -> None:
        node = Node(1)
        async with started(node):
            node.transport.set_peers([PeerTarget("node-02", "127.0.0.1:1", 2)])
            assert text in await refusal(node, hello_frame(node, **changes))
            assert node.transport.reject_counts == {reason: 1}

    with caplog.at_level(logging.WARNING):
        run(test)
    (line,) = [record.getMessage() for record in caplog.records]
    assert text in line


def test_ids_that_are_not_known_yet_contradict_nothing() -> None:
    """At a first start the members learn each other's ids; a member whose disk was lost comes with
    a new one, and is to be told that its cluster exists.
    """

    async def test() -> None:
        fresh, member = Node(1, cluster_id=""), Node(1)
        async with started(fresh, member):
            fresh.transport.set_peers([PeerTarget("node-02", "127.0.0.1:1", 0)])
            assert await refusal(fresh, hello_frame(Node(5), name="node-02")) == ""
            assert await refusal(fresh, hello_frame(Node(5), name="node-05")) == ""
            member.transport.set_peers([PeerTarget("node-02", "127.0.0.1:1", 2)])
            assert await refusal(member, hello_frame(Node(5), name="node-02", cluster_id="")) == ""

    run(test)


def test_connections_that_a_new_configuration_contradicts_are_closed() -> None:
    async def test() -> None:
        node = Node(1)
        async with started(node):
            liar = await RawPeer.dial_as(node, Node(2, name="node-03").hello())
            friend = await RawPeer.dial_as(node, Node(4).hello())
            node.transport.set_peers(
                [PeerTarget("node-02", "127.0.0.1:1", 2), PeerTarget("node-04", "127.0.0.1:1", 4)]
            )
            await liar.closed()
            assert node.transport.reject_counts["identity"] == 1
            assert node.transport.stats()[4].connected_inbound
            liar.close()
            friend.close()

    run(test)


def test_a_dialled_member_that_says_another_name_is_left() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2, name="node-2b")
        async with started(a, b):
            a.transport.set_peers([PeerTarget("node-02", f"127.0.0.1:{b.port}", 2)])
            await a.until_refused("identity")
            assert a.told.empty()
            problem = "id 0000000000000002 is node-02, but 'node-2b' says it"
            assert a.transport.problem(2) == problem

    run(test)


async def until_problem(node: Node, member_id: int, text: str) -> None:
    while text not in node.transport.problem(member_id):
        await asyncio.sleep(0.005)


async def nobody_listens(a: Node) -> None:
    listener = RawListener()
    listener.close()
    a.transport.set_peers([PeerTarget("node-02", listener.address, 2)])
    await until_problem(a, 2, "connection refused")


async def a_fresh_disk(a: Node) -> None:
    async with started(b := Node(7, name="node-02", cluster_id="")):
        a.transport.set_peers([PeerTarget("node-02", f"127.0.0.1:{b.port}", 2)])
        await until_problem(a, 2, "another member answers there (its data directory is new?)")


async def somebody_else(a: Node) -> None:
    async with started(b := Node(3)):
        a.transport.set_peers([PeerTarget("node-02", f"127.0.0.1:{b.port}", 2)])
        await until_problem(a, 2, "node-03 answers there")


async def another_cluster(a: Node) -> None:
    async with started(b := Node(2, cluster_id="f" * 32)):
        a.transport.set_peers([b.target()])
        await until_problem(a, 2, f"to cluster {'f' * 32}")


async def a_mute_peer(a: Node) -> None:
    listener = RawListener()
    a.transport.set_peers([PeerTarget("node-02", listener.address, 2)])
    await until_problem(a, 2, "it takes connections, but does not answer")
    listener.close()


async def a_closing_peer(a: Node) -> None:
    listener = RawListener()
    a.transport.set_peers([PeerTarget("node-02", listener.address, 2)])
    peer = await listener.accept()
    assert await peer.receive() is not None
    peer.close()
    await until_problem(a, 2, "it closed the connection before the handshake was done")
    listener.close()


async def no_address(a: Node) -> None:
    a.transport.set_peers([PeerTarget("node-02", "127.0.0.1:http", 2)])
    await until_problem(a, 2, "'http' is no port number")


@pytest.mark.parametrize(
    "trouble",
    [
        nobody_listens,
        a_fresh_disk,
        somebody_else,
        another_cluster,
        a_mute_peer,
        a_closing_peer,
        no_address,
    ],
)
def test_it_says_why_a_peer_is_not_reached(trouble: Callable[[Node], Awaitable[None]]) -> None:
    async def test() -> None:
        a = Node(1)
        async with started(a):
            await trouble(a)

    run(test)


def test_a_peer_that_is_reached_has_no_problem() -> None:
    async def test() -> None:
        a = Node(1)
        async with started(a):
            listener = RawListener()
            a.transport.set_peers([PeerTarget("node-02", listener.address, 2)])
            peer = await listener.accept()
            await peer.receive()
            peer.close()
            await until_problem(a, 2, "handshake")
            peer = await listener.accept_as(Node(2).hello())
            await a.until("up", 2)
            assert a.transport.problem(2) == ""
            assert a.transport.problem(99) == ""
            peer.close()
            await a.until("down", 2)
            assert a.transport.problem(2) == "lost the connection"
            listener.close()

    run(test)


def test_the_reply_frame_of_a_refusal_names_the_refuser() -> None:
    """So that the other side's log tells its people which agent turned it away."""

    async def test() -> None:
        node = Node(1)
        async with started(node):
            node.transport.set_peers([PeerTarget("node-02", "127.0.0.1:1", 2)])
            peer = await RawPeer.dial(node)
            await peer.send(encode_hello(FrameType.HELLO, Node(2, name="x").hello()))
            frame = await peer.receive()
            assert frame is not None
            assert decode_hello(frame).name == "node-01"
            peer.close()

    run(test)
