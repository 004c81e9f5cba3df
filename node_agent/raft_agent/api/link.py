"""One connection of the asyncio client: many requests in flight, those of one turn in one frame."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, TypeAlias, cast

import msgspec

from raft_agent import wire
from raft_agent.api import protocol
from raft_agent.api.answers import (
    AgentNotReachable,
    RequestFailed,
    is_stream,
    item_of,
    no_answer,
    read_replies,
    result_of,
)
from raft_agent.api.protocol import ErrorCode

_REPLY_TYPES = frozenset({int(wire.FrameType.CLIENT_REPLY), int(wire.FrameType.CLIENT_PUSH)})
_FRAMES = wire.PlainFrames(wire.FrameType.CLIENT_REQUEST)
_FRAME_REQUESTS = 1000
_FRAME_BYTES = 1 << 20
# Requests whose data is no more than this are encoded together with others.
_SMALL_BYTES = 64 << 10
_SMALL_KINDS = frozenset({protocol.Get, protocol.Delete})
_UNKNOWN_BYTES = _SMALL_BYTES + 1
_LARGEST_BYTES = wire.MAX_BODY_BYTES - 1  # the array around it takes one byte

_Item: TypeAlias = protocol.Request | msgspec.Raw

# Items of a stream that its consumer has not taken yet; beyond that the agent has to wait.
_QUEUED_ITEMS = 1000
# Each may be large.
_QUEUED_PIECES = 16


class NotSent(Exception):  # noqa: N818
    """The connection was lost before the request left: it may be sent again elsewhere."""


class Link(asyncio.Protocol):
    """`is_open` from the connection's beginning to its end; `lost`: why it ended, for people."""

    def __init__(self) -> None:
        self.is_open = False
        self._loop = asyncio.get_running_loop()
        self._reader = wire.FrameReader(_REPLY_TYPES)
        self._waiting: dict[int, tuple[protocol.Request, asyncio.Future[Any]]] = {}
        # By their ids.
        self._unsent: deque[int] = deque()
        self._flush_scheduled = False
        self._write_paused = False
        self._closing = False
        self.lost = "the connection was lost"
        self._stream: protocol.Request | None = None
        self._queued_items = _QUEUED_ITEMS
        self._items: deque[Any] = deque()
        self._item_came = asyncio.Event()

    def ask(self, request: protocol.Request) -> asyncio.Future[Any]:
        """Send `request`, whose id must be free; resolves to its result.

        The future raises RequestFailed or OutcomeUnknown as the agent says, NotSent when the
        connection ends before the request is sent, and after that what `no_answer` says. A request
        that can't be sent at all raises RequestFailed (TOO_LARGE), or TypeError, ValueError or
        OverflowError when a field has no encoding.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self.is_open:
            future.set_exception(NotSent())
            return future
        if is_stream(request):
            self._stream = request
            if isinstance(request, protocol.SnapshotSave):
                self._queued_items = _QUEUED_PIECES
        self._waiting[request.id] = (request, future)
        self._unsent.append(request.id)
        if not self._flush_scheduled:
            self._schedule_flush()
        return future

    def was_sent(self, request: protocol.Request) -> bool:
        """Whether the agent may have got it. Call for a request that waits for its answer."""
        return request.id not in self._unsent

    def forget(self, request: protocol.Request) -> None:
        """Nobody waits for this answer any more."""
        self._waiting.pop(request.id, None)
        self._close_if_idle()

    async def next_item(self) -> Any:
        """The next item of the stream that was asked for on this connection.

        Raises RequestFailed when the agent ended it, AgentNotReachable when the connection did.
        """
        while not self._items:
            if not self.is_open:
                raise AgentNotReachable(self.lost)
            self._item_came.clear()
            await self._item_came.wait()
        reply = self._items.popleft()
        if self.is_open and len(self._items) < self._queued_items // 2:
            self._transport.resume_reading()
        return item_of(cast("protocol.Request", self._stream), reply)

    def close(self) -> None:
        """End the connection; who waits for an answer gets the exception for that."""
        if self.is_open:
            self._transport.close()

    def close_when_idle(self) -> None:
        """End the connection once all answers have come that others wait for."""
        self._closing = True
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._closing and not self._waiting:
            self.close()

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport, but not its type.
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        try:
            frames = [(frame.type, read_replies(frame.body)) for frame in self._reader.feed(data)]
        except ValueError as error:  # also wire.FrameError
            self.lost = f"what answers there is no agent: {error}"
            self._transport.abort()
            return
        for frame_type, replies in frames:
            if frame_type == wire.FrameType.CLIENT_PUSH:
                self._items.extend(replies)
                self._item_came.set()
                if len(self._items) > self._queued_items:
                    self._transport.pause_reading()
                continue
            for reply in replies:
                self._answered(reply)

    def _answered(self, reply: protocol.Reply) -> None:
        request, future = self._waiting.pop(reply.id, (None, None))
        if request is None or future is None or future.done():
            return
        try:
            future.set_result(result_of(request, reply))
        except Exception as error:
            future.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if exc is not None:
            self.lost = f"the connection was lost: {exc}"
        unsent = set(self._unsent)
        waiting, self._waiting = self._waiting, {}
        for request, future in waiting.values():
            if not future.done():
                future.set_exception(
                    NotSent() if request.id in unsent else no_answer(request, self.lost)
                )
        self._item_came.set()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._schedule_flush()

    # --- out --------------------------------------------------------------------------------------

    def _schedule_flush(self) -> None:
        if self._unsent and not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        unsent, waiting = self._unsent, self._waiting
        items: list[_Item] = []
        size = 0
        while unsent and self.is_open and not self._write_paused:
            asked = waiting.get(unsent.popleft())
            if asked is None:
                continue  # forgotten
            request = asked[0]
            item: _Item = request
            try:
                # What is asked most, by what is large in it: to encode each by itself costs more.
                if isinstance(request, protocol.Put):
                    item_size = len(request.value)
                elif type(request) in _SMALL_KINDS:
                    item_size = 0
                elif isinstance(request, protocol.Send):
                    item_size = len(request.text)
                else:
                    item_size = _UNKNOWN_BYTES
            except TypeError:
                item_size = _UNKNOWN_BYTES
            if item_size > _SMALL_BYTES:
                encoded = self._encoded(request)
                if encoded is None:
                    continue
                item, item_size = msgspec.Raw(encoded), len(encoded)
            if items and (size + item_size > _FRAME_BYTES or len(items) == _FRAME_REQUESTS):
                self._write(items)
                items, size = [], 0
            items.append(item)
            size += item_size
        if items:
            self._write(items)

    def _write(self, items: list[_Item]) -> None:
        """Write one frame; several when not all of the requests can be encoded, for then the others
        are not to be lost with them."""
        try:
            body = protocol.ENCODER.encode(items)
            frames = [_FRAMES.encode(body, len(items))]
        except (ValueError, TypeError, OverflowError):
            alone = [
                bytes(item) if isinstance(item, msgspec.Raw) else self._encoded(item)
                for item in items
            ]
            frames = [_FRAMES.encode(b"\x91" + item, 1) for item in alone if item is not None]
        for frame in frames:
            self._transport.write(frame)

    def _encoded(self, request: protocol.Request) -> bytes | None:
        """The request by itself. None when it can't be sent, which it is answered with then."""
        problem: Exception
        try:
            encoded = protocol.ENCODER.encode(request)
        except (ValueError, TypeError, OverflowError) as error:
            problem = error
        else:
            if len(encoded) <= _LARGEST_BYTES:
                return encoded
            problem = RequestFailed(
                f"The request of {len(encoded)} bytes is over the limit of {_LARGEST_BYTES}",
                ErrorCode.TOO_LARGE,
            )
        _, future = self._waiting.pop(request.id)
        if not future.done():
            future.set_exception(problem)
        self._close_if_idle()
        return None
