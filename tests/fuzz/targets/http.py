"""Whatever reaches the HTTP port."""

from __future__ import annotations

import asyncio
import functools
import re
from typing import Any

from raft_agent.http.server import HttpServer
from tests.fuzz.target import Target
from tests.unit.http.sources import FakeSource

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
_TURNS = 12


class _Stream(asyncio.Transport):
    """Takes what is written, and says it is closed when it was closed."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


class _Harness:
    """One server, and one loop for all inputs. Nothing listens: inputs go to the protocol."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.broken: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.broken.append(context))
        self.server = self.loop.run_until_complete(self._start())

    async def _start(self) -> HttpServer:
        server = HttpServer(FakeSource(), "127.0.0.1:1")
        await server.prepare()
        return server

    async def serve(self, data: bytes) -> bytes:
        protocol = self.server.connect()
        stream = _Stream()
        protocol.connection_made(stream)
        middle = len(data) // 2
        for piece in (data[:middle], data[middle:]):
            protocol.data_received(piece)  # type: ignore[attr-defined]
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        protocol.connection_lost(None)
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        return stream.written


@functools.cache
def _harness() -> _Harness:
    return _Harness()


def ask(data: bytes) -> None:
    """Whatever comes is answered or not, but never with a fault of the agent's."""
    harness = _harness()
    written = harness.loop.run_until_complete(harness.serve(data))
    assert not harness.broken, harness.broken
    found = _STATUS.match(written)
    if found is not None:
        assert found[1] != b"500", written


def _requests() -> list[bytes]:
    paths = (b"/metrics", b"/healthz", b"/readyz", b"/stream", b"/", b"/page.css?x=1", b"/%2e%2e")
    found = [b"GET " + path + b" HTTP/1.1\r\nHost: ::1\r\n\r\n" for path in paths]
    return [
        *found,
        b"GET /metrics HTTP/1.1\r\nHost: ::1\r\nAccept: application/openmetrics-text;version=1.0.0;"
        b"q=0.5,*/*;q=0.1\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: ::1\r\nContent-Length: 5\r\n\r\nhello",
        b"HEAD / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: somewhere.example:80\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: ::1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: ::1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ]


TARGETS = (Target("http", ask, _requests, max_bytes=4096),)
