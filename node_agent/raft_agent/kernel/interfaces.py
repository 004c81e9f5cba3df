"""Which network interfaces the cluster's traffic uses, and when that may have changed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pyroute2 import IPRoute

AUTO = "auto"

# rtnetlink(7): RTMGRP_LINK, _TC, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
_GROUPS = 0x1 | 0x8 | 0x10 | 0x40 | 0x100 | 0x400
_READ_BYTES = 65_536
# Links come up with a burst of messages, and routing daemons never rest.
_SETTLE_S = 0.2


class Interface(msgspec.Struct, frozen=True, order=True):
    name: str
    index: int


def by_name(ipr: IPRoute, name: str) -> Interface | None:
    """The interface with that name; None when there is none at the moment."""
    found = ipr.link_lookup(ifname=name)
    return Interface(name, found[0]) if found else None


def on_routes(ipr: IPRoute, hosts: Iterable[str]) -> list[Interface]:
    """The interfaces that packets to these IP addresses leave by, each once, by name. An address
    of this machine is reached over `lo`; one without a route counts for none.
    """
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    indices: set[int] = set()
    for host in hosts:
        try:
            for route in ipr.route("get", dst=host):
                if route.get("oif"):
                    indices.add(route.get("oif"))
        except NetlinkError:  # ENETUNREACH and the like: until a route comes
            continue
    found = []
    for index in indices:
        with contextlib.suppress(NetlinkError):
            found += [Interface(link.get("ifname"), index) for link in ipr.get_links(index)]
    return sorted(found)


class Hosts:
    """The IP addresses of some hosts, which may be names."""

    def __init__(self) -> None:
        self._known: dict[str, frozenset[str]] = {}

    async def resolve(self, hosts: Iterable[str]) -> None:
        """From now on these hosts and no others. One whose name can't be resolved at the moment
        keeps the addresses that it had."""
        loop = asyncio.get_running_loop()
        known = {}
        for host in set(hosts):
            try:
                answers = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except OSError:
                known[host] = self._known.get(host, frozenset())
            else:
                addresses = (str(answer[4][0]).partition("%")[0] for answer in answers)
                known[host] = frozenset(addresses)
        self._known = known

    @property
    def addresses(self) -> frozenset[str]:
        """Those of all hosts together."""
        return frozenset().union(*self._known.values())


class LinkMonitor:
    """Calls `on_change` in the loop, a moment after links, addresses, routes or filters changed.

    What changed is not looked at: to look again is cheap, and a full socket loses messages.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]) -> None:
        self._loop = loop
        self._on_change = on_change
        self._timer: asyncio.TimerHandle | None = None
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _GROUPS))
        loop.add_reader(self._socket, self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # nothing more to read, or ENOBUFS: some were lost
            while self._socket.recv(_READ_BYTES):
                pass
        if self._timer is None:
            self._timer = self._loop.call_later(_SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._timer = None
        self._on_change()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
