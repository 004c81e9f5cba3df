"""Several agents for one client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from raft_agent.api.server import ApiServer
from tests.unit.api.single_node import SingleNode


class Nodes:
    """node-01 … of which the first leads. They share nothing: tests see who served what."""

    def __init__(self, directory: Path, count: int) -> None:
        self.hosts = [SingleNode(f"node-{number:02}") for number in range(1, count + 1)]
        self.paths = {host.node_name: directory / host.node_name for host in self.hosts}
        self.servers: dict[str, ApiServer] = {}
        self.lead("node-01")

    def lead(self, name: str | None) -> None:
        for host in self.hosts:
            host.leader = name

    async def start(self, host: SingleNode) -> None:
        server = ApiServer(host, socket_path=self.paths[host.node_name], group=None)
        await server.start()
        self.servers[host.node_name] = server

    async def stop(self, host: SingleNode) -> None:
        await self.servers.pop(host.node_name).close()


@contextlib.asynccontextmanager
async def nodes(directory: Path, count: int) -> AsyncIterator[Nodes]:
    group = Nodes(directory, count)
    try:
        for host in group.hosts:
            await group.start(host)
        yield group
    finally:
        for server in group.servers.values():
            await server.close()
