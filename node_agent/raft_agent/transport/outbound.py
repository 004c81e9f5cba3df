"""The connection to one peer that this node dials: our calls go out, its replies come back."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from raft_agent import wire
from raft_agent.transport.bulk import BulkLink
from raft_agent.transport.codec import BULK_FRAMES, REPLY_FRAMES
from raft_agent.transport.connection import Connection, Local, PeerStats
from raft_agent.transport.dialling import FailureLog, PeerTarget, dial, in_words
from raft_agent.transport.handshake import (
    Fate,
    Hello,
    Outdated,
    Refused,
    Superseded,
    encode_hello,
    read_reply,
)
from raft_agent.wire import FrameError, FrameType

logger = logging.getLogger("raft.transport")

MAX_BACK_OFF_S = 1.0
FIRST_BACK_OFF_S = 0.05

# After a pause of this process its timers come due before its sockets are read: whoever seems
# silent gets this long to be heard.
_HEARING_S = 0.05

# No request has this id.
_NONE = -1
# A peer that does not know what to say to a heartbeat must not end the timing of round trips.
_NEVER_ANSWERED_NS = 5_000_000_000

_FRAMES = (REPLY_FRAMES - BULK_FRAMES) | {FrameType.FORWARD_REPLY, FrameType.VERSION_PROMISE}

# What `Transport.problem` says, where the line of the log has more.
_SHORT = {
    "handshake_timeout": "it takes connections, but does not answer",
    "silence": "it does not answer",
}

_VERSION_PROMISE = int(FrameType.VERSION_PROMISE)

OnReply = Callable[[bytes | None, bool], None]


class OutboundOwner(Protocol):
    """Who keeps the connections that were dialled."""

    def outbound_stands(self, connection: OutboundConnection, hello: Hello) -> PeerStats:
        """Raises Refused when another connection leads to the same member."""

    def outbound_lost(self, connection: OutboundConnection) -> None: ...


class OutboundConnection(Connection):
    def __init__(self, local: Local, owner: OutboundOwner, dialer: Dialer) -> None:
        super().__init__(local, FrameType.HELLO_REPLY)
        self._owner = owner
        self.dialer = dialer
        self.stands = False
        self.bulk: BulkLink | None = None  # once it stands
        self._forwards: dict[int, OnReply] = {}
        self._forward_id = 0
        self._reply_due_since: float | None = None
        self._silence_timer: asyncio.TimerHandle | None = None
        self._timed_request = _NONE
        self._timed_since_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.dialer.connected(self)
        self.send(encode_hello(FrameType.HELLO, self.local.hello()), bulk=False)

    def data_received(self, data: bytes) -> None:
        self._reply_due_since = None
        super().data_received(data)

    def frame_received(self, frame: wire.Frame) -> None:
        if not self.stands:
            self._hello_received(frame)
            return
        if not self.is_from_peer(frame):
            return
        self.dialer.heard()
        if frame.type == FrameType.FORWARD_REPLY:
            on_reply = self._forwards.pop(frame.request_id, None)
            if on_reply is None:
                self.reject("body", f"a reply to the unknown request {frame.request_id}")
            else:
                on_reply(frame.body, True)
        elif frame.type == _VERSION_PROMISE:
            if version := self.version_in(frame):
                self.local.handlers.on_version_promise(self.member_id, version)
        else:
            if frame.request_id == self._timed_request:
                self._timed_request = _NONE
                took_us = (time.perf_counter_ns() - self._timed_since_ns) // 1000
                self.stats.round_trips.add(took_us)
            self.message_received(frame)

    def lost(self, exc: Exception | None) -> None:
        if self._silence_timer is not None:
            self._silence_timer.cancel()
        if self.stands:
            self.stands = False
            if self.bulk is not None:
                self.bulk.abort()
            why = f": {exc}" if exc else ""
            self.dialer.log("lost the connection to %s%s", self.describe(), why)
            self.dialer.problem = self.dialer.problem or f"lost the connection{why}"
            self._owner.outbound_lost(self)
        elif not self.is_closing_by_us:
            self.dialer.problem = "it closed the connection before the handshake was done"
        forwards, self._forwards = self._forwards, {}
        for on_reply in forwards.values():
            on_reply(None, True)

    def reject(self, reason: str, text: str) -> None:
        self.dialer.problem = _SHORT.get(reason, text)
        super().reject(reason, text)

    def reject_host(self) -> str:
        return self.dialer.target.address

    def describe(self) -> str:
        name = self.dialer.target.name or self.name
        return f"{name!r} ({self.peer_address})" if name else self.peer_address

    def send_bulk(self, frame: bytes) -> None:
        """Send one frame over the bulk connection; see BulkLink.send."""
        if self.bulk is None:
            self.stats.dropped_frames += 1
        else:
            self.bulk.send(frame)

    def call(self, frame: bytes, *, bulk: bool, reply_due: int) -> None:
        """Send one frame. `reply_due`: its request id when the peer answers it without waiting for
        its disk, else 0: if nothing at all comes for Local.silence_s the connection is dead.
        """
        if not self.send(frame, bulk=bulk) or not reply_due:
            return
        now_ns = time.perf_counter_ns()
        if self._timed_request == _NONE or now_ns - self._timed_since_ns > _NEVER_ANSWERED_NS:
            self._timed_request, self._timed_since_ns = reply_due, now_ns
        if self._reply_due_since is None:
            self._reply_due_since = self.local.loop.time()
            if self._silence_timer is None:
                self._watch_silence(self.local.silence_s)

    def forward(self, body: bytes, on_reply: OnReply) -> None:
        """Send a request for the peer to serve; on_reply(reply, True), or (None, True) when the
        connection ends first, or (None, False) when it was not sent. Later, exactly once.

        Raises ValueError when `body` is too large for a frame.
        """
        self._forward_id += 1
        frame = wire.encode(
            FrameType.FORWARD_REQUEST,
            body,
            sender=self.local.member_id,
            request_id=self._forward_id,
            count=1,
        )
        if self.send(frame, bulk=True):
            self._forwards[self._forward_id] = on_reply
        else:
            self.local.loop.call_soon(on_reply, None, False)

    def _hello_received(self, frame: wire.Frame) -> None:
        target = self.dialer.target
        try:
            hello = read_reply(frame, self.local.hello(), target.member_id, target.name)
            self.check_certificate(hello)
            stats = self._owner.outbound_stands(self, hello)
        except (FrameError, Refused) as error:
            self.reject(error.reason, str(error))
            if isinstance(error, Refused):
                self.dialer.problem = error.short
            tell = self.local.handlers.on_superseded
            if isinstance(error, Superseded) and tell is not None:
                tell(error.member_id, error.generation, error.fate == Fate.AWAITED)
            return
        except Outdated as error:
            self.reject("version", str(error))
            self.local.handlers.on_outdated(str(error))
            return
        self.handshake_done(hello, stats, _FRAMES)
        self.stands = True
        known = msgspec.structs.replace(target, name=hello.name, member_id=hello.member_id)
        self.bulk = BulkLink(self.local, known, stats)
        self.dialer.stands(hello.member_id)
        self.dialer.log("connected to %s", self.describe())
        self.local.handlers.on_peer_up(hello.member_id, hello.name)

    def _watch_silence(self, delay_s: float) -> None:
        self._silence_timer = self.local.loop.call_later(delay_s, self._look_for_silence, False)

    def _look_for_silence(self, was_heard_out: bool) -> None:
        self._silence_timer = None
        if self._reply_due_since is None:
            return
        silent_s = self.local.loop.time() - self._reply_due_since
        left_s = self.local.silence_s - silent_s
        if left_s > 0:
            self._watch_silence(left_s)
        elif not was_heard_out:
            self._silence_timer = self.local.loop.call_later(
                _HEARING_S, self._look_for_silence, True
            )
        else:
            self.dialer.is_mute = True
            self.reject("silence", f"nothing was heard for {silent_s:.1f} s where a reply was due")


class Dialer:
    """Keeps one connection to one peer standing."""

    def __init__(
        self, target: PeerTarget, local: Local, owner: OutboundOwner, rng: random.Random
    ) -> None:
        self.target = target
        self.has_stood = False
        self.is_mute = False
        """The peer takes connections but did not answer on the last one."""
        self.problem = ""
        """Why no connection stands, in a few words; "" while one does and before the first try."""
        self._connection: OutboundConnection | None = None
        self._stopped = False
        self._learned_id = target.member_id
        self._local = local
        self._owner = owner
        self._rng = rng
        self._wake = asyncio.Event()
        self._failures = FailureLog()
        self._task = local.loop.create_task(self._run())

    @property
    def member_id(self) -> int:
        """The peer's id, 0 while it is not known."""
        return self.target.member_id or self._learned_id

    def serves(self, target: PeerTarget) -> bool:
        """Whether this dialer's connection is one to `target`."""
        if target.address != self.target.address:
            return False
        if target.member_id and self.member_id:
            return target.member_id == self.member_id
        return target.name == self.target.name

    def connected(self, connection: OutboundConnection) -> None:
        """A connection was made; the handshake follows."""
        self._connection = connection
        if self._stopped:
            connection.abort()

    def stands(self, member_id: int) -> None:
        """The handshake is done."""
        self.has_stood = True
        self._learned_id = member_id
        self._failures.stands()
        self.problem = ""

    def heard(self) -> None:
        """The peer answered a call."""
        if self.is_mute:
            self.is_mute = False
            self.log("%s answers again", self.target)

    def log(self, text: str, *facts: object) -> None:
        """A fact about the connection; quieter while a mute peer is dialled again and again."""
        quiet = self.is_mute or self._local.closing
        logger.log(logging.DEBUG if quiet else logging.INFO, text, *facts)

    def wake(self) -> None:
        """The peer is alive: don't wait for the end of the back-off."""
        self._wake.set()

    def stop_dialling(self) -> None:
        """Dial no more; a connection that stands stays."""
        self._stopped = True
        self._task.cancel()

    def stop(self) -> None:
        """Dial no more and close the connection at once."""
        self.stop_dialling()
        if self._connection is not None:
            self._connection.abort()

    async def _run(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            started = time.monotonic()
            connection = await self._connect()
            if connection is not None:
                await connection.ended
                self._connection = None
                self._wake.clear()
            # A connection that ends as soon as it stands is a failure too.
            lasted_s = time.monotonic() - started
            failures = 0 if connection is not None and lasted_s > MAX_BACK_OFF_S else failures + 1
            longest_s = min(MAX_BACK_OFF_S, FIRST_BACK_OFF_S * 2 ** min(failures, 10))
            await self._back_off(self._rng.uniform(longest_s / 2, longest_s))

    async def _connect(self) -> OutboundConnection | None:
        try:
            return await dial(
                self._local,
                self.target.address,
                self.target.name,
                lambda: OutboundConnection(self._local, self._owner, self),
            )
        except (OSError, ValueError) as error:
            self.problem = in_words(error)
            self._failures.failed(f"cannot connect to {self.target}: {error}; trying again")
        return None

    async def _back_off(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            return
