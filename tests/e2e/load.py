"""A load of many clients against real agents, that remembers every acknowledgement."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

import msgspec
import uvloop

from raft_agent import wire
from raft_agent.api import protocol

_REPLY_TYPES = frozenset({int(wire.FrameType.CLIENT_REPLY)})


class Ack(msgspec.Struct, frozen=True):
    """One acknowledged put: `at_s` is the wall clock (seconds since 1970) when the reply came."""

    key: str
    value: bytes
    index: int
    revision: int
    at_s: float


class _Client(asyncio.Protocol):
    """One connection, one put outstanding: the next one goes out when the reply is there."""

    def __init__(self, name: str, acks: list[Ack]) -> None:
        self._name = name
        self._acks = acks
        self._reader = wire.FrameReader(_REPLY_TYPES)
        self._number = 0
        self._put: protocol.Put | None = None
        self._transport: asyncio.Transport | None = None
        self.closed = asyncio.get_running_loop().create_future()
        self.done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def _next(self) -> None:
        if self.done or self._transport is None:
            return
        self._number += 1
        key = f"{self._name}-{self._number}"
        self._put = protocol.Put(self._number, key, f"value of {key}".encode())
        body = protocol.ENCODER.encode([self._put])
        self._transport.write(wire.encode(wire.FrameType.CLIENT_REQUEST, body, count=1))

    def close(self) -> None:
        self.done = True
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            for reply in protocol.REPLIES_DECODER.decode(frame.body):
                if reply.error is None and self._put is not None:
                    result = msgspec.msgpack.decode(reply.result, type=protocol.WriteResult)
                    self._acks.append(
                        Ack(
                            self._put.key,
                            self._put.value,
                            result.index,
                            result.revision,
                            time.time(),
                        )
                    )
                    self._next()
                elif self._transport is not None:
                    self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)


class Load:
    """Puts by `clients` connections to one agent; `acks` grows as they are acknowledged.

    Runs until `enough` are acknowledged, then `when_enough` is called while the load still runs.
    """

    def __init__(self, socket_path: str, clients: int, prefix: str) -> None:
        self._socket_path = socket_path
        self._clients = clients
        self._prefix = prefix
        self.acks: list[Ack] = []

    def run_until(self, enough: int, when_enough: Callable[[], None]) -> None:
        async def run() -> None:
            loop = asyncio.get_running_loop()
            running = []
            for number in range(self._clients):
                _, client = await loop.create_unix_connection(
                    lambda n=number: _Client(f"{self._prefix}-{n}", self.acks), self._socket_path
                )
                running.append(client)
            while len(self.acks) < enough and not any(c.closed.done() for c in running):
                await asyncio.sleep(0.002)
            await loop.run_in_executor(None, when_enough)
            for client in running:
                client.close()
            await asyncio.wait([client.closed for client in running], timeout=5)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
