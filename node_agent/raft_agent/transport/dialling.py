"""Dialling a peer once: whom, for how long, and in words why it failed."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from typing import TypeVar

import msgspec

from raft_agent.transport.address import parse_address
from raft_agent.transport.connection import Connection, Local

logger = logging.getLogger("raft.transport")

CONNECT_TIMEOUT_S = 1.0

_Connection = TypeVar("_Connection", bound=Connection)


class PeerTarget(msgspec.Struct, frozen=True):
    """Whom to dial. `address`: "host:port" or "[v6]:port", resolved at each dial. `member_id` 0 and
    `name` "": not known yet, the handshake tells them.
    """

    name: str
    address: str
    member_id: int

    def __str__(self) -> str:
        """For people: the name and where it should be, or only where."""
        return f"{self.name!r} at {self.address}" if self.name else self.address


class FailureLog:
    """Failures to connect, for the log: each kind once, until a connection stands again."""

    def __init__(self) -> None:
        self._told = ""

    def failed(self, text: str) -> None:
        """Say `text`, quieter when it is what was said last."""
        logger.log(logging.DEBUG if text == self._told else logging.INFO, "%s", text)
        self._told = text

    def stands(self) -> None:
        """A connection stands: the next failure is news."""
        self._told = ""


async def dial(
    local: Local,
    address: str,
    name: str,
    make: Callable[[], _Connection],
    timeout_s: float = CONNECT_TIMEOUT_S,
) -> _Connection:
    """Connect to the node `name` ("": any) at `address`; `make` gives what drives the connection.

    Raises OSError when nobody is reached there and ValueError when it is no address.
    """
    host, port = parse_address(address)
    made: list[_Connection] = []

    def secured() -> asyncio.Protocol:
        made.append(make())
        return local.dialled(made[0], name)

    try:
        async with asyncio.timeout(timeout_s):
            await local.loop.create_connection(secured, host, port)
    except TimeoutError:
        raise TimeoutError(f"no answer from {address} within {timeout_s:g} s") from None
    return made[0]


def in_words(error: OSError | ValueError) -> str:
    """Without numbers and without the address, which stands beside it."""
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        known = error.errno in errno.errorcode  # those of name servers are other numbers
        text = os.strerror(error.errno) if known else error.strerror or text
    return text[:1].lower() + text[1:]
