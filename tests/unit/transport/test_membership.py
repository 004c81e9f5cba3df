"""Members come, move and go: who is dialled, who may still dial in, and who hears whom."""

from __future__ import annotations

import asyncio

import pytest

from raft_agent.consensus import types
from raft_agent.transport.transport import PeerTarget
from tests.unit.transport.nodes import (
    CLUSTER,
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

PRE_VOTE = types.PreVote(term=4, request_id=9, last_index=7, last_term=3)
REMOVED = types.Removed(term=5, request_id=9)


async def until_gone(node: Node, member_id: int) -> None:
    """Until neither connection with this member stands."""
    while member_id in node.transport.stats():
        await asyncio.sleep(0.005)


def test_a_removed_member_is_left_and_may_still_ask_and_be_told_so() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            await connect_all(a, b)
            a.transport.set_peers([a.target()])
            await a.until("down", 2)
            # On the connection that it has, and on one that it dials now.
            for _ in range(2):
                b.transport.send(1, PRE_VOTE)
                assert await a.until("message") == ("message", 2, PRE_VOTE)
                a.transport.send(2, REMOVED)
                assert await b.until("message") == ("message", 1, REMOVED)
                b.transport.set_peers([])
                await until_gone(a, 2)
                b.transport.set_peers([a.target()])
                await b.until("up", 1)
            assert not a.transport.stats()[2].connected
            assert a.transport.reject_counts == {}

    run(test)


def test_what_a_member_announces_is_known_while_a_connection_stands() -> None:
    async def test() -> None:
        a, b = Node(1), Node(2)
        async with started(a, b):
            assert a.transport.announced(2) == ""
            await connect_all(a, b)
            said = b.transport.announced(2)
            assert said
            assert a.transport.announced(2) == said
            b.transport.set_peers([])
            assert a.transport.announced(2) == said
            a.transport.set_peers([])
            await until_gone(a, 2)
            assert a.transport.announced(2) == ""

    run(test)


def test_a_removed_name_comes_back_under_a_new_id() -> None:
    async def test() -> None:
        a, again = Node(1), Node(7, name="node-02", cluster_id="")
        gone = RawListener()
        async with started(a, again):
            a.transport.set_peers([a.target(), PeerTarget("node-02", gone.address, 2)])
            old = await gone.accept_as(Node(2).hello())
            await a.until("up", 2)
            a.transport.set_peers([a.target()])
            await a.until("down", 2)
            again.transport.set_peers([PeerTarget("", a.target().address, 0)])
            await again.until("up", 1)
            a.transport.set_peers([a.target(), again.target()])
            assert await a.until("up") == ("up", 7, "node-02")
            old.close()
        gone.close()

    run(test)


def test_a_member_and_its_replacement_of_the_same_name_are_both_peers() -> None:
    """While a change is under way the configuration holds both, maybe at one address."""

    async def test() -> None:
        a, new = Node(1), Node(7, name="node-02")
        async with started(a, new):
            address = new.target().address
            a.transport.set_peers(
                [PeerTarget("node-02", address, 2), PeerTarget("node-02", address, 7)]
            )
            assert await a.until("up") == ("up", 7, "node-02")
            await a.until_refused("identity")
            new.transport.set_peers([a.target()])
            await new.until("up", 1)
            new.transport.send(1, HEARTBEAT)
            await a.until("message", 7, HEARTBEAT)
            assert a.transport.problem(2).startswith("another member answers there")

    run(test)


def test_a_moved_member_is_dialled_at_its_new_address_while_the_old_one_still_stands() -> None:
    async def test() -> None:
        a = Node(1)
        old, new = RawListener(), RawListener()
        async with started(a):
            before = await dialled(a, old, Node(2))
            a.transport.set_peers([PeerTarget("node-02", new.address, 2)])
            after = await new.accept_as(Node(2).hello())
            await before.closed()
            # In this order, or the core would take the peer for lost.
            assert await a.told.get() == ("down", 2)
            assert await a.told.get() == ("up", 2, "node-02")
            assert a.transport.peer_at(old.address) == 0
            assert a.transport.peer_at(new.address) == 2
            before.close()
            after.close()
        old.close()
        new.close()

    run(test)


def test_a_fresh_node_takes_calls_of_every_member_that_joins_it() -> None:
    async def test() -> None:
        joiner = Node(9, cluster_id="")
        members = [Node(1), Node(2), Node(3)]
        async with started(joiner, *members):
            for member in members:
                member.transport.set_peers([joiner.target()])
                await member.until("up", 9)
                member.transport.send(9, HEARTBEAT)
                await joiner.until("message", member.member_id, HEARTBEAT)
                reply = types.HeartbeatReply(3, 1, 2, 0)
                joiner.transport.send(member.member_id, reply)
                await member.until("message", 9, reply)
            assert joiner.transport.reject_counts == {}

    run(test)


def test_who_answers_at_an_address_is_found_out_and_serves_requests() -> None:
    """A fresh node knows addresses of the cluster that it wants to join, and no more."""

    async def test() -> None:
        joiner, member = Node(9, cluster_id=""), Node(1)
        nobody = RawListener()
        nobody.close()
        member.answer_forward = lambda body, reply: reply(body.upper())
        answers: asyncio.Queue[tuple[bytes | None, bool]] = asyncio.Queue()
        async with started(joiner, member):
            address = member.target().address
            join = [PeerTarget("", nobody.address, 0), PeerTarget("", address, 0)]
            joiner.transport.set_peers(join)
            assert await joiner.until("up") == ("up", 1, "node-01")
            joiner.transport.set_peers(join)
            assert joiner.transport.peer_at(nobody.address) == 0
            assert joiner.transport.peer_at("127.0.0.1:1") == 0
            peer = joiner.transport.peer_at(address)
            assert peer == 1
            joiner.transport.forward(peer, b"join", lambda *answer: answers.put_nowait(answer))
            assert await answers.get() == (b"JOIN", True)
            # Once it belongs to the cluster the members are known, and the connection stays.
            joiner.transport.set_cluster(CLUSTER)
            joiner.transport.set_peers([member.target(), joiner.target()])
            joiner.transport.send(1, HEARTBEAT)
            await member.until("message", 9, HEARTBEAT)
            assert joiner.transport.stats()[1].reconnects == 0
            assert joiner.told.empty()

    run(test)


def test_a_nameless_address_that_is_our_own_is_not_dialled() -> None:
    async def test() -> None:
        port = RawListener()
        port.close()
        joiner = Node(9, cluster_id="", port=int(port.address.rpartition(":")[2]))
        member = Node(1)
        async with started(joiner, member):
            joiner.transport.set_peers(
                [PeerTarget("", port.address, 0), PeerTarget("", member.target().address, 0)]
            )
            await joiner.until("up", 1)
            assert joiner.transport.reject_counts == {}

    run(test)


def test_the_log_names_an_address_where_no_name_is_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nobody = RawListener()
    nobody.close()

    async def test() -> None:
        joiner = Node(9, cluster_id="")
        async with started(joiner):
            joiner.transport.set_peers([PeerTarget("", nobody.address, 0)])
            while "cannot connect" not in caplog.text:
                await asyncio.sleep(0.005)

    with caplog.at_level("INFO"):
        run(test)
    assert f"cannot connect to {nobody.address}: " in caplog.text


def test_a_node_that_has_joined_leaves_the_members_of_other_clusters() -> None:
    """While it was fresh they were as welcome as those whom it has joined."""

    async def test() -> None:
        joiner = Node(9, cluster_id="")
        async with started(joiner):
            others = await RawPeer.dial_as(joiner, Node(2).hello(cluster_id=OTHER_CLUSTER))
            fresh = await RawPeer.dial_as(joiner, Node(3).hello(cluster_id=""))
            member = await RawPeer.dial_as(joiner, Node(4).hello())
            joiner.transport.set_cluster(CLUSTER)
            await others.closed()
            assert joiner.transport.reject_counts == {"cluster": 1}
            await until_gone(joiner, 2)
            assert set(joiner.transport.stats()) == {3, 4}
            for peer in (others, fresh, member):
                peer.close()

    run(test)
