"""From hosts, which may be names, to IP addresses."""

from __future__ import annotations

import asyncio
import socket

import pytest

from raft_agent.kernel.interfaces import Hosts


def test_names_and_literals_become_addresses_and_unknown_names_none() -> None:
    async def run() -> None:
        hosts = Hosts()
        await hosts.resolve(["127.0.0.1", "::1", "no-such-host.invalid"])
        assert hosts.addresses == {"127.0.0.1", "::1"}
        await hosts.resolve(["127.0.0.1"])
        assert hosts.addresses == {"127.0.0.1"}

    asyncio.run(run())


def test_a_name_server_that_is_away_takes_nobody_off_the_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or the firewall would lock members out."""

    async def run() -> None:
        hosts = Hosts()
        await hosts.resolve(["localhost"])
        before = hosts.addresses
        assert before

        async def fail(*_: object, **__: object) -> object:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
        await hosts.resolve(["localhost"])
        assert hosts.addresses == before

    asyncio.run(run())
