"""A client made of nothing but frames, for what the real clients would never send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from raft_agent import wire
from tests.unit.api.single_node import SingleNode, run, serving

TYPES = frozenset({int(wire.FrameType.CLIENT_REPLY), int(wire.FrameType.CLIENT_PUSH)})
TIMEOUT_S = 20.0


def request_frame(requests: Any, *, as_json: bool = False) -> bytes:
    """Any value as the body of a request frame."""
    encode = msgspec.json.encode if as_json else msgspec.msgpack.encode
    flags = int(wire.Flag.JSON) if as_json else 0
    return wire.encode(wire.FrameType.CLIENT_REQUEST, encode(requests), flags=flags)


class RawClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = wire.FrameReader(TYPES)
        self._read: list[wire.Frame] = []

    def send(self, *requests: Any, as_json: bool = False) -> None:
        self.writer.write(request_frame(list(requests), as_json=as_json))

    async def frame(self) -> wire.Frame:
        """The next frame. Raises EOFError when the agent has closed."""
        async with asyncio.timeout(TIMEOUT_S):
            while not self._read:
                data = await self.reader.read(1 << 18)
                if not data:
                    raise EOFError
                self._read += self._frames.feed(data)
        return self._read.pop(0)

    async def items(self) -> list[Any]:
        """What the next frame holds: [id, error, result] each."""
        frame = await self.frame()
        decode = msgspec.json.decode if frame.flags & wire.Flag.JSON else msgspec.msgpack.decode
        items = decode(frame.body)
        assert isinstance(items, list)
        assert frame.count == len(items)
        return items

    async def ask(self, *requests: Any, as_json: bool = False) -> list[Any]:
        """The replies to `requests`, which may come in several frames, by id."""
        self.send(*requests, as_json=as_json)
        replies: list[Any] = []
        while len(replies) < len(requests):
            replies += await self.items()
        return sorted(replies)

    async def closed(self) -> bool:
        """Read until the agent closes."""
        try:
            while True:
                await self.frame()
        except (EOFError, ConnectionResetError):
            return True


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


Check = Callable[[RawClient, SingleNode], Awaitable[None]]


def with_node(tmp_path: Path, check: Check, node: SingleNode | None = None) -> None:
    """Run `check(client, node)` with a node that serves at `tmp_path / "s"`."""
    served = node or SingleNode()

    async def main() -> None:
        path = tmp_path / "s"
        async with serving(served, path), connected(path) as client:
            await check(client, served)

    run(main())
