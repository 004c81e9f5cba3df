"""The listener: which address, which paths, and how a connection ends."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import PurePosixPath

from aiohttp import web

from raft_agent.config.values import split_address
from raft_agent.http.complaints import complaints
from raft_agent.http.exposition import Exposition
from raft_agent.http.feed import Feed
from raft_agent.http.limits import MAX_STREAMS, Gate, Handler, only_get, set_headers
from raft_agent.http.names import is_loopback, only_own_names
from raft_agent.http.source import Source

_log = logging.getLogger("raft.http")

_BACKLOG = 64
_KEEPALIVE_S = 30.0
_CLOSE_TIMEOUT_S = 0.5
# A reader that takes nothing for so long is gone; the system's buffers hold minutes of messages.
_WRITE_TIMEOUT_S = 10.0

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


class HttpServer:
    """Serves `source` at `address`, "host:port"."""

    def __init__(self, source: Source, address: str) -> None:
        self._source = source
        self._address = address
        self._exposition = Exposition(source.reading)
        self._feed = Feed(source)
        self._runner: web.AppRunner | None = None
        self._gate: Gate | None = None
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that is listened on (after `start`)."""
        if self._server is None:
            raise RuntimeError("the HTTP server was not started")
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises OSError that says which address can't be listened on and why."""
        loop = asyncio.get_running_loop()
        await self.prepare()
        host, port = split_address(self._address)
        try:
            self._server = await loop.create_server(self.connect, host, port, backlog=_BACKLOG)
        except OSError as error:
            raise OSError(error.errno, _why_not(error, self._address)) from error
        self._feed.start()
        _log.info("metrics and the status page are at http://%s/", self._address)

    async def prepare(self) -> None:
        """All that `start` does but listen and tell those who read the stream."""
        self._runner = web.AppRunner(
            self._app(),
            handle_signals=False,
            access_log=None,
            logger=complaints(_log, time.monotonic),
            keepalive_timeout=_KEEPALIVE_S,
            shutdown_timeout=_CLOSE_TIMEOUT_S,
        )
        await self._runner.setup()
        if self._runner.server is None:
            raise RuntimeError("aiohttp made no server")
        self._gate = Gate(self._runner.server, asyncio.get_running_loop())

    def connect(self) -> asyncio.BaseProtocol:
        """What serves one connection (after `prepare`)."""
        if self._gate is None:
            raise RuntimeError("the HTTP server was not prepared")
        return self._gate.connect()

    async def close(self) -> None:
        """Stop listening, end the streams, and close."""
        if self._server is not None:
            self._server.close()
            await self._feed.close()
        if self._gate is not None:
            self._gate.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _app(self) -> web.Application:
        middlewares = [self._hear, only_get]
        if is_loopback(split_address(self._address)[0]):
            middlewares.insert(1, only_own_names)
        app = web.Application(middlewares=middlewares)
        app.on_response_prepare.append(set_headers)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/stream", self._stream, allow_head=False)
        for name, body, kind in _page_files():
            path = "/" if name == "index.html" else f"/{name}"
            app.router.add_get(path, _static(body, kind))
        return app

    @web.middleware
    async def _hear(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        gate = self._gate
        if gate is None:
            return await handler(request)
        gate.heard(request)
        try:
            return await handler(request)
        finally:
            gate.served(request)

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._exposition.page(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, _request: web.Request) -> web.Response:
        """Whoever gets the answer knows that the event loop goes round."""
        return web.Response(text="alive\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        reason = self._source.not_ready()
        if reason:
            return web.Response(status=503, text=f"not ready: {reason}\n")
        return web.Response(text="ready\n")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self._feed.reader_count >= MAX_STREAMS:
            raise web.HTTPServiceUnavailable(
                text=f"{MAX_STREAMS} pages are open already; close one of them\n"
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        # Before anything else is awaited, so that the place is taken.
        reader = await self._feed.open()
        try:
            await response.prepare(request)
            while (message := await reader.messages.get()) is not None:
                async with asyncio.timeout(_WRITE_TIMEOUT_S):
                    await response.write(message)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._feed.forget(reader)
        return response


def _page_files() -> Iterator[tuple[str, bytes, str]]:
    """(name, content, content type) of all that the page is made of."""
    for file in files("raft_agent.http").joinpath("page").iterdir():
        kind = _TYPES.get(PurePosixPath(file.name).suffix)
        if kind is not None:
            yield file.name, file.read_bytes(), kind


def _static(body: bytes, content_type: str) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    return answer


def _why_not(error: OSError, address: str) -> str:
    if error.errno == errno.EADDRINUSE:
        why = "address already in use; end the program that listens there, or set server.http_addr"
    elif error.errno == errno.EADDRNOTAVAIL:
        why = "this machine has no such address; set server.http_addr to one that it has"
    else:
        why = error.strerror or str(error)
    return f"can't serve HTTP on {address}: {why}"
