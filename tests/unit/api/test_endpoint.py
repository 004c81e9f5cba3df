"""Where an agent on another machine is, as people write it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from raft_agent.api.client import AgentNotReachable, Client, Endpoint, SyncClient
from raft_agent.tls.errors import TlsError
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Role
from tests.e2e.agents import free_ports
from tests.unit.api.single_node import SingleNode, run, serving
from tests.unit.tls.papers import Office, client, node


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return Office(tmp_path).issue(client("alice", Role.READER))


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("192.0.2.7:5555", "192.0.2.7", 5555),
        ("[2001:db8::1]:5555", "2001:db8::1", 5555),
        ("raft.example:1", "raft.example", 1),
    ],
)
def test_an_address_is_a_host_and_a_port(
    files: TlsFiles, address: str, host: str, port: int
) -> None:
    endpoint = Endpoint(address, files)
    assert (endpoint.host, endpoint.port, str(endpoint)) == (host, port, address)


@pytest.mark.parametrize("address", ["", "host", ":5555", "host:", "host:raft", "host:70000"])
def test_anything_else_is_refused(files: TlsFiles, address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Endpoint(address, files)


def test_a_nodes_certificate_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match="a client's is needed"):
        Endpoint("192.0.2.7:5555", Office(tmp_path).issue(node("node-01")))


def test_nobody_there_is_said_with_the_address(files: TlsFiles) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(AgentNotReachable, match=f"{address}: Connection refused"):
        SyncClient(Endpoint(address, files))


def test_an_endpoint_can_be_the_only_agent_of_a_client(files: TlsFiles) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as agent:
            agent.setblocking(False)
            endpoint = Endpoint(f"127.0.0.1:{agent.getsockname()[1]}", files)
            async with Client(endpoint) as client:
                asking = asyncio.create_task(client.get("k"))
                dialled, _ = await asyncio.get_running_loop().sock_accept(agent)
                dialled.close()
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking

    run(main())


def test_an_agent_that_stands_still_uses_up_no_more_than_its_share_of_the_time(
    tmp_path: Path, files: TlsFiles
) -> None:
    async def main() -> None:
        # Its system takes connections in, and nobody says anything on them.
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent_one = Endpoint(f"127.0.0.1:{silent.getsockname()[1]}", files)
            agents = [silent_one, tmp_path / "s"]
            async with serving(SingleNode(), tmp_path / "s"), Client(agents, timeout_s=9) as client:
                assert (await client.put("k", b"v")).revision == 1
                assert await client.get("k") is not None

    run(main())


def test_a_client_gets_past_more_agents_that_stand_still_than_one_request_has_time_for(
    tmp_path: Path, files: TlsFiles
) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent_one = Endpoint(f"127.0.0.1:{silent.getsockname()[1]}", files)
            agents = [*[silent_one] * 5, tmp_path / "s"]
            async with serving(SingleNode(), tmp_path / "s"), Client(agents, timeout_s=1) as client:
                with pytest.raises(AgentNotReachable, match="no answer in time"):
                    await client.get("k")
                # Each request gets past three of them at most.
                for _ in range(len(agents)):
                    with contextlib.suppress(AgentNotReachable):
                        assert await client.get("k") is None
                        return
                pytest.fail("it never came to the one that answers")

    run(main())
