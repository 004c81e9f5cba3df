from __future__ import annotations

import asyncio
import errno
import logging
import sys
from collections.abc import Callable

import msgspec
import pytest

from raft_agent.consensus import batch as batches
from raft_agent.consensus import types
from raft_agent.transport import codec
from raft_agent.transport.transport import PeerTarget
from tests.unit.transport.messages import ONE_OF_EACH
from tests.unit.transport.nodes import (
    HEARTBEAT,
    Node,
    connect_all,
    run,
    started,
)

# Snapshots go over connections of their own.
ON_MAIN = [m for m in ONE_OF_EACH if not isinstance(m, types.SnapshotChunk | types.SnapshotReply)]


def test_three_nodes_exchange_every_message() -> None:
    async def test() -> None:
        nodes = [Node(1), Node(2), Node(3)]
        async with started(*nodes):
            await connect_all(*nodes)
            for sender in nodes:
                for receiver in nodes:
                    if sender is receiver:
                        continue
                    for message in ON_MAIN:
                        sender.transport.send(receiver.member_id, message)
                    received = [
                        (await receiver.until("message", sender.member_id))[2] for _ in ON_MAIN
                    ]
                    # Calls and replies take two connections; each keeps its order.
                    calls = [m for m in ON_MAIN if type(m) not in codec.REPLIES]
                    replies = [m for m in ON_MAIN if type(m) in codec.REPLIES]
                    assert [m for m in received if type(m) not in codec.REPLIES] == calls
                    assert [m for m in received if type(m) in codec.REPLIES] == replies
            # Each was told to dial all three and left itself out.
            assert [sum(node.transport.reject_counts.values()) for node in nodes] == [0, 0, 0]

    run(test)


def test_messages_of_one_turn_go_out_in_order() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            await connect_all(a, b)
            payload = bytes(100_000)
            sent: list[types.Message] = []
            for number in range(1, 101):
                batch = batches.encode(batches.BatchKind.COMMANDS, number, 1, 1, payload)
                sent.append(types.AppendEntries(1, number, 1, number - 1, 1, 0, (batch,)))
                sent.append(types.Heartbeat(1, number, 1, 0))
            for message in sent:
                a.transport.send(2, message)
            assert [(await b.until("message"))[2] for _ in sent] == sent
            stats = a.transport.stats()[2]
            assert stats.dropped_frames == 0
            assert stats.frames_out > len(sent)
            assert stats.bytes_out > 100 * len(payload)
            assert b.transport.stats()[1].bytes_in == stats.bytes_out

    run(test)


def test_calls_take_our_connection_and_replies_the_peers() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            a.transport.set_peers([b.target()])
            await a.until("up", 2)
            a.transport.send(2, HEARTBEAT)
            await b.until("message", 1, HEARTBEAT)
            # b has not dialled a: it can answer, but not call.
            b.transport.send(1, types.TimeoutNow(3, 1))
            b.transport.send(1, types.HeartbeatReply(3, 1, 2, 0))
            assert await a.told.get() == ("message", 2, types.HeartbeatReply(3, 1, 2, 0))
            stats = b.transport.stats()[1]
            assert (stats.connected, stats.connected_inbound) == (False, True)
            assert stats.dropped_frames == 1
            assert a.transport.stats()[2].connected

    run(test)


def test_a_forwarded_request_comes_back_with_its_reply() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        held: list[tuple[bytes, Callable[[bytes], None]]] = []
        b.answer_forward = lambda body, reply: held.append((body, reply))
        replies: asyncio.Queue[tuple[str, bytes | None, bool]] = asyncio.Queue()
        async with started(a, b):
            await connect_all(a, b)
            for name in ("first", "second"):
                a.transport.forward(
                    2, name.encode(), lambda body, sent, n=name: replies.put_nowait((n, body, sent))
                )
            await b.until("forward", 1, b"first")
            await b.until("forward", 1, b"second")
            for body, reply in reversed(held):
                reply(body.upper())
            assert await replies.get() == ("second", b"SECOND", True)
            assert await replies.get() == ("first", b"FIRST", True)

    run(test)


def test_a_forwarded_request_whose_connection_is_lost_has_an_unknown_outcome() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        replies: asyncio.Queue[tuple[bytes | None, bool]] = asyncio.Queue()
        held: list[Callable[[bytes], None]] = []
        b.answer_forward = lambda _, reply: held.append(reply)

        def on_reply(body: bytes | None, sent: bool) -> None:
            replies.put_nowait((body, sent))

        async with started(a):
            async with started(b):
                await connect_all(a, b)
                a.transport.forward(2, b"write", on_reply)
                await b.until("forward", 1, b"write")
            assert await replies.get() == (None, True)
            held[0](b"too late")
            await a.until("down", 2)
            a.transport.forward(2, b"write", on_reply)
            assert replies.empty()  # later, never from within the call
            assert await replies.get() == (None, False)
            a.transport.forward(99, b"write", on_reply)
            assert await replies.get() == (None, False)
        assert replies.empty()

    run(test)


def test_closing_ends_forwarded_requests_and_tells_no_peer_down() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        replies: asyncio.Queue[tuple[bytes | None, bool]] = asyncio.Queue()
        async with started(b):
            await a.transport.start()
            await connect_all(a, b)
            a.transport.forward(2, b"write", lambda *reply: replies.put_nowait(reply))
            a.transport.send(2, types.TimeoutNow(3, 1))
            await a.transport.close()
            assert replies.get_nowait() == (None, True)
            assert a.told.empty()
            # What was queued still went out.
            await b.until("message", 1, types.TimeoutNow(3, 1))

    run(test)


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux only")
def test_the_leaders_silence_is_known_only_in_the_term_of_its_last_frame() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            await connect_all(a, b)
            assert b.transport.leader_silence_us(1, 3) is None
            a.transport.send(2, HEARTBEAT)
            await b.until("message", 1, HEARTBEAT)
            silence_us = b.transport.leader_silence_us(1, 3)
            assert silence_us is not None
            assert silence_us >= 0
            assert b.transport.leader_silence_us(1, 2) is None
            assert b.transport.leader_silence_us(1, 4) is None
            assert b.transport.leader_silence_us(9, 3) is None
            a.transport.set_peers([])
            await a.until("down", 2)
            while b.transport.stats()[1].connected_inbound:
                await asyncio.sleep(0.005)
            assert b.transport.leader_silence_us(1, 3) is None

    run(test)


def test_an_address_in_use_is_named() -> None:
    async def test() -> None:
        a = Node(1)
        async with started(a):
            with pytest.raises(OSError, match=f"can't listen on 127.0.0.1:{a.port}") as caught:
                await Node(2, port=a.port).transport.start()
            assert caught.value.errno == errno.EADDRINUSE

    run(test)


def test_a_malformed_listen_address_is_named() -> None:
    async def test() -> None:
        with pytest.raises(OSError, match="'70000' is no port number"):
            await Node(1, port=70000).transport.start()

    run(test)


@pytest.mark.parametrize("address", ["127.0.0.1:0x", "no colon", "a..b:1", "[::1]:1"])
def test_an_address_that_leads_nowhere_is_tried_and_said_once(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        a = Node(1)
        async with started(a):
            a.transport.set_peers([PeerTarget("node-02", address, 2)])
            while len([r for r in caplog.records if "cannot connect" in r.getMessage()]) < 2:
                await asyncio.sleep(0.005)

    with caplog.at_level(logging.DEBUG, "raft.transport"):
        run(test)
    failures = [r for r in caplog.records if "cannot connect" in r.getMessage()]
    assert [record.levelno for record in failures[:2]] == [logging.INFO, logging.DEBUG]
    assert address in failures[0].getMessage()


def test_the_round_trip_of_a_call_that_is_answered_at_once_is_timed() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            await connect_all(a, b)
            for request_id in (7, 8):
                a.transport.send(2, msgspec.structs.replace(HEARTBEAT, request_id=request_id))
                await b.until("message", 1)
            # Only one is timed at once, and another answer says nothing of it.
            for request_id in (8, 7, 7):
                reply = types.HeartbeatReply(HEARTBEAT.term, request_id, 0, 0)
                b.transport.send(1, reply)
                await a.until("message", 2)
            trips = a.transport.stats()[2].round_trips
            assert (sum(trips.buckets), trips.sum_us > 0) == (1, True)
            assert sum(b.transport.stats()[1].round_trips.buckets) == 0

    run(test)
