"""Members of different generations of a cluster have nothing to say to each other."""

from __future__ import annotations

import asyncio

import msgspec

from raft_agent.consensus.types import Generation, Member, Standing
from raft_agent.transport.handshake import Fate, Purpose, decode_hello
from raft_agent.transport.transport import PeerTarget
from tests.unit.transport.nodes import (
    HEARTBEAT,
    OTHER_CLUSTER,
    Node,
    RawPeer,
    connect_all,
    hello_frame,
    run,
    started,
)

AWAITED = Member(2, "node-02", "127.0.0.1:2")
LATER = Generation(0xBEEF, (0,), (AWAITED,))


async def told(node: Node, frame: bytes) -> tuple[str, str]:
    """What a node of a former generation hears when it dials: its fate, and the words for it."""
    peer = await RawPeer.dial(node)
    await peer.send(frame)
    answer = await peer.receive()
    assert answer is not None
    hello = decode_hello(answer)
    await peer.closed()
    peer.close()
    return hello.fate, hello.refusal


def test_members_of_a_former_generation_are_told_what_becomes_of_them() -> None:
    async def test() -> None:
        a, b, c = Node(1), Node(2), Node(3)
        async with started(a):
            a.transport.set_generation(LATER)
            fate, text = await told(a, hello_frame(b))
            assert (fate, "come in again" in text) == (Fate.AWAITED, True)
            fate, text = await told(a, hello_frame(c))
            assert fate == Fate.REMOVED
            assert "raftctl join node-03 127.0.0.1:1" in text
            assert a.transport.reject_counts == {"generation": 2}

    run(test)


def test_a_generation_that_was_begun_elsewhere_is_refused_and_told_nothing() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a):
            a.transport.set_generation(LATER)
            fate, text = await told(a, hello_frame(b, generation=7))
            assert fate == Fate.NONE
            assert "which does not go back to it" in text

    run(test)


def test_two_survivors_that_both_recovered_never_talk_to_each_other() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            a.transport.set_generation(Generation(1, (0,)))
            b.transport.set_generation(Generation(2, (0,)))
            a.transport.set_peers([b.target()])
            b.transport.set_peers([a.target()])
            await a.until_refused("generation")
            await b.until_refused("generation")
            assert a.told.empty()
            assert b.told.empty()

    run(test)


def test_whoever_dials_a_later_generation_hears_its_fate_and_the_number() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        heard: asyncio.Queue[tuple[int, int, bool]] = asyncio.Queue()
        local = b.transport._local
        local.handlers = msgspec.structs.replace(
            local.handlers, on_superseded=lambda *what: heard.put_nowait(what)
        )
        async with started(a, b):
            a.transport.set_generation(LATER)
            # Not from somebody who answers there and is another member.
            b.transport.set_peers([PeerTarget("node-09", a.target().address, 9)])
            await b.until_refused("refused")
            assert heard.empty()
            b.transport.set_peers([a.target()])
            assert await heard.get() == (1, 0xBEEF, True)

    run(test)


def test_connections_end_when_a_node_begins_a_generation() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            await connect_all(a, b)
            a.transport.set_generation(LATER)
            await b.until("down", 1)
            await a.until("down", 2)
            a.transport.send(2, HEARTBEAT)
            b.transport.send(1, HEARTBEAT)
            await b.until_refused("generation")
            assert a.told.empty()
            assert b.told.empty()

    run(test)


def test_a_fresh_node_is_welcome_in_any_generation() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a):
            a.transport.set_generation(LATER)
            peer = await RawPeer.dial_as(a, b.hello(cluster_id=""))
            peer.close()

    run(test)


def test_who_only_asks_who_is_there_hears_how_far_this_node_is() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2, cluster_id=OTHER_CLUSTER)
        standing = Standing(3, 4, 5, True, False)
        local = a.transport._local
        local.handlers = msgspec.structs.replace(local.handlers, standing=lambda: standing)
        async with started(a, b):
            a.transport.set_generation(Generation(3, (0,)))
            hello = await b.transport.probe(a.target().address, 5)
            assert (hello.generation, hello.standing) == (3, standing)
            peer = await RawPeer.dial_as(a, b.hello(purpose=Purpose.PROBE))
            await peer.closed()
            peer.close()

    run(test)
