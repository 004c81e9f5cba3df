"""The share of clients in a turn of the event loop: bounded, so that peers and timers get theirs.

A turn reads from every socket that has something. With thousands of clients that send one request
each, all of it takes longer than an election timeout: the leader's heartbeats would leave too late.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

# Less than half of the usual heartbeat interval, and long enough for a thousand requests, which are
# cheaper in one batch.
SHARE_S = 0.02
# No more is read from whoever sends while so much waits to be served.
LATE_BYTES = 16 << 20


class Served(Protocol):
    """A client's connection."""

    def serve(self, data: bytes) -> None:
        """Do what `data` asks, the next bytes of the client; b"" is their end."""

    def hold(self) -> None:
        """Read nothing more from the client until it has been served."""

    def flush(self) -> None:
        """Write what is queued."""


class Turn:
    """Serves clients in the order in which they come, and writes their answers with one callback of
    the loop for all of them. What does not fit into a turn goes into the next, after the loop has
    looked at its timers and sockets. `clock`: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._serves_until = 0.0
        self._has_begun = False
        self._late: deque[tuple[Served, bytes]] = deque()
        self._late_bytes = 0
        self._unwritten: deque[Served] = deque()
        self._writes = False

    def serve(self, connection: Served, data: bytes) -> None:
        """Have `connection` serve `data`, now or after what came before it."""
        if not self._has_begun:
            self._has_begun = True
            self._serves_until = self._clock() + SHARE_S
            asyncio.get_running_loop().call_soon(self._end)
        if self._late or self._clock() >= self._serves_until:
            self._late.append((connection, data))
            self._late_bytes += len(data)
            if self._late_bytes > LATE_BYTES:
                connection.hold()
        else:
            connection.serve(data)

    def write(self, connection: Served) -> None:
        """Have `connection` flush at the end of this turn."""
        self._unwritten.append(connection)
        self._write_soon()

    def _end(self) -> None:
        if self._late:
            # What was asked in this turn is proposed and answered before more is served.
            asyncio.get_running_loop().call_soon(self._serve_late)
        else:
            self._has_begun = False

    def _serve_late(self) -> None:
        late = self._late
        until = self._clock() + SHARE_S
        while late:
            connection, data = late.popleft()
            self._late_bytes -= len(data)
            _guarded(connection.serve, data)
            if self._clock() >= until:
                break
        self._serves_until = until
        asyncio.get_running_loop().call_soon(self._end)

    def _write_soon(self) -> None:
        if not self._writes:
            self._writes = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._writes = False
        unwritten = self._unwritten
        until = self._clock() + SHARE_S
        for _ in range(len(unwritten)):
            _guarded(unwritten.popleft().flush)
            if self._clock() >= until:
                break
        if unwritten:
            self._write_soon()


def _guarded(act: Callable[..., None], *arguments: object) -> None:
    """As if each had a callback of its own: the others get their answers all the same."""
    try:
        act(*arguments)
    except Exception as error:
        context = {"message": "serving a client failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
