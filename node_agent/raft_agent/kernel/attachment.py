"""The program on the interfaces that it should be on, as these come, go and change."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from raft_agent.kernel import interfaces, tc
from raft_agent.kernel.interfaces import AUTO, Interface
from raft_agent.kernel.tc import AttachError, Programs

if TYPE_CHECKING:
    from pyroute2 import IPRoute


class Place(msgspec.Struct, frozen=True):
    """Where the program is. `problem`: what is not as it should be, for people; else empty.
    `in_front`: who sees the packets before it, by interface name. `local_addresses`: this
    machine's own IP addresses.
    """

    interfaces: tuple[str, ...] = ()
    problem: str = ""
    in_front: dict[str, list[str]] = {}
    local_addresses: tuple[str, ...] = ()


class Attachment:
    """Keeps the programs of the agent of `port` on `wanted`, an interface's name or "auto".

    Netlink blocks, so it is used in a thread, one call at a time.
    """

    def __init__(self, wanted: str, port: int, programs: Programs) -> None:
        self._wanted = wanted
        self._port = port
        self._programs = programs
        self._attached: set[Interface] = set()
        self._swept = False
        # Of threads and not of tasks: one that is cancelled leaves its thread running.
        self._turn = threading.Lock()

    async def update(self, hosts: Iterable[str]) -> Place:
        """Attach where it is missing, and detach where it is not wanted any more. `hosts`: the IP
        addresses of the peers."""
        return await asyncio.to_thread(self._update, frozenset(hosts))

    async def remove(self) -> None:
        """Detach everywhere. Raises AttachError."""
        await asyncio.to_thread(self._remove)

    def _update(self, hosts: frozenset[str]) -> Place:
        # It takes a good part of a second to import, which this thread can wait for.
        from pyroute2 import IPRoute  # noqa: PLC0415

        with self._turn, IPRoute() as ipr:
            wanted = self._find(ipr, hosts)
            problems = [] if wanted else [self._why_none(hosts)]
            self._leave(ipr, wanted)
            for interface in wanted:
                try:
                    self._ensure(ipr, interface)
                except AttachError as error:
                    problems.append(str(error))
            in_front = {one.name: tc.in_front(ipr, one.index) for one in sorted(self._attached)}
            own = {str(found.get("address")) for found in ipr.get_addr()}
        return Place(
            tuple(one.name for one in sorted(self._attached)),
            "; ".join(problems),
            {name: who for name, who in in_front.items() if who},
            tuple(sorted(own)),
        )

    def _find(self, ipr: IPRoute, hosts: frozenset[str]) -> list[Interface]:
        if self._wanted == AUTO:
            return interfaces.on_routes(ipr, hosts)
        found = interfaces.by_name(ipr, self._wanted)
        return [found] if found is not None else []

    def _why_none(self, hosts: frozenset[str]) -> str:
        if self._wanted != AUTO:
            return (
                f'there is no interface "{self._wanted}" at the moment (see ip link); '
                'ebpf.interface = "auto" takes those that the routes to the peers use'
            )
        if hosts:
            return "no peer has a route, so it is not known which interface to use (see ip route)"
        return "no peer is known yet, so no route says which interface to use"

    def _ensure(self, ipr: IPRoute, interface: Interface) -> None:
        # What a former run left is of another program: the first time it is replaced.
        if interface in self._attached and tc.is_attached(ipr, interface.index, self._port):
            return
        self._attached.discard(interface)
        tc.attach(ipr, interface.index, interface.name, self._port, self._programs)
        self._attached.add(interface)

    def _leave(self, ipr: IPRoute, wanted: list[Interface]) -> None:
        """Detach where it is not wanted; the first time from whatever interface a former run may
        have left a filter on."""
        if not self._swept:
            self._swept = True
            for link in ipr.get_links():
                self._attached.add(Interface(link.get("ifname"), link["index"]))
            stays: set[Interface] = set()
        else:
            stays = self._attached.intersection(wanted)
        for interface in self._attached - set(wanted):
            tc.detach(ipr, interface.index, self._port)
        self._attached = stays

    def _remove(self) -> None:
        from pyroute2 import IPRoute  # noqa: PLC0415

        with self._turn, IPRoute() as ipr:
            self._leave(ipr, [])
