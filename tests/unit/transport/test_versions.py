"""Which programs go together on a connection, and what is said when they don't."""

from __future__ import annotations

import pytest

from raft_agent import __version__, wire
from raft_agent.transport.handshake import (
    Hello,
    Outdated,
    Refused,
    check_hello,
    encode_hello,
    read_reply,
)
from raft_agent.transport.transport import PeerTarget
from raft_agent.versions import CLUSTER_VERSIONS
from raft_agent.wire import FrameReader, FrameType
from tests.unit.transport.nodes import Node, RawListener, RawPeer, run, started

OWN = Node(1).hello(program="1.0", in_force=1)


def other(**changes: object) -> Hello:
    return Node(2).hello(**({"program": "2.0", "in_force": 1} | changes))


@pytest.mark.parametrize(
    ("own", "hello"),
    [
        ({}, {}),
        ({}, {"newest": 5}),
        ({"newest": 2, "in_force": 2}, {"newest": 2, "in_force": 1}),
        ({"newest": 3, "in_force": 2}, {"oldest": 2, "newest": 2}),
        # Neither belongs to a cluster: one that both know will do.
        ({"newest": 2, "cluster_id": "", "in_force": 0}, {"oldest": 2, "newest": 3, "in_force": 0}),
    ],
)
def test_programs_with_the_version_in_force_go_together(
    own: dict[str, object], hello: dict[str, object]
) -> None:
    check_hello(Node(1).hello(**({"in_force": 1} | own)), other(**hello))


@pytest.mark.parametrize(
    ("own", "hello", "said"),
    [
        (
            {},
            {"oldest": 2, "newest": 3, "in_force": 2},
            r"'node-02' runs raft-agent 2.0, which knows versions 2 to 3, and 'node-01' runs "
            r"raft-agent 1.0, which knows version 1, so they can't talk: install the same",
        ),
        (
            {"newest": 2, "in_force": 2},
            {},
            r"'node-02' runs raft-agent 2.0, which knows version 1, and the cluster's version is "
            r"2: install a raft-agent for 'node-02' that knows it",
        ),
        (
            {},
            {"newest": 2, "in_force": 2},
            r"'node-01' runs raft-agent 1.0, which knows version 1, and the cluster's version is "
            r"2: install a raft-agent for 'node-01'",
        ),
        ({"newest": 3}, {"oldest": 2, "newest": 3}, r"'node-02' .* versions 2 to 3, .* is 1"),
    ],
)
def test_others_are_refused_with_what_to_install(
    own: dict[str, object], hello: dict[str, object], said: str
) -> None:
    with pytest.raises(Refused, match=said) as caught:
        check_hello(Node(1).hello(**({"program": "1.0", "in_force": 1} | own)), other(**hello))
    assert caught.value.reason == "version"


def reply(hello: Hello, own: Hello = OWN, member_id: int = 2) -> Hello:
    types = frozenset({int(FrameType.HELLO_REPLY)})
    (frame,) = FrameReader(types).feed(encode_hello(FrameType.HELLO_REPLY, hello))
    return read_reply(frame, own, member_id, "node-02")


def test_a_member_that_is_too_old_for_its_cluster_is_told_what_to_install() -> None:
    """Whether it is refused, too, or not."""
    for refusal in ("", "too old"):
        with pytest.raises(Outdated, match=r"knows version 1: .* Install one that knows version 2"):
            reply(other(newest=2, in_force=2, refusal=refusal))


@pytest.mark.parametrize(
    ("changes", "own", "member_id"),
    [
        ({"cluster_id": "f" * 32}, OWN, 2),
        ({}, Node(1).hello(cluster_id=""), 2),
        ({}, OWN, 0),
        ({}, OWN, 3),
    ],
    ids=["another cluster", "no cluster", "an unknown member", "another member"],
)
def test_no_stranger_can_end_an_agent_by_calling_it_too_old(
    changes: dict[str, object], own: Hello, member_id: int
) -> None:
    with pytest.raises(Refused):
        reply(other(newest=2, in_force=2, **changes), own, member_id)


def test_a_member_that_is_dialled_may_say_that_this_program_is_too_old() -> None:
    async def test() -> None:
        node, listener = Node(1), RawListener()
        async with started(node):
            node.transport.set_versions(in_force=1, promised=1)
            node.transport.set_peers([PeerTarget("node-02", listener.address, 2)])
            peer = await listener.accept()
            await peer.receive()
            hello = other(newest=2, in_force=2)
            await peer.send(encode_hello(FrameType.HELLO_REPLY, hello))
            told = await node.until("outdated")
            assert "Install one that knows version 2" in told[1]
            assert node.transport.reject_counts["version"] == 1
            peer.close()
        listener.close()

    run(test)


def test_a_hello_says_what_is_in_force_and_what_was_promised() -> None:
    async def test() -> None:
        a, b, fresh = Node(1), Node(2), Node(3, cluster_id="")
        async with started(a, b, fresh):
            for node in (b, fresh):
                node.transport.set_versions(in_force=1, promised=2)
            hello = await a.transport.probe(b.target().address, 5)
            assert (hello.in_force, hello.promised, hello.program) == (1, 2, __version__)
            assert hello.versions == CLUSTER_VERSIONS
            hello = await a.transport.probe(fresh.target().address, 5)
            assert (hello.in_force, hello.promised) == (0, 2)

    run(test)


def test_promises_are_asked_for_and_given_between_members() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            a.transport.set_peers([b.target()])
            await a.until("up", 2)
            a.transport.ask_version(2, 7)
            assert await b.until("asked") == ("asked", 1, 7)
            b.transport.promise_version(1, 7)
            assert await a.until("promised") == ("promised", 2, 7)
            assert a.transport.known_versions()[2] == b.hello().versions
            assert b.transport.known_versions() == {}  # it has dialled nobody
            b.transport.ask_version(9, 7)
            b.transport.promise_version(9, 7)

    run(test)


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", b"\1\0\0\0\0"])
def test_a_question_about_no_version_closes_the_connection(body: bytes) -> None:
    async def test() -> None:
        node = Node(1)
        async with started(node):
            peer = await RawPeer.dial_as(node, Node(2).hello())
            await peer.send(wire.encode(FrameType.VERSION_ASK, body, sender=2))
            await peer.closed()
            assert node.transport.reject_counts == {"body": 1}
            peer.close()

    run(test)
