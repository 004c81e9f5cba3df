"""Networks in which some see each other and some don't, so that they disagree on who lives.

What Raft can bear here rests on pre-votes, on voters that refuse while they hear a leader, and on
leaders that step down without a quorum. Where it can't make progress a test says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from raft_agent import platform
from raft_agent.api import endpoint, protocol
from raft_agent.api.client import Client
from raft_agent.tls.files import TlsFiles
from tests.e2e.agents import UNREACHABLE, wait_for
from tests.kernel import netns
from tests.torture.world import GUEST, Node, Options, World, missing, world

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.long,
]
TIMEOUT_S = 40.0


@contextmanager
def cluster(voters: int) -> Iterator[World]:
    directory = Path(tempfile.mkdtemp(prefix="raft-links-"))
    options = Options(1, voters=voters, spares=0, lossy=False, skewed=True)
    try:
        with world(directory, options) as made:
            yield made
    except BaseException:
        print(f"logs and data are kept in {directory}")
        raise
    shutil.rmtree(directory)


def only(made: World, links: Sequence[tuple[int, int]]) -> None:
    """Of all links between nodes, numbered from 0, these are left."""
    kept = {frozenset(link) for link in links}
    nodes = made.nodes
    gone = [
        pair
        for one in range(len(nodes))
        for other in range(len(nodes))
        if one != other and frozenset((one, other)) not in kept
        for pair in made.directions([nodes[one]], [nodes[other]])
    ]
    made.network.cut("links", gone)


def lead(made: World, node: Node) -> None:
    """Have the node lead."""

    def leads() -> bool | None:
        leader = made.leader()
        if leader is node:
            return True
        if leader is not None:
            with contextlib.suppress(*UNREACHABLE):
                leader.agent.ask(protocol.LeaderTransfer(1, node.name), timeout_s=3)
        return None

    wait_for(f"{node.name} to lead", leads, TIMEOUT_S)


def put(node: Node, key: str) -> bool:
    """Whether the node, or whom it forwards to, took the write."""
    try:
        node.agent.ask(protocol.Put(1, key, b"v", -1, forward=True), timeout_s=2)
    except UNREACHABLE:
        return False
    return True


def wait_served(node: Node, key: str) -> None:
    wait_for(f"{node.name} to serve a write", lambda: put(node, key) or None, TIMEOUT_S)


def term(made: World) -> int:
    return max(status.term for status in made.statuses().values())


def pre_votes(node: Node) -> int:
    """How often it has asked whether it may stand."""
    answer = node.agent.ask(protocol.Vitals(1), timeout_s=5)
    assert isinstance(answer, protocol.VitalsResult)
    return answer.elections["pre_vote"]


def wait_for_pre_votes(node: Node, more: int) -> None:
    """Until the node has asked so many times more whether it may stand."""
    before = pre_votes(node)
    wait_for(
        f"{node.name} to ask {more} times",
        lambda: True if pre_votes(node) >= before + more else None,
        TIMEOUT_S,
    )


def test_who_does_not_see_the_leader_does_not_disturb_those_who_do() -> None:
    """Cloudflare, November 2020: one follower lost its link to the leader alone."""
    with cluster(3) as made:
        leader, seeing, cut_off = made.nodes
        lead(made, leader)
        wait_served(leader, "before")
        before = term(made)
        only(made, [(0, 1), (1, 2)])
        wait_for_pre_votes(cut_off, 5)
        assert put(leader, "meanwhile")
        assert put(seeing, "through a follower")
        assert (made.leader(), term(made)) == (leader, before)
        made.network.heal("links")
        wait_served(cut_off, "after")
        assert term(made) == before


def test_in_a_chain_of_three_the_end_leads_on() -> None:
    with cluster(3) as made:
        lead(made, made.nodes[0])
        only(made, [(0, 1), (1, 2)])
        wait_for_pre_votes(made.nodes[2], 5)
        assert put(made.nodes[0], "meanwhile")
        assert made.leader() is made.nodes[0]


def test_only_who_sees_a_majority_can_lead_and_does() -> None:
    """Five nodes, and of all links only those of the first one are left, which does not lead."""
    with cluster(5) as made:
        hub, *others = made.nodes
        lead(made, others[0])
        wait_served(others[0], "before")
        only(made, [(0, n) for n in range(1, 5)])
        wait_for("the hub to lead", lambda: True if made.leader() is hub else None, TIMEOUT_S)
        wait_served(hub, "in the middle")
        for node in others:
            wait_served(node, f"through {node.name}")
        reached = term(made)
        wait_for_pre_votes_of_none(made)
        assert (made.leader(), term(made)) == (hub, reached)


def wait_for_pre_votes_of_none(made: World) -> None:
    """Everybody hears the hub: nobody asks for votes while it serves some hundred writes."""
    before = {node.name: pre_votes(node) for node in made.nodes}
    for number in range(200):
        wait_served(made.nodes[0], f"k{number}")
    assert {node.name: pre_votes(node) for node in made.nodes} == before


def test_in_a_chain_of_five_one_in_the_middle_leads_and_stays() -> None:
    """The end led; it sees one other only. Whoever leads then sees two, and the ends that do not
    see it ask in vain."""
    with cluster(5) as made:
        lead(made, made.nodes[0])
        only(made, [(0, 1), (1, 2), (2, 3), (3, 4)])
        middle = made.nodes[1:4]

        def serving() -> Node | None:
            leader = made.leader()
            return leader if leader in middle and put(leader, "k") else None

        leader = wait_for("one in the middle to serve", serving, TIMEOUT_S)
        reached = term(made)
        unseeing = [n for n in made.nodes if abs(made.nodes.index(n) - _place(made, leader)) > 1]
        for node in unseeing:
            wait_for_pre_votes(node, 3)
        assert put(leader, "meanwhile")
        assert (made.leader(), term(made)) == (leader, reached)


def _place(made: World, node: Node) -> int:
    return made.nodes.index(node)


def test_who_sees_a_majority_but_lacks_entries_can_not_lead_until_links_heal() -> None:
    """Raft makes no progress here: the only node with a quorum may not be elected, for its log is
    behind, and those whose logs are not see no quorum. When one link heals they go on."""
    with cluster(5) as made:
        hub, leader, *others = made.nodes
        lead(made, leader)
        wait_served(leader, "before")
        # The hub and one other miss what the majority of the other three commits.
        only(made, [(1, 2), (1, 3), (2, 3)])
        wait_served(leader, "missed")
        leader.kill()
        only(made, [(0, n) for n in range(2, 5)])
        for node in (hub, *others):
            wait_for_pre_votes(node, 4)
        assert made.leader() is None
        assert not put(hub, "in vain")
        only(made, [(0, 2), (0, 3), (2, 3)])
        wait_served(others[0], "after")
        found = others[0].agent.ask(protocol.Get(1, "missed"), timeout_s=10)
        assert isinstance(found, protocol.KeyValue)


@pytest.mark.parametrize("cut", ["deaf", "mute"])
def test_a_leader_that_hears_nobody_or_that_nobody_hears_is_replaced(cut: str) -> None:
    with cluster(3) as made:
        leader = wait_for("a leader", made.leader, TIMEOUT_S)
        others = [node for node in made.nodes if node is not leader]
        pairs = (others, [leader]) if cut == "deaf" else ([leader], others)
        made.network.cut("links", made.directions(*pairs))

        def successor() -> Node | None:
            statuses = made.statuses()
            leads = (n for n in others if n.name in statuses and statuses[n.name].role == "leader")
            return next(leads, None)

        wait_served(wait_for("another leader", successor, TIMEOUT_S), "meanwhile")
        made.network.heal("links")
        wait_served(leader, "after")


def test_a_watch_at_a_machine_that_is_gone_without_a_word_goes_on_at_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_SILENCE_S", 2.0)
    monkeypatch.setattr(platform, "_KEEPALIVE_IDLE_S", 1)
    monkeypatch.setattr(platform, "_KEEPALIVE_INTERVAL_S", 1)
    with cluster(3) as made, netns.inside(made.guest):
        asked, other, _ = made.nodes
        wait_served(other, "before")
        papers = made.papers.of_clients()
        files = TlsFiles(papers.ca, papers.cert, papers.key)

        async def watch() -> None:
            endpoints = [endpoint.Endpoint(node.address, files) for node in made.nodes]
            async with Client(endpoints) as client:
                told = client.watch_keys("after")
                await told.start()
                nothing = {(GUEST, place) for place in asked.addresses}
                cut = {*nothing, *((place, GUEST) for place in asked.addresses)}
                await asyncio.to_thread(made.network.cut, "no word", cut)
                await asyncio.to_thread(wait_served, other, "after")
                async with asyncio.timeout(TIMEOUT_S):
                    assert (await anext(told)).key == "after"
                await told.close()

        asyncio.run(watch())
