"""What strangers may do to a node: nothing but lose their connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raft_agent import wire
from raft_agent.consensus import batch as batches
from raft_agent.consensus import types
from raft_agent.transport import codec
from raft_agent.transport import strangers as limits
from raft_agent.transport.handshake import encode_hello
from raft_agent.transport.transport import PeerTarget
from raft_agent.wire import FrameType
from tests.unit.transport.nodes import (
    HEARTBEAT,
    OTHER_CLUSTER,
    Node,
    RawListener,
    RawPeer,
    connect_all,
    dialled,
    hello_frame,
    run,
    started,
)

STRANGER = Node(2)
HEARTBEAT_FRAME = codec.encode_message(2, HEARTBEAT)
CHUNK = types.SnapshotChunk(3, 1, 1, 0, 9, 2, 4, 0, 0, b"data")


def changed(frame: bytes, offset: int, *new: int) -> bytes:
    data = bytearray(frame)
    data[offset : offset + len(new)] = bytes(new)
    return bytes(data)


def damaged_append() -> bytes:
    batch = batches.encode(batches.BatchKind.COMMANDS, 1, 1, 1, b"a command")
    frame = codec.encode_message(2, types.AppendEntries(1, 1, 1, 0, 0, 0, (batch,)))
    return changed(frame, len(frame) - 45, 0)


async def assert_it_still_serves(node: Node) -> None:
    """A friend's message gets through."""
    friend = Node(9)
    async with started(friend):
        friend.transport.set_peers([node.target()])
        await friend.until("up", node.member_id)
        friend.transport.send(node.member_id, HEARTBEAT)
        await node.until("message", 9, HEARTBEAT)


def refused_with_one_line(
    caplog: pytest.LogCaptureFixture, reason: str, attack: Callable[[Node], Awaitable[None]]
) -> str:
    """Run the attack on a node; the one warning it gave."""

    async def test() -> None:
        node = Node(1)
        async with started(node):
            await attack(node)
            await node.until_refused(reason)
            assert node.transport.reject_counts == {reason: 1}
            await assert_it_still_serves(node)

    with caplog.at_level(logging.WARNING):
        run(test)
    (text,) = [record.getMessage() for record in caplog.records]
    return text


HELLO = hello_frame(STRANGER)
FIRST_WORDS = {
    "another protocol": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "magic", "b'GET '"),
    "another version": (changed(HELLO, 4, 9), "version", "version 9"),
    "no hello": (HEARTBEAT_FRAME, "type", "type 9 is not expected"),
    "an endless hello": (changed(HELLO, 8, 0, 0, 1, 0), "length", "65536 bytes is over"),
    "a damaged hello": (changed(HELLO, len(HELLO) - 1, 0xFF), "checksum", "checksum"),
    "a hello of other make": (
        wire.encode(FrameType.HELLO, msgspec.msgpack.encode({"hello": 1}), sender=2),
        "body",
        "malformed handshake",
    ),
    "a hello of nobody": (
        wire.encode(
            FrameType.HELLO, msgspec.msgpack.encode([1, 1, "", 0, "nobody", "nowhere:1"]), sender=0
        ),
        "body",
        "malformed handshake",
    ),
    "a hello of a great depth": (
        wire.encode(
            FrameType.HELLO,
            b"\x98" + msgspec.msgpack.encode(STRANGER.hello())[1:] + b"\x91" * 9000 + b"\xc0",
            sender=2,
        ),
        "body",
        "malformed handshake",
    ),
    "a strange cluster id": (hello_frame(STRANGER, cluster_id="A\n\n"), "body", r"'A\n\n'"),
    "two ids": (
        wire.encode(FrameType.HELLO, msgspec.msgpack.encode(STRANGER.hello()), sender=3),
        "sender",
        "0000000000000002",
    ),
    "later versions": (hello_frame(STRANGER, oldest=2, newest=3), "version", "versions 2 to 3"),
    "another purpose": (hello_frame(STRANGER, purpose="tea"), "purpose", "'tea'"),
    "another cluster": (hello_frame(STRANGER, cluster_id=OTHER_CLUSTER), "cluster", OTHER_CLUSTER),
    "our own id": (hello_frame(STRANGER, member_id=1), "self", "but 'node-02' says it"),
    "ourselves": (hello_frame(Node(1), address="127.0.0.1:0"), "self", "'node-01' itself"),
}


@pytest.mark.parametrize(("words", "reason", "text"), FIRST_WORDS.values(), ids=FIRST_WORDS.keys())
def test_a_wrong_first_word_closes_with_one_line(
    caplog: pytest.LogCaptureFixture, words: bytes, reason: str, text: str
) -> None:
    async def attack(node: Node) -> None:
        peer = await RawPeer.dial(node)
        await peer.send(words)
        await peer.closed()
        peer.close()

    line = refused_with_one_line(caplog, reason, attack)
    assert text in line
    assert "127.0.0.1:" in line
    assert "\n" not in line


LATER_WORDS = {
    "random bytes": (bytes(range(100, 200)), "magic", "starts with"),
    "a second hello": (HELLO, "type", "type 1 is not expected"),
    "a reply": (codec.encode_message(2, types.VoteReply(1, 1, True)), "type", "type 6"),
    "a snapshot's piece": (codec.encode_message(2, CHUNK), "type", "type 17"),
    "a client's request": (
        wire.encode(FrameType.CLIENT_REQUEST, b""),
        "remote_client",
        "a client's request where none is served",
    ),
    "an oversized frame": (changed(HEARTBEAT_FRAME, 8, 1, 0, 0, 2), "length", "over the limit"),
    "a damaged frame": (changed(HEARTBEAT_FRAME, 60, 0xFF), "checksum", "type 9"),
    "somebody else's frame": (
        codec.encode_message(3, HEARTBEAT),
        "sender",
        "frame from 0000000000000003",
    ),
    "a damaged batch": (damaged_append(), "body", "payload checksum"),
    "a short body": (wire.encode(FrameType.HEARTBEAT, b"1", sender=2), "body", "HEARTBEAT"),
    "frames good and bad": (
        codec.encode_message(2, types.TimeoutNow(1, 1)) + b"RAFF" + bytes(60),
        "magic",
        "RAFF",
    ),
}


@pytest.mark.parametrize(("words", "reason", "text"), LATER_WORDS.values(), ids=LATER_WORDS.keys())
def test_a_bad_frame_of_a_member_closes_with_one_line(
    caplog: pytest.LogCaptureFixture, words: bytes, reason: str, text: str
) -> None:
    async def attack(node: Node) -> None:
        peer = await RawPeer.dial_as(node, STRANGER.hello())
        await peer.send(words)
        await peer.closed()
        peer.close()

    line = refused_with_one_line(caplog, reason, attack)
    assert text in line
    assert "'node-02' (127.0.0.1:" in line


def test_nothing_that_follows_a_bad_frame_is_heard() -> None:
    async def test() -> None:
        node = Node(1)
        async with started(node):
            peer = await RawPeer.dial_as(node, STRANGER.hello())
            bad = wire.encode(FrameType.HEARTBEAT, b"1", sender=2)
            await peer.send(bad + HEARTBEAT_FRAME)
            await peer.closed()
            await node.until_refused("body")
            assert node.told.empty()
            peer.close()

    run(test)


@pytest.mark.parametrize("words", [HELLO[:20], HELLO[:-1]], ids=["header", "body"])
def test_a_stream_that_ends_within_a_frame_is_said_so(
    caplog: pytest.LogCaptureFixture, words: bytes
) -> None:
    async def attack(node: Node) -> None:
        peer = await RawPeer.dial(node)
        await peer.send(words)
        peer.close()

    assert "ended within a frame" in refused_with_one_line(caplog, "truncated", attack)


def test_a_connection_without_a_handshake_is_closed_in_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def attack(node: Node) -> None:
        peer = await RawPeer.dial(node)
        await peer.send(HELLO[:30])  # slowly, forever
        await peer.closed()
        peer.close()

    line = refused_with_one_line(caplog, "handshake_timeout", attack)
    assert "no complete handshake within 1.0 s" in line


def test_a_listener_that_answers_nothing_is_left_in_time() -> None:
    async def test() -> None:
        node = Node(1)
        listener = RawListener()
        async with started(node):
            node.transport.set_peers([PeerTarget("node-02", listener.address, 2)])
            first = await listener.accept()
            await first.closed()
            assert node.transport.reject_counts == {"handshake_timeout": 1}
            second = await listener.accept_as(STRANGER.hello())
            await node.until("up", 2)
            first.close()
            second.close()
        listener.close()

    run(test)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (b"220 mail.example.org ESMTP\r\n", "magic"),
        (hello_frame(STRANGER), "type"),
        (encode_hello(FrameType.HELLO_REPLY, STRANGER.hello(refusal="go\naway")), "refused"),
        (encode_hello(FrameType.HELLO_REPLY, STRANGER.hello(oldest=3, newest=3)), "version"),
        (encode_hello(FrameType.HELLO_REPLY, STRANGER.hello(member_id=1)), "self"),
        (encode_hello(FrameType.HELLO_REPLY, STRANGER.hello(member_id=3)), "identity"),
        (encode_hello(FrameType.HELLO_REPLY, STRANGER.hello(cluster_id=OTHER_CLUSTER)), "cluster"),
    ],
)
def test_a_wrong_answer_to_our_hello_closes_with_one_line(
    caplog: pytest.LogCaptureFixture, words: bytes, reason: str
) -> None:
    async def attack(node: Node) -> None:
        listener = RawListener()
        node.transport.set_peers([PeerTarget("node-02", listener.address, 2)])
        peer = await listener.accept()
        assert await peer.receive() is not None
        listener.close()
        await peer.send(words)
        await peer.closed()
        peer.close()

    line = refused_with_one_line(caplog, reason, attack)
    assert line.startswith("closed the connection with 'node-02' (127.0.0.1:")
    assert "\n" not in line


def test_a_reply_to_a_request_that_was_never_forwarded_closes() -> None:
    async def test() -> None:
        node = Node(1)
        listener = RawListener()
        async with started(node):
            peer = await dialled(node, listener, STRANGER)
            await peer.send(wire.encode(FrameType.FORWARD_REPLY, b"", sender=2, request_id=5))
            await node.until("down", 2)
            assert node.transport.reject_counts == {"body": 1}
            peer.close()
        listener.close()

    run(test)


@pytest.mark.parametrize("limit", ["MAX_STRANGERS", "MAX_OF_A_HOST"])
def test_strangers_are_limited_and_members_are_not(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, limit, 3)

    async def test() -> None:
        node = Node(1)
        async with started(node):
            members = [await RawPeer.dial_as(node, Node(i).hello()) for i in range(2, 8)]
            strangers = [await RawPeer.dial(node) for _ in range(4)]
            await node.until_refused("crowded")
            await strangers[0].closed()
            assert node.transport.reject_counts == {"crowded": 1}
            # Nobody has left, and all places are taken: a member comes in all the same.
            assert node.transport.strangers.count == 3
            members.append(await RawPeer.dial_as(node, Node(8).hello()))
            await assert_it_still_serves(node)
            for peer in members + strangers:
                peer.close()

    run(test)


def test_a_flood_of_bad_frames_is_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        node = Node(1)
        async with started(node):
            for _ in range(100):
                peer = await RawPeer.dial(node)
                await peer.send(b"nonsense" * 10)
                await peer.closed()
                peer.close()
            assert node.transport.reject_counts == {"magic": 100}

    with caplog.at_level(logging.WARNING):
        run(test)
    assert len(caplog.records) == 1


def test_ids_that_anybody_claims_leave_nothing_behind() -> None:
    async def test() -> None:
        node = Node(1)
        async with started(node):
            for member_id in range(100, 150):
                peer = await RawPeer.dial_as(node, Node(member_id).hello())
                assert set(node.transport.stats()) == {member_id}
                peer.close()
                while node.transport.stats():
                    await asyncio.sleep(0.001)

    run(test)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.one_of(st.binary(max_size=200), st.just(HELLO), st.just(HEARTBEAT_FRAME))),
    st.booleans(),
)
def test_whatever_a_stranger_sends_the_node_goes_on(words: list[bytes], is_greeted: bool) -> None:
    async def test() -> None:
        a, b = Node(1), Node(3)
        async with started(a, b):
            await connect_all(a, b)
            hello = STRANGER.hello()
            peer = await (RawPeer.dial_as(a, hello) if is_greeted else RawPeer.dial(a))
            try:
                for word in words:
                    await peer.send(word)
            except ConnectionError:
                pass
            b.transport.send(1, HEARTBEAT)
            await a.until("message", 3, HEARTBEAT)
            peer.close()

    run(test)
