"""The second connection to a peer: pieces of a snapshot go out, replies to them come back.

On the main connection heartbeats and votes would queue behind them. This one is made when there is
a piece to send, ends when nothing has gone over it for a while, and lives no longer than the main
connection, which alone says whether the peer is there.
"""

from __future__ import annotations

import asyncio
import logging

from raft_agent import wire
from raft_agent.transport.connection import Connection, Local, PeerStats
from raft_agent.transport.dialling import FailureLog, PeerTarget, dial
from raft_agent.transport.handshake import Outdated, Purpose, Refused, encode_hello, read_reply
from raft_agent.wire import FrameError, FrameType

logger = logging.getLogger("raft.transport")

# Longer than a peer's disk takes to make a large snapshot durable: the reply comes back here.
IDLE_S = 30.0

_FRAMES = frozenset({FrameType.SNAPSHOT_REPLY})


class BulkLink:
    """Makes the bulk connection to one peer when it is needed, and again after it was lost."""

    def __init__(self, local: Local, target: PeerTarget, stats: PeerStats) -> None:
        """`target` with its member id; `stats`: the numbers of this peer."""
        self.local = local
        self.target = target
        self.stats = stats
        self.connection: BulkConnection | None = None
        """The one that stands."""
        self._made: BulkConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_over = False
        self._failures = FailureLog()

    @property
    def queued_bytes(self) -> int:
        """What waits in this process to be sent."""
        return 0 if self.connection is None else self.connection.queued_bytes

    def send(self, frame: bytes) -> None:
        """Send one frame. Without a connection one is made and the frame sent once it stands; what
        comes meanwhile is dropped, as if the network had lost it.
        """
        if self.connection is not None:
            self.connection.send(frame, bulk=True)
        elif self._task is None and self._made is None and not self._is_over:
            self._task = self.local.loop.create_task(self._dial(frame))
        else:
            self.stats.dropped_frames += 1

    def abort(self) -> None:
        """Close at once and for good."""
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
        if self._made is not None:
            self._made.abort()

    def made(self, connection: BulkConnection) -> None:
        """A connection was made; the handshake follows."""
        self._made = connection
        if self._is_over:
            connection.abort()

    def stands(self, connection: BulkConnection) -> None:
        """The handshake is done."""
        self.connection = connection
        self._failures.stands()

    def lost(self, connection: BulkConnection) -> None:
        """The connection has ended."""
        if self._made is connection:
            self._made = self.connection = None

    async def _dial(self, first: bytes) -> None:
        try:
            target = self.target
            await dial(self.local, target.address, target.name, lambda: BulkConnection(self, first))
        except (OSError, ValueError) as error:
            self.stats.dropped_frames += 1
            to = f"no second connection, for a snapshot, to {self.target}"
            self._failures.failed(f"{to}: {error}")
        finally:
            self._task = None


class BulkConnection(Connection):
    def __init__(self, link: BulkLink, first: bytes) -> None:
        """`first`: the frame that is sent once the handshake is done."""
        super().__init__(link.local, FrameType.HELLO_REPLY)
        self._link = link
        self._first = first
        self._used_at = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._link.made(self)
        hello = self.local.hello(purpose=Purpose.BULK)
        super().send(encode_hello(FrameType.HELLO, hello), bulk=False)

    def data_received(self, data: bytes) -> None:
        self._used_at = self.local.loop.time()
        super().data_received(data)

    def send(self, *frame: bytes, bulk: bool) -> bool:
        self._used_at = self.local.loop.time()
        return super().send(*frame, bulk=bulk)

    def frame_received(self, frame: wire.Frame) -> None:
        if self._link.connection is not self:
            self._hello_received(frame)
        elif self.is_from_peer(frame):
            self.message_received(frame)

    def lost(self, exc: Exception | None) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        why = f": {exc}" if exc else ""
        logger.debug("the second connection to %s has ended%s", self.describe(), why)
        if self._first:
            self._link.stats.dropped_frames += 1
        self._link.lost(self)

    def reject_host(self) -> str:
        return self._link.target.address

    def describe(self) -> str:
        return f"{self._link.target.name!r} ({self.peer_address})"

    def _hello_received(self, frame: wire.Frame) -> None:
        target = self._link.target
        try:
            hello = read_reply(frame, self.local.hello(), target.member_id, target.name)
            self.check_certificate(hello)
        except (FrameError, Refused) as error:
            self.reject(error.reason, str(error))
            return
        except Outdated as error:
            # The main connection will say it too, and is the one that counts.
            self.reject("version", str(error))
            return
        self.handshake_done(hello, self._link.stats, _FRAMES)
        self._link.stands(self)
        logger.debug("a second connection to %s stands", self.describe())
        first, self._first = self._first, b""
        self.send(first, bulk=True)
        self._idle_timer = self.local.loop.call_later(IDLE_S, self._look_for_use)

    def _look_for_use(self) -> None:
        left_s = self._used_at + IDLE_S - self.local.loop.time()
        if self.queued_bytes:
            left_s = IDLE_S
        if left_s > 0:
            self._idle_timer = self.local.loop.call_later(left_s, self._look_for_use)
        else:
            self._idle_timer = None
            self.close()
