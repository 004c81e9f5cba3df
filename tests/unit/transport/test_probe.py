"""Asking who answers at an address leaves no trace but the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from raft_agent.transport.handshake import encode_hello
from raft_agent.transport.transport import ProbeFailed
from raft_agent.wire import FrameType
from tests.unit.transport.nodes import (
    CLUSTER,
    OTHER_CLUSTER,
    Node,
    RawListener,
    RawPeer,
    connect_all,
    dialled,
    run,
    started,
)

LONG_S = 3600.0  # longer than any test takes


async def probe(asker: Node, address: str, timeout_s: float = LONG_S) -> str:
    """Why nobody of use answers."""
    with pytest.raises(ProbeFailed) as caught:
        await asker.transport.probe(address, timeout_s)
    return str(caught.value)


@pytest.mark.parametrize("cluster_id", ["", CLUSTER, OTHER_CLUSTER])
def test_whoever_is_asked_says_who_it_is_and_where_it_belongs(
    cluster_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        a, b = Node(1), Node(2, cluster_id=cluster_id)
        async with started(a, b):
            hello = await a.transport.probe(b.target().address, LONG_S)
            assert (hello.member_id, hello.name, hello.cluster_id) == (2, "node-02", cluster_id)
            while b.transport.strangers.count:
                await asyncio.sleep(0.005)
            for node in (a, b):
                assert node.transport.stats() == {}
                assert node.transport.reject_counts == {}
                assert node.told.empty()

    with caplog.at_level(logging.INFO):
        run(test)
    texts = [record.getMessage() for record in caplog.records]
    assert all(text.startswith("listening on") for text in texts)


def test_a_question_does_not_touch_the_connections_that_stand() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            await connect_all(a, b)
            assert (await a.transport.probe(b.target().address, LONG_S)).member_id == 2
            assert a.transport.stats()[2].reconnects == 0
            assert a.transport.stats()[2].connected
            assert b.transport.stats()[1].connected_inbound
            assert a.told.empty()
            assert b.told.empty()

    run(test)


def test_an_address_that_leads_back_says_so_by_its_id() -> None:
    async def test() -> None:
        a = Node(1)
        async with started(a):
            assert (await a.transport.probe(a.target().address, LONG_S)).member_id == 1

    run(test)


def test_an_answer_to_other_versions_is_given() -> None:
    """The asker is the one who can say what does not go together."""

    async def test() -> None:
        a = Node(1)
        async with started(a):
            hello = Node(2).hello(oldest=2, newest=3, purpose="probe")
            peer = await RawPeer.dial_as(a, hello)
            assert await peer.receive() is None
            assert a.transport.reject_counts == {}
            peer.close()

    run(test)


async def nobody_listens(a: Node) -> str:
    listener = RawListener()
    listener.close()
    return await probe(a, listener.address)


async def no_address(a: Node) -> str:
    return await probe(a, "127.0.0.1:http")


async def nobody_answers(a: Node) -> str:
    listener = RawListener()
    text = await probe(a, listener.address, 0.05)
    listener.close()
    return text


def answering(words: bytes) -> Callable[[Node], Awaitable[str]]:
    """Somebody who says this and closes."""

    async def trouble(a: Node) -> str:
        listener = RawListener()
        question = asyncio.ensure_future(probe(a, listener.address))
        peer = await listener.accept()
        assert await peer.receive() is not None
        await peer.send(words)
        peer.close()
        listener.close()
        return await question

    return trouble


def reply_of(**changes: object) -> bytes:
    return encode_hello(FrameType.HELLO_REPLY, Node(2).hello(**changes))


@pytest.mark.parametrize(
    ("trouble", "text"),
    [
        (nobody_listens, "cannot connect to {address}: connection refused"),
        (no_address, "'http' is no port number"),
        (nobody_answers, "{address}: it takes connections, but does not answer"),
        (answering(b""), "{address}: it closed the connection before it had answered"),
        (answering(b"HTTP/1.1 400 Bad Request"), "{address}: no raft-agent answers there"),
        (answering(reply_of()[:60]), "{address}: no raft-agent answers there: the stream ended"),
        (answering(reply_of(refusal="go\naway")), "{address}: 'node-02' refuses: go?away"),
        (
            answering(reply_of(oldest=9, newest=9)),
            "{address}: 'node-02' runs a raft-agent, which knows version 9, and 'node-01' runs",
        ),
        (answering(encode_hello(FrameType.HELLO, Node(2).hello())), "type 1 is not expected"),
    ],
    ids=[
        "nobody",
        "no address",
        "mute",
        "closing",
        "another program",
        "half an answer",
        "refusal",
        "other versions",
        "no answer",
    ],
)
def test_why_nobody_of_use_answers_is_said_and_not_logged(
    trouble: Callable[[Node], Awaitable[str]], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        a = Node(1)
        async with started(a):
            said = await trouble(a)
            assert text.replace("{address}", "127.0.0.1:0") in _without_port(said)
            assert a.transport.reject_counts == {}

    with caplog.at_level(logging.WARNING):
        run(test)
    assert caplog.records == []


def _without_port(text: str) -> str:
    before, at, rest = text.partition("127.0.0.1:")
    return f"{before}{at}0{rest.lstrip('0123456789')}" if rest[:1].isdigit() else text


def test_a_question_given_up_leaves_no_connection() -> None:
    async def test() -> None:
        a = Node(1)
        listener = RawListener()
        async with started(a):
            question = asyncio.ensure_future(a.transport.probe(listener.address, LONG_S))
            peer = await listener.accept()
            assert await peer.receive() is not None
            question.cancel()
            await peer.closed()
            peer.close()
        listener.close()

    run(test)


def test_closing_answers_the_questions_that_wait() -> None:
    async def test() -> None:
        a = Node(1)
        listener = RawListener()
        await a.transport.start()
        question = asyncio.ensure_future(probe(a, listener.address))
        peer = await listener.accept()
        assert await peer.receive() is not None
        await a.transport.close()
        assert "closed the connection" in await question
        peer.close()
        listener.close()

    run(test)


def test_a_question_from_a_known_peer_makes_no_connection_of_it() -> None:
    async def test() -> None:
        a = Node(1)
        listener = RawListener()
        async with started(a):
            main = await dialled(a, listener, Node(2))
            peer = await RawPeer.dial_as(a, Node(2).hello(purpose="probe"))
            await peer.closed()
            assert not a.transport.stats()[2].connected_inbound
            assert a.told.empty()
            peer.close()
            main.close()
        listener.close()

    run(test)
