"""What a stranger may cost: only GET, few connections, and none that says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import hdrs, web

MAX_CONNECTIONS = 64
MAX_STREAMS = 16
_FIRST_REQUEST_S = 10.0
# From so many on it is looked for those who have gone without a request.
_MAX_SILENT = 2 * MAX_CONNECTIONS
_SETTLE_S = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HEADERS = {
    # Everything that the page needs comes from the agent; nobody puts the page into a frame.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
    "Server": "raft-agent",
}

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\nContent-Length: 38\r\n\r\ntoo many connections; try again later\n"
)


@web.middleware
async def only_get(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Nothing can be changed here, so nothing but GET and HEAD is answered."""
    if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
        raise web.HTTPMethodNotAllowed(
            request.method,
            (hdrs.METH_GET, hdrs.METH_HEAD),
            text=f"{request.method} is refused: everything here can only be read\n",
        )
    return await handler(request)


async def set_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """A signal of aiohttp: whatever is answered, errors too."""
    response.headers.update(_HEADERS)


class Gate:
    """Makes the protocol of each connection that comes in. `heard`: call it with every request, and
    `served` once it has been.

    When there are too many the connection goes from which a request has been awaited for longest,
    so that whoever holds all of them keeps no probe of the agent's health out.
    """

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._silent: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        # From whom a request is awaited, and since when; the longest first.
        self._awaited: dict[web.RequestHandler, float] = {}

    def connect(self) -> asyncio.BaseProtocol:
        if len(self._silent) > _MAX_SILENT or len(self._awaited) > _MAX_SILENT:
            self._forget_gone()
        if len(self._server.connections) >= MAX_CONNECTIONS and not self._make_room():
            return _Refusal()
        protocol = self._server()
        self._awaited[protocol] = self._loop.time()
        # aiohttp waits for ever for the first request.
        self._silent[protocol] = self._loop.call_later(_FIRST_REQUEST_S, self._give_up, protocol)
        return protocol

    def heard(self, request: web.Request) -> None:
        self._awaited.pop(request.protocol, None)
        self._stop_waiting(request.protocol)

    def served(self, request: web.Request) -> None:
        self._awaited[request.protocol] = self._loop.time()

    def close(self) -> None:
        for timer in self._silent.values():
            timer.cancel()
        self._silent.clear()
        self._awaited.clear()

    def _stop_waiting(self, protocol: web.RequestHandler) -> None:
        timer = self._silent.pop(protocol, None)
        if timer is not None:
            timer.cancel()

    def _make_room(self) -> bool:
        """Close one connection; False when all of them are being served."""
        connected = (found for found in self._awaited if found.transport is not None)
        oldest = next(connected, None)
        if oldest is None:
            return False
        del self._awaited[oldest]
        self._stop_waiting(oldest)
        oldest.force_close()
        return True

    def _forget_gone(self) -> None:
        """Who comes and goes a thousand times a second must not be remembered for ten seconds."""
        # The newest are not connected yet.
        settled = self._loop.time() + _FIRST_REQUEST_S - _SETTLE_S
        for protocol, timer in list(self._silent.items()):
            if protocol.transport is None and timer.when() < settled:
                timer.cancel()
                del self._silent[protocol]
        settled = self._loop.time() - _SETTLE_S
        for protocol, since in list(self._awaited.items()):
            if protocol.transport is None and since < settled:
                del self._awaited[protocol]

    def _give_up(self, protocol: web.RequestHandler) -> None:
        self._silent.pop(protocol, None)
        protocol.force_close()


class _Refusal(asyncio.Protocol):
    """Says that there are too many connections, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        stream.write(_FULL)
        stream.close()
