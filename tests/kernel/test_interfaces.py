"""Which interfaces the routes to the peers use, and hearing of it when they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop
from pyroute2 import IPRoute

from raft_agent.kernel import interfaces
from raft_agent.kernel.interfaces import Interface, LinkMonitor
from tests.kernel import netns


@pytest.fixture
def here() -> Iterator[str]:
    """A namespace with eth0 at 10.9.0.1 and fd09::1; the test runs inside."""
    with netns.namespaces("a", "b") as (here, there):
        netns.connect(here, there, "10.9.0.1/24", "10.9.0.2/24")
        netns.ip("-n", here, "addr", "add", "fd09::1/64", "dev", "eth0", "nodad")
        with netns.inside(here):
            yield here


def _names(*hosts: str) -> list[str]:
    with IPRoute() as ipr:
        return [one.name for one in interfaces.on_routes(ipr, hosts)]


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        (["10.9.0.2"], ["eth0"]),
        (["10.9.0.2", "10.9.0.3", "fd09::2"], ["eth0"]),
        (["10.9.0.1"], ["lo"]),  # this machine's own address never leaves it
        (["127.0.0.1", "10.9.0.2"], ["eth0", "lo"]),
        (["192.0.2.1"], []),
        ([], []),
    ],
)
def test_the_routes_to_the_peers_name_the_interfaces(
    here: str, hosts: list[str], names: list[str]
) -> None:
    assert _names(*hosts) == names


def test_a_more_specific_route_moves_a_peer_to_another_interface(here: str) -> None:
    netns.ip("-n", here, "link", "add", "eth1", "type", "veth", "peer", "name", "far1")
    netns.ip("-n", here, "link", "set", "eth1", "up")
    assert _names("10.9.0.2", "10.9.0.77") == ["eth0"]
    netns.ip("-n", here, "route", "add", "10.9.0.77/32", "dev", "eth1")
    assert _names("10.9.0.2", "10.9.0.77") == ["eth0", "eth1"]


def test_an_interface_is_found_by_name_while_it_exists(here: str) -> None:
    with IPRoute() as ipr:
        index = netns.index_of(here, "eth0")
        assert interfaces.by_name(ipr, "eth0") == Interface("eth0", index)
        netns.ip("-n", here, "link", "delete", "eth0")
        assert interfaces.by_name(ipr, "eth0") is None


def _add_link(here: str) -> None:
    netns.ip("-n", here, "link", "add", "eth9", "type", "veth", "peer", "name", "far9")


def _move_address(here: str) -> None:
    netns.ip("-n", here, "addr", "add", "10.9.0.9/24", "dev", "eth0")


def _add_route(here: str) -> None:
    netns.ip("-n", here, "route", "add", "192.0.2.0/24", "via", "10.9.0.2")


def _remove_filters(here: str) -> None:
    netns.tc(here, "qdisc", "add", "dev", "eth0", "clsact")


@pytest.mark.parametrize("change", [_add_link, _move_address, _add_route, _remove_filters])
def test_every_kind_of_change_is_heard_of(here: str, change: Callable[[str], None]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        monitor = LinkMonitor(loop, heard.set)
        try:
            await loop.run_in_executor(None, change, here)
            await asyncio.wait_for(heard.wait(), 10)
        finally:
            monitor.close()

    uvloop.run(run())
