"""What the status page shows, pushed as server-sent events.

Once a second, and at once when something happens, everybody who looks gets the node's status, the
members as the leader sees them, and the node's numbers. Those of the last minutes are kept, so that
a page that is opened shows more than its own time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

import msgspec

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.http.source import Source

_log = logging.getLogger("raft.http")

INTERVAL_S = 1.0
KEPT_SAMPLES = 150
KEPT_EVENTS = 200
# What a reader may leave unread before it is dropped.
_MAX_UNREAD = 32
# Changes come in bursts: a role, a configuration, an entry. One message shows them all.
_SETTLE_S = 0.05
_LEADER_PATIENCE_S = 0.3


class Tick(msgspec.Struct):
    """`health` is the leader's view when it answers, else this node's own."""

    status: protocol.StatusResult
    health: protocol.HealthResult
    vitals: protocol.VitalsResult
    not_ready: str


class Hello(msgspec.Struct):
    """The first message of a stream; `history` is oldest first."""

    tick: Tick
    history: list[protocol.VitalsResult]
    events: list[protocol.EventItem]


class Reader:
    """Somebody who looks. `messages` ends with None when it was dropped or the agent ends."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes | None] = asyncio.Queue()

    def put(self, message: bytes) -> bool:
        """False when it has left too much unread."""
        if self.messages.qsize() >= _MAX_UNREAD:
            return False
        self.messages.put_nowait(message)
        return True


class Feed:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._history: deque[protocol.VitalsResult] = deque(maxlen=KEPT_SAMPLES)
        self._readers: set[Reader] = set()
        # Those whose Hello is not there yet.
        self._opening: set[Reader] = set()
        self._happened = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        self._unsubscribe = self._source.subscribe_events(self._on_event)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """No more messages; the streams end."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        for reader in self._readers | self._opening:
            self._drop(reader)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def reader_count(self) -> int:
        """How many look, or are about to."""
        return len(self._readers) + len(self._opening)

    async def open(self) -> Reader:
        """A reader, whose first message is the Hello. It is counted at once: the leader's answer is
        awaited here, and any number could wait for that together."""
        reader = Reader()
        self._opening.add(reader)
        try:
            tick = await self._tick()
            hello = Hello(tick, list(self._history), self._source.recent_events(KEPT_EVENTS))
            reader.put(encode("hello", hello))
            if reader in self._opening:  # and was not dropped meanwhile
                self._readers.add(reader)
        finally:
            self._opening.discard(reader)
        return reader

    def forget(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def _drop(self, reader: Reader) -> None:
        self._readers.discard(reader)
        self._opening.discard(reader)
        reader.messages.put_nowait(None)

    def _publish(self, message: bytes) -> None:
        for reader in list(self._readers):
            if not reader.put(message):
                _log.info("dropped somebody who looks at the status page and does not read")
                self._drop(reader)

    def _on_event(self, event: protocol.EventItem) -> None:
        self._happened.set()
        if self._readers:
            self._publish(encode("event", event))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        sample_at = loop.time()
        while True:
            if loop.time() >= sample_at:
                sample_at = max(sample_at + INTERVAL_S, loop.time())
                self._history.append(self._source.vitals())
            if self._readers:
                self._publish(encode("tick", await self._tick()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(sample_at - loop.time(), 0)):
                    await self._happened.wait()
                    await asyncio.sleep(_SETTLE_S)
            self._happened.clear()

    async def _tick(self) -> Tick:
        source = self._source
        health = await self._health()
        return Tick(source.status(), health, source.vitals(), source.not_ready())

    async def _health(self) -> protocol.HealthResult:
        """The leader's view of the members; this node's own when no leader answers in time."""
        if not self._source.is_leader():
            answered: asyncio.Future[bytes | Failure] = asyncio.get_running_loop().create_future()

            def done(answer: bytes | Failure) -> None:
                if not answered.done():
                    answered.set_result(answer)

            self._source.forward(protocol.Health(1, forward=False), done)
            with contextlib.suppress(TimeoutError, ValueError, OverflowError, RecursionError):
                answer = await asyncio.wait_for(answered, _LEADER_PATIENCE_S)
                if isinstance(answer, bytes):
                    reply = _REPLY.decode(answer)
                    if reply.error is None:
                        return msgspec.msgpack.decode(reply.result, type=protocol.HealthResult)
        return self._source.health()


_REPLY = msgspec.msgpack.Decoder(protocol.Reply)


def encode(kind: str, message: object) -> bytes:
    """One server-sent event: JSON has no line breaks, so it is one line of data."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(message))
