"""Snapshots have a connection of their own, so that nothing urgent waits behind them."""

from __future__ import annotations

import asyncio
import logging
import sys

import msgspec
import pytest

from raft_agent import wire
from raft_agent.consensus import types
from raft_agent.transport import bulk, codec
from raft_agent.transport.handshake import Purpose, encode_hello
from raft_agent.wire import FrameType
from tests.unit.transport.nodes import (
    HEARTBEAT,
    OTHER_CLUSTER,
    Node,
    RawListener,
    RawPeer,
    connect_all,
    dialled,
    run,
    started,
)

MIB = 1 << 20


def chunk(offset: int = 0, data: bytes = b"a piece") -> types.SnapshotChunk:
    return types.SnapshotChunk(
        term=3,
        request_id=offset + 1,
        session=2,
        token=0,
        index=9,
        index_term=2,
        size_bytes=64 * MIB,
        checksum=1,
        offset=offset,
        data=data,
    )


def reply(offset: int) -> types.SnapshotReply:
    return types.SnapshotReply(3, 1, 2, 9, offset, False)


async def receive(peer: RawPeer) -> types.Message:
    frame = await peer.receive()
    assert frame is not None
    return codec.decode_message(frame)


def test_the_first_piece_and_all_that_follow_its_reply_arrive_in_order() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            await connect_all(a, b)
            pieces = [chunk(number * MIB, bytes([number]) * MIB) for number in range(8)]
            a.transport.send(2, pieces[0])
            assert await b.told.get() == ("message", 1, pieces[0])
            b.transport.send(1, reply(MIB))
            assert await a.told.get() == ("message", 2, reply(MIB))
            for piece in pieces[1:]:
                a.transport.send(2, piece)
            assert [(await b.told.get())[2] for _ in pieces[1:]] == pieces[1:]
            assert a.transport.stats()[2].dropped_frames == 0
            assert b.transport.stats()[1].bytes_in > 8 * MIB

    run(test)


def test_a_heartbeat_does_not_wait_behind_a_snapshot_that_nobody_reads() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        listener = RawListener(receive_buffer=4096)
        async with started(a):
            main = await dialled(a, listener, b)
            a.transport.send(2, chunk())
            second = await listener.accept_as(b.hello(), Purpose.BULK)
            assert await receive(second) == chunk()
            for number in range(64):
                a.transport.send(2, chunk(number * MIB, bytes(MIB)))
            stats = a.transport.stats()[2]
            assert 8 * MIB < stats.queued_bytes <= 16 * MIB
            assert stats.dropped_frames > 0
            a.transport.send(2, HEARTBEAT)
            assert await receive(main) == HEARTBEAT
            main.close()
            second.close()
        listener.close()

    run(test)


def test_what_is_sent_while_the_connection_is_made_is_dropped_but_the_first() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        listener = RawListener()
        async with started(a):
            main = await dialled(a, listener, b)
            for offset in (0, 7, 14):
                a.transport.send(2, chunk(offset))
            second = await listener.accept_as(b.hello(), Purpose.BULK)
            assert await receive(second) == chunk(0)
            assert a.transport.stats()[2].dropped_frames == 2
            a.transport.send(2, chunk(21))
            assert await receive(second) == chunk(21)
            main.close()
            second.close()
        listener.close()

    run(test)


def test_the_loss_of_the_second_connection_is_no_loss_of_the_peer() -> None:
    """It is made again for the next piece."""

    async def test() -> None:
        a, b = Node(1), Node(2)
        listener = RawListener()
        async with started(a):
            main = await dialled(a, listener, b)
            for offset in (0, 7):
                a.transport.send(2, chunk(offset))
                second = await listener.accept_as(b.hello(), Purpose.BULK)
                assert await receive(second) == chunk(offset)
                await second.send(codec.encode_message(2, reply(offset)))
                assert await a.told.get() == ("message", 2, reply(offset))
                second.close()
                while a.transport.stats()[2].connected_bulk:
                    await asyncio.sleep(0.005)
            assert a.transport.stats()[2].connected
            assert a.told.empty()
            main.close()
        listener.close()

    run(test)


def test_the_second_connection_ends_with_the_first() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        listener = RawListener()
        async with started(a):
            main = await dialled(a, listener, b)
            a.transport.send(2, chunk())
            second = await listener.accept_as(b.hello(), Purpose.BULK)
            assert await receive(second) == chunk()
            main.close()
            await a.until("down", 2)
            await second.closed()
            a.transport.send(2, chunk())
            assert a.transport.stats()[2].dropped_frames == 1
            second.close()
        listener.close()

    run(test)


def test_a_peer_that_leaves_while_the_second_connection_is_made_is_not_dialled_on() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        listener = RawListener()
        async with started(a):
            main = await dialled(a, listener, b)
            a.transport.send(2, chunk())
            second = await listener.accept()
            assert await second.receive() is not None
            a.transport.set_peers([])
            await second.closed()
            await main.closed()
            await a.until("down", 2)
            assert a.transport.stats() == {}
            main.close()
            second.close()
        listener.close()

    run(test)


def test_a_second_connection_that_is_not_used_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a third one made when there is a piece again."""
    monkeypatch.setattr(bulk, "IDLE_S", 0.05)

    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            await connect_all(a, b)
            for offset in (0, 7):
                a.transport.send(2, chunk(offset))
                await b.until("message", 1, chunk(offset))
                while a.transport.stats()[2].connected_bulk:
                    await asyncio.sleep(0.005)
            assert a.transport.reject_counts == {}
            assert b.transport.reject_counts == {}

    run(test)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"member_id": 7}, "identity"),
        ({"name": "node-2b"}, "identity"),
        ({"cluster_id": OTHER_CLUSTER}, "cluster"),
        ({"refusal": "crowded"}, "refused"),
    ],
)
def test_somebody_else_gets_no_snapshot(changes: dict[str, object], reason: str) -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        listener = RawListener()
        async with started(a):
            main = await dialled(a, listener, b)
            a.transport.send(2, chunk())
            second = await listener.accept()
            assert await second.receive() is not None
            await second.send(encode_hello(FrameType.HELLO_REPLY, b.hello(**changes)))
            assert await second.receive() is None
            assert a.transport.reject_counts == {reason: 1}
            while a.transport.stats()[2].dropped_frames == 0:
                await asyncio.sleep(0.005)
            assert a.told.empty()
            main.close()
            second.close()
        listener.close()

    run(test)


def test_a_second_connection_that_cannot_be_made_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        listener = RawListener()
        async with started(a):
            main = await dialled(a, listener, b)
            listener.close()
            for dropped in (1, 2):
                a.transport.send(2, chunk())
                while a.transport.stats()[2].dropped_frames < dropped:
                    await asyncio.sleep(0.005)
            assert a.transport.stats()[2].connected
            main.close()

    with caplog.at_level(logging.DEBUG, "raft.transport"):
        run(test)
    failures = [r for r in caplog.records if "no second connection" in r.getMessage()]
    assert [record.levelno for record in failures] == [logging.INFO, logging.DEBUG]
    assert "to 'node-02' at 127.0.0.1:" in failures[0].getMessage()


@pytest.mark.parametrize(
    ("purpose", "message"),
    [
        (Purpose.MAIN, chunk()),
        (Purpose.BULK, HEARTBEAT),
        (Purpose.BULK, reply(0)),
    ],
    ids=["a piece on the main one", "a heartbeat on the second", "a reply as a call"],
)
def test_each_connection_carries_its_own_frames_only(
    purpose: Purpose, message: types.Message
) -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a):
            peer = await RawPeer.dial_as(a, b.hello(purpose=purpose))
            await peer.send(codec.encode_message(2, message))
            await peer.closed()
            assert a.transport.reject_counts == {"type": 1}
            assert a.told.empty()
            peer.close()

    run(test)


def test_of_two_second_connections_the_newer_counts_and_the_main_one_stays() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a):
            main = await RawPeer.dial_as(a, b.hello())
            older = await RawPeer.dial_as(a, b.hello(purpose=Purpose.BULK))
            newer = await RawPeer.dial_as(a, b.hello(purpose=Purpose.BULK))
            await older.closed()
            a.transport.send(2, reply(7))
            assert await receive(newer) == reply(7)
            a.transport.send(2, types.HeartbeatReply(3, 1, 2, 0))
            assert await receive(main) == types.HeartbeatReply(3, 1, 2, 0)
            newer.close()
            while a.transport.stats()[2].dropped_frames == 0:
                a.transport.send(2, reply(14))
                await asyncio.sleep(0.005)
            assert a.transport.stats()[2].connected_inbound
            for peer in (main, older):
                peer.close()
            while a.transport.stats():
                await asyncio.sleep(0.005)

    run(test)


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux only")
def test_a_snapshot_does_not_break_the_leaders_silence() -> None:
    """Only the main connection tells whether the leader lives."""

    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a):
            second = await RawPeer.dial_as(a, b.hello(purpose=Purpose.BULK))
            await second.send(codec.encode_message(2, chunk()))
            await a.until("message", 2, chunk())
            assert a.transport.leader_silence_us(2, 3) is None
            assert not a.transport.stats()[2].connected_inbound
            second.close()

    run(test)


def test_a_hello_without_a_purpose_is_for_the_main_connection() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a):
            peer = await RawPeer.dial(a)
            body = msgspec.msgpack.encode(list(msgspec.structs.astuple(b.hello()))[:6])
            await peer.send(wire.encode(FrameType.HELLO, body, sender=2))
            assert await peer.receive() is not None
            assert a.transport.stats()[2].connected_inbound
            peer.close()

    run(test)
