"""What waking up for heartbeats costs a program that does nothing else:
`python -m benchmarks.heartbeats [SECONDS]`.

Three processes on uvloop: every 50 ms one sends as many bytes as a heartbeat has to both others,
who send them back. No agent can be idle for less on this machine.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import sys
import time
from multiprocessing.connection import Connection

import uvloop

_INTERVAL_S = 0.05
_FRAME = bytes(80)


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)  # type: ignore[attr-defined]


def _follow(listener: socket.socket, seconds: float, result: Connection) -> None:
    async def serve() -> None:
        await asyncio.get_running_loop().create_server(_Echo, sock=listener)
        await asyncio.sleep(seconds)

    began = time.process_time()
    uvloop.run(serve())
    result.send((time.process_time() - began) / seconds * 100)


async def _lead(addresses: list[tuple[str, int]], seconds: float) -> float:
    loop = asyncio.get_running_loop()
    dialled = [await loop.create_connection(asyncio.Protocol, *address) for address in addresses]
    began = time.process_time()
    ends = loop.time() + seconds
    while loop.time() < ends:
        for transport, _ in dialled:
            transport.write(_FRAME)
        await asyncio.sleep(_INTERVAL_S)
    return (time.process_time() - began) / seconds * 100


def measure(seconds: float) -> tuple[float, list[float]]:
    """Percent of a processor: of the sender, and of each of the two others."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    context = multiprocessing.get_context("fork")
    results = []
    for listener in listeners:
        mine, theirs = context.Pipe(duplex=False)
        context.Process(target=_follow, args=(listener, seconds + 1, theirs), daemon=True).start()
        results.append(mine)
    addresses = [listener.getsockname() for listener in listeners]
    return uvloop.run(_lead(addresses, seconds)), [result.recv() for result in results]


if __name__ == "__main__":
    sender, others = measure(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
    print(f"who sends: {sender:.2f} %; the others: " + ", ".join(f"{one:.2f} %" for one in others))
