"""What all clients together may cost this node.

They act when a request or a connection comes in, at this node alone; what is in the log is applied
by all nodes whatever it costs. `protocol` has the limits of one connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Protocol

from raft_agent.api.protocol import Error, ErrorCode
from raft_agent.platform import open_files_limit

MAX_CONNECTIONS = 8192
# Over the limit connections are still answered, so that people read why; not so many at once.
MAX_REFUSED_CONNECTIONS = 128
MAX_IN_FLIGHT_IN_ALL = 1 << 18
MAX_STREAMS_IN_ALL = 1 << 16
MAX_UNREAD_IN_ALL_BYTES = 256 << 20
MAX_HALF_FRAMES_BYTES = 256 << 20
# How long a frame may take to arrive, and how long a refused client has to ask for something.
HALF_FRAME_S = 30.0
REFUSED_S = 5.0

# Lines of the log about clients that misbehave.
MAX_LINES = 20
LINES_INTERVAL_S = 10.0

# Files that the agent needs besides clients: the log, snapshots, peers, HTTP.
_OTHER_FILES = 512
_CENSUS_INTERVAL_S = 1.0

_log = logging.getLogger("raft.api")


class Client(Protocol):
    """What is counted of one connection: requests that wait for an answer, streams, bytes that it
    has not read yet, bytes of a frame that is not there in full."""

    unsent_bytes: int

    def in_flight(self) -> int: ...

    def stream_count(self) -> int: ...

    def half_frame_bytes(self) -> int: ...

    def drop(self, reason: str) -> None: ...


class Crowd:
    """All clients of this node, and whether one more request, stream or connection fits in.

    Counting all of them takes a millisecond with a thousand, so it is done once a second, and when
    what has come in since could have reached a limit.
    """

    def __init__(self, clients: Iterable[Client]) -> None:
        """`clients`: those that are connected, as they are at any time."""
        self._clients = clients
        self._in_flight = 0
        self._streams = 0
        # Since they were counted last: those that have ended meanwhile are among them.
        self._more_requests = 0
        self._more_streams = 0
        self._timer: asyncio.TimerHandle | None = None
        self._lines = self._left_out = 0
        self._new_lines_at = 0.0
        self.max_connections = min(MAX_CONNECTIONS, _files_for_clients())

    def watch(self) -> None:
        """Count once a second from now on, while there are clients."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_CENSUS_INTERVAL_S, self._count_again)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def too_many_requests(self, count: int) -> Error | None:
        """Why `count` more requests are not served now."""
        self._more_requests += count
        if self._in_flight + self._more_requests > MAX_IN_FLIGHT_IN_ALL:
            self._count()
            if self._in_flight + count > MAX_IN_FLIGHT_IN_ALL:
                return _busy(f"{self._in_flight} requests of all clients wait for an answer")
            self._more_requests = count
        return None

    def too_many_streams(self) -> Error | None:
        """Why one more stream can't be had now."""
        self._more_streams += 1
        if self._streams + self._more_streams > MAX_STREAMS_IN_ALL:
            self._count()
            if self._streams >= MAX_STREAMS_IN_ALL:
                return _busy(f"This node's clients have {self._streams} streams already")
            self._more_streams = 1
        return None

    def too_many_connections(self, count: int) -> Error | None:
        """Why a client is not served, when it is one of `count`."""
        if count <= self.max_connections:
            return None
        return _busy(f"{self.max_connections} clients are connected to this node already")

    def complain(self, text: str) -> None:
        """One line about a client, unless there were MAX_LINES of them lately."""
        now = time.monotonic()
        if now >= self._new_lines_at:
            self._new_lines_at = now + LINES_INTERVAL_S
            self._lines = 0
            if self._left_out:
                text += f" (and {self._left_out} more lines about clients were left out)"
            self._left_out = 0
        self._lines += 1
        if self._lines > MAX_LINES:
            self._left_out += 1
        else:
            _log.warning("%s", text)

    def _count(self) -> None:
        self._in_flight = sum(client.in_flight() for client in self._clients)
        self._streams = sum(client.stream_count() for client in self._clients)
        self._more_requests = self._more_streams = 0

    def _count_again(self) -> None:
        self._timer = None
        self._count()
        clients = list(self._clients)
        if clients:
            self.watch()
        _drop_largest(
            [(client.unsent_bytes, client) for client in clients],
            MAX_UNREAD_IN_ALL_BYTES,
            "bytes of all clients together wait to be read, and this one's are the most",
        )
        _drop_largest(
            [(client.half_frame_bytes(), client) for client in clients],
            MAX_HALF_FRAMES_BYTES,
            "bytes of unfinished frames have come from all clients, and this one's are the most",
        )


def _drop_largest(sizes: list[tuple[int, Client]], limit_bytes: int, why: str) -> None:
    total = sum(size for size, _ in sizes)
    if total <= limit_bytes:
        return
    for size, client in sorted(sizes, key=lambda item: item[0], reverse=True):
        client.drop(f"{total} {why}: {size}")
        total -= size
        if total <= limit_bytes:
            return


def _busy(what: str) -> Error:
    return Error(what, ErrorCode.BUSY, "Try again later, or at another node.")


def _files_for_clients() -> int:
    files = open_files_limit()
    return max(files - _OTHER_FILES, files // 2)
