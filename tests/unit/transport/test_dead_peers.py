from __future__ import annotations

import asyncio
import logging
import time

import pytest

from raft_agent import wire
from raft_agent.consensus import batch as batches
from raft_agent.consensus import types
from raft_agent.transport import codec
from raft_agent.transport.transport import PeerTarget
from raft_agent.wire import FrameType
from tests.unit.transport.nodes import (
    HEARTBEAT,
    Node,
    RawListener,
    RawPeer,
    connect_all,
    dialled,
    run,
    started,
)


def test_a_peer_that_is_silent_where_a_reply_is_due_is_dialled_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        listener = RawListener()
        async with started(a):
            first = await dialled(a, listener, b)
            a.transport.send(2, HEARTBEAT)
            assert await a.told.get() == ("down", 2)
            second = await listener.accept_as(b.hello())
            await a.until("up", 2)
            assert a.transport.reject_counts == {"silence": 1}
            await first.closed()
            first.close()
            second.close()
        listener.close()

    with caplog.at_level(logging.WARNING, "raft.transport"):
        run(test)
    assert len(caplog.records) == 1
    assert "'node-02'" in caplog.text
    assert "nothing was heard for" in caplog.text


def test_any_reply_keeps_the_connection() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        listener = RawListener()
        async with started(a):
            peer = await dialled(a, listener, b)
            for number in range(1, 16):  # longer than the silence that closes
                a.transport.send(2, types.Heartbeat(1, number, 1, 0))
                reply = types.HeartbeatReply(1, number, 1, 0)
                assert await peer.receive() is not None
                await peer.send(codec.encode_message(2, reply))
                assert await a.told.get() == ("message", 2, reply)
                await asyncio.sleep(0.1)
            # Commits announced and entries sent are no reason to close: no reply is due at once.
            a.transport.send(2, types.Heartbeat(1, 0, 1, 0))
            a.transport.send(2, types.AppendEntries(1, 20, 1, 0, 0, 0, ()))
            a.transport.forward(2, b"takes its time", lambda *_: None)
            await asyncio.sleep(1.3)
            assert a.told.empty()
            assert a.transport.reject_counts == {}
            peer.close()
        listener.close()

    run(test)


def test_a_reply_that_came_while_this_process_stood_still_is_heard() -> None:
    """After a pause the timer is due before the sockets were read."""

    async def test() -> None:
        a, b = Node(1), Node(2)
        listener = RawListener()
        async with started(a):
            peer = await dialled(a, listener, b)
            a.transport.send(2, HEARTBEAT)
            reply = types.HeartbeatReply(3, 1, 2, 0)

            def stand_still(_body: bytes, _reply: object) -> None:
                # From within a read: what comes meanwhile is read after the timers have run.
                peer.sock.send(codec.encode_message(2, reply))
                time.sleep(1.2)

            a.answer_forward = stand_still
            other = await RawPeer.dial_as(a, Node(3).hello())
            await other.send(wire.encode(FrameType.FORWARD_REQUEST, b"", sender=3, request_id=1))
            await a.until("forward", 3)
            assert await a.told.get() == ("message", 2, reply)
            await asyncio.sleep(0.2)
            assert a.told.empty()
            assert a.transport.reject_counts == {}
            peer.close()
            other.close()
        listener.close()

    run(test)


def test_a_peer_whose_reply_finds_no_room_loses_its_connection() -> None:
    """It waits for either, and would wait for ever."""

    async def test() -> None:
        a, b = Node(1), Node(2)
        a.answer_forward = lambda _, reply: reply(bytes(8 << 20))
        async with started(a):
            peer = await RawPeer.dial_as(a, b.hello())
            requests = [
                wire.encode(FrameType.FORWARD_REQUEST, b"", sender=2, request_id=number)
                for number in (1, 2, 3)
            ]
            await peer.send(b"".join(requests))
            await peer.closed()
            assert a.told.qsize() == 3
            peer.close()

    run(test)


def test_a_peer_that_takes_connections_but_never_answers_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        listener = RawListener()
        async with started(a):
            a.transport.set_peers([PeerTarget("node-02", listener.address, 2)])
            for _ in range(3):
                peer = await listener.accept_as(b.hello())
                await a.until("up", 2)
                a.transport.send(2, HEARTBEAT)
                await a.until("down", 2)
                peer.close()
        listener.close()

    with caplog.at_level(logging.INFO, "raft.transport"):
        run(test)
    texts = [record.getMessage() for record in caplog.records]
    assert len([text for text in texts if text.startswith("connected to")]) == 1
    assert len([text for text in texts if "nothing was heard" in text]) == 1


def test_a_peer_that_never_reads_costs_bounded_memory() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        listener = RawListener(receive_buffer=4096)
        async with started(a):
            peer = await dialled(a, listener, b)
            batch = batches.encode(batches.BatchKind.COMMANDS, 1, 1, 1, bytes(1 << 20))
            bulk = types.AppendEntries(1, 1, 1, 0, 0, 0, (batch,))
            limit, reserve = 16 << 20, 1 << 20
            for _ in range(64):
                a.transport.send(2, bulk)
            stats = a.transport.stats()[2]
            assert stats.queued_bytes <= limit
            assert stats.queued_bytes > limit - (2 << 20)
            assert stats.dropped_frames == 64 - 15
            await asyncio.sleep(0)  # what fits goes to the kernel; fill up again
            for _ in range(64):
                a.transport.send(2, bulk)
            assert a.transport.stats()[2].queued_bytes <= limit
            # A request that finds the queue full was not sent, and that is told later.
            replies: asyncio.Queue[tuple[bytes | None, bool]] = asyncio.Queue()
            a.transport.forward(2, bytes(2 << 20), lambda *reply: replies.put_nowait(reply))
            assert replies.empty()
            assert await replies.get() == (None, False)
            # What must not wait behind bulk data still goes, up to the reserve.
            dropped = a.transport.stats()[2].dropped_frames
            a.transport.send(2, HEARTBEAT)
            assert a.transport.stats()[2].dropped_frames == dropped
            for _ in range(64_000):
                a.transport.send(2, HEARTBEAT)
            stats = a.transport.stats()[2]
            assert limit < stats.queued_bytes <= limit + reserve
            assert stats.dropped_frames > dropped
            await a.until("down", 2)
            peer.close()
        listener.close()

    run(test)


def test_one_message_larger_than_the_limit_goes_out_alone() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            await connect_all(a, b)
            payload = bytes(batches.MAX_PAYLOAD_BYTES)
            batch = batches.encode(batches.BatchKind.COMMANDS, 1, 1, 1, payload)
            message = types.AppendEntries(1, 1, 1, 0, 0, 0, (batch,))
            a.transport.send(2, message)
            assert (await b.until("message", 1))[2] == message

    run(test)
