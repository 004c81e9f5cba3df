"""The program follows the interfaces: they vanish, come back, and routes move between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
import uvloop
from pyroute2 import IPRoute

from raft_agent.kernel import tc
from raft_agent.kernel.attachment import Attachment
from tests.kernel import netns, programs

PORT = 5555


@pytest.fixture
def here() -> Iterator[str]:
    with netns.namespaces("a", "b") as (here, there):
        netns.connect(here, there, "10.9.0.1/24", "10.9.0.2/24")
        netns.ip("-n", here, "link", "add", "eth1", "type", "veth", "peer", "name", "far1")
        netns.ip("-n", here, "link", "set", "eth1", "up")
        with netns.inside(here):
            yield here


async def attached(*names: str) -> set[str]:
    """Those of the interfaces that have our filters."""
    return await asyncio.to_thread(_attached, names)


def _attached(names: tuple[str, ...]) -> set[str]:
    with IPRoute() as ipr:
        indices = {name: ipr.link_lookup(ifname=name) for name in names}
        return {n for n, found in indices.items() if found and tc.is_attached(ipr, found[0], PORT)}


async def update(attachment: Attachment) -> tuple[tuple[str, ...], str]:
    place = await attachment.update([])
    return place.interfaces, place.problem


def run(wanted: str, test: Callable[[Attachment], Awaitable[None]]) -> None:
    async def inner() -> None:
        with programs.pair() as pair:
            await test(Attachment(wanted, PORT, pair))

    uvloop.run(inner())


def test_the_named_interface_is_attached_and_left_again(here: str) -> None:
    async def test(attachment: Attachment) -> None:
        assert await update(attachment) == (("eth0",), "")
        assert await attached("eth0", "eth1", "lo") == {"eth0"}
        await attachment.remove()
        assert await attached("eth0", "eth1", "lo") == set()

    run("eth0", test)


def test_routes_choose_the_interfaces_and_move_them(here: str) -> None:
    async def test(attachment: Attachment) -> None:
        peers = ["10.9.0.2", "10.9.0.77"]
        assert (await attachment.update(peers)).interfaces == ("eth0",)
        netns.ip("-n", here, "route", "add", "10.9.0.77/32", "dev", "eth1")
        assert (await attachment.update(peers)).interfaces == ("eth0", "eth1")
        assert (await attachment.update(peers[1:])).interfaces == ("eth1",)
        assert await attached("eth0", "eth1") == {"eth1"}

    run("auto", test)


def test_an_interface_that_vanishes_and_returns_is_attached_again(here: str) -> None:
    async def test(attachment: Attachment) -> None:
        await attachment.update([])
        netns.ip("-n", here, "link", "delete", "eth0")
        gone = await attachment.update([])
        assert gone.interfaces == ()
        assert 'there is no interface "eth0" at the moment' in gone.problem
        netns.ip("-n", here, "link", "add", "eth0", "type", "veth", "peer", "name", "far0")
        assert await update(attachment) == (("eth0",), "")
        assert await attached("eth0") == {"eth0"}

    run("eth0", test)


def test_filters_that_somebody_else_removed_come_back(here: str) -> None:
    async def test(attachment: Attachment) -> None:
        await attachment.update([])
        netns.tc(here, "qdisc", "del", "dev", "eth0", "clsact")
        assert await attached("eth0") == set()
        assert await update(attachment) == (("eth0",), "")
        assert await attached("eth0") == {"eth0"}

    run("eth0", test)


def test_what_a_crashed_run_left_on_another_interface_is_swept_away(here: str) -> None:
    async def crashed(attachment: Attachment) -> None:
        await attachment.update([])

    async def test(attachment: Attachment) -> None:
        await attachment.update([])
        assert await attached("eth0", "eth1") == {"eth0"}

    run("eth1", crashed)
    assert _attached(("eth0", "eth1")) == {"eth1"}
    run("eth0", test)


def test_one_interface_that_refuses_does_not_keep_the_others_from_being_attached(here: str) -> None:
    netns.tc(here, "qdisc", "add", "dev", "eth1", "ingress")
    netns.ip("-n", here, "route", "add", "10.9.0.77/32", "dev", "eth1")

    async def test(attachment: Attachment) -> None:
        place = await attachment.update(["10.9.0.2", "10.9.0.77"])
        assert place.interfaces == ("eth0",)
        assert "eth1 has a plain ingress qdisc" in place.problem

    run("auto", test)


@pytest.mark.parametrize(
    ("hosts", "said"),
    [([], "no peer is known yet"), (["192.0.2.1"], "no peer has a route")],
)
def test_without_a_route_it_says_what_is_missing(here: str, hosts: list[str], said: str) -> None:
    async def test(attachment: Attachment) -> None:
        place = await attachment.update(hosts)
        assert place.interfaces == ()
        assert said in place.problem

    run("auto", test)


def test_updates_at_the_same_time_take_turns(here: str) -> None:
    async def test(attachment: Attachment) -> None:
        places = await asyncio.gather(*(update(attachment) for _ in range(5)))
        assert places == [(("eth0",), "")] * 5

    run("eth0", test)
