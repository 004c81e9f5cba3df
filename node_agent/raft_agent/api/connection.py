"""One client's connection: frames in, replies and pushed items out, each within limits."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import cast

from raft_agent import wire
from raft_agent.api import protocol
from raft_agent.api.caller import REPLY_BYTES, Caller
from raft_agent.api.protocol import Error, ErrorCode
from raft_agent.api.requests import RequestHandlers
from raft_agent.api.salvage import UnreadableError, decode_one_by_one
from raft_agent.platform import peer_credentials

_log = logging.getLogger("raft.api")

# Frames are cut at about this size, and made no faster than the client reads them.
FRAME_BYTES = 1 << 20
# No more requests are taken from a client that leaves this much unread.
PAUSE_READING_BYTES = 4 << 20
# A client that leaves this much unread is dropped; only streams can get here.
DROP_BYTES = 64 << 20

_CLIENT_TYPES = frozenset({int(wire.FrameType.CLIENT_REQUEST)})

_Item = tuple[int, Error | None, object]


class _Outbox:
    """Replies or pushed items that wait to be written, and about how many bytes each has."""

    __slots__ = ("items", "sizes")

    def __init__(self) -> None:
        self.items: list[_Item] = []
        self.sizes: list[int] = []

    def take(self) -> tuple[list[_Item], int]:
        """(the items of the next frame, their size); at least one item."""
        items, sizes = self.items, self.sizes
        size = sum(sizes)
        if size > FRAME_BYTES:
            size = taken = 0
            for item_size in sizes:
                if taken and size + item_size > FRAME_BYTES:
                    break
                size += item_size
                taken += 1
            self.items, self.sizes = items[taken:], sizes[taken:]
            return items[:taken], size
        self.items, self.sizes = [], []
        return items, size

    def forget(self, item_id: int) -> int:
        """Remove the items with this id; returns their size."""
        size = sum(self.sizes)
        kept = [place for place, item in enumerate(self.items) if item[0] != item_id]
        self.items = [self.items[place] for place in kept]
        self.sizes = [self.sizes[place] for place in kept]
        return size - sum(self.sizes)

    def clear(self) -> None:
        self.items, self.sizes = [], []


class Channel(Caller):
    """The requests of one connection in one encoding, and what goes back in it."""

    def __init__(self, connection: ClientConnection, is_json: bool) -> None:
        super().__init__()
        self.is_json = is_json
        self._replies = _Outbox()
        self._pushes = _Outbox()
        self._connection = connection
        self._encode = protocol.JSON_ENCODER.encode if is_json else protocol.ENCODER.encode
        self._flags = int(wire.Flag.JSON) if is_json else 0

    def reply(self, request_id: int, result: object, data_bytes: int = 0) -> None:
        self._queue(self._replies, (request_id, None, result), data_bytes)

    def fail(self, request_id: int, error: Error) -> None:
        self._queue(self._replies, (request_id, error, None), 0)

    def push(self, stream_id: int, item: object, data_bytes: int) -> None:
        self._queue(self._pushes, (stream_id, None, item), data_bytes)

    def push_end(self, stream_id: int, error: Error) -> None:
        self._queue(self._pushes, (stream_id, error, None), 0)

    def _queue(self, outbox: _Outbox, item: _Item, data_bytes: int) -> None:
        size = data_bytes + REPLY_BYTES
        outbox.items.append(item)
        outbox.sizes.append(size)
        self._connection.queued(size)

    def forget_pushes(self, stream_id: int) -> None:
        self._connection.unsent_bytes -= self._pushes.forget(stream_id)

    def unsent_bytes(self) -> int:
        return self._connection.unsent_bytes

    def drop(self) -> None:
        """The connection is gone."""
        for stream in list(self.streams.values()):
            stream.stop()
        self._replies.clear()
        self._pushes.clear()

    def write(self) -> None:
        """Write what is queued as far as the client reads."""
        # Replies first: a stream's first reply comes before what is pushed to it.
        self._write_frames(self._replies, wire.FrameType.CLIENT_REPLY)
        self._write_frames(self._pushes, wire.FrameType.CLIENT_PUSH)

    def _write_frames(self, outbox: _Outbox, frame_type: int) -> None:
        connection = self._connection
        while outbox.items and not connection.write_paused:
            items, size = outbox.take()
            self._write_items(items, frame_type)
            connection.unsent_bytes -= size

    def _write_items(self, items: list[_Item], frame_type: int) -> None:
        body = self._encode(items)
        if len(body) > wire.MAX_BODY_BYTES:
            if len(items) > 1:
                middle = len(items) // 2
                self._write_items(items[:middle], frame_type)
                self._write_items(items[middle:], frame_type)
                return
            error = Error(
                f"The answer of {len(body)} bytes is over the limit of {wire.MAX_BODY_BYTES}",
                ErrorCode.TOO_LARGE,
                "Ask for fewer at a time (limit).",
            )
            body = self._encode([(items[0][0], error, None)])
        frame = wire.encode(frame_type, body, flags=self._flags, count=len(items))
        self._connection.transport.write(frame)


class ClientConnection(asyncio.Protocol):
    """`closed` is called when the connection is gone."""

    transport: asyncio.Transport

    def __init__(
        self,
        handlers: RequestHandlers,
        opened: Callable[[ClientConnection], None],
        closed: Callable[[ClientConnection], None],
    ) -> None:
        self.unsent_bytes = 0
        self.write_paused = False
        self._handlers = handlers
        self._opened = opened
        self._closed = closed
        self._reader = wire.FrameReader(_CLIENT_TYPES, checksum_optional=True)
        self._channels: tuple[Channel, ...] = (Channel(self, False), Channel(self, True))
        self._loop = asyncio.get_running_loop()
        self._flush_scheduled = False
        self._reading_paused = False
        self._gone = False
        self._got_eof = False
        self._peer = "a client"

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's by their methods, not by their class.
        self.transport = cast("asyncio.Transport", transport)
        transport = self.transport
        transport.set_write_buffer_limits(high=FRAME_BYTES)
        self._peer = _describe_peer(transport.get_extra_info("socket"))
        _log.debug("%s connected", self._peer)
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        if self._gone:
            return
        try:
            for frame in self._reader.feed(data):
                self._serve_frame(frame)
        except (wire.FrameError, UnreadableError) as error:
            self.refuse(str(error))

    def eof_received(self) -> bool:
        # A client may close its side once it has asked; it still gets its answers.
        self._got_eof = True
        for channel in self._channels:
            for stream in list(channel.streams.values()):
                stream.stop()
        self._schedule_flush()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        _log.debug("%s disconnected%s", self._peer, f": {exc}" if exc else "")
        self._closed(self)
        # Connection and channels refer to each other; nobody collects such rings in an agent that
        # runs without full garbage collections.
        self._channels = ()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        self._schedule_flush()

    # --- in ---------------------------------------------------------------------------------------

    def _serve_frame(self, frame: wire.Frame) -> None:
        if self._gone:
            return
        if frame.flags & ~int(wire.Flag.JSON):
            raise wire.FrameError("flags", f"frame with unknown flags {frame.flags:#x}")
        is_json = bool(frame.flags & wire.Flag.JSON)
        channel = self._channels[is_json]
        decoder = protocol.REQUESTS_JSON_DECODER if is_json else protocol.REQUESTS_DECODER
        requests: list[protocol.Request] | list[protocol.Request | tuple[int, Error]]
        try:
            requests = decoder.decode(frame.body)
        except (ValueError, RecursionError):
            requests = decode_one_by_one(frame.body, is_json)
        if len(requests) > protocol.MAX_REQUESTS_PER_FRAME:
            raise UnreadableError(
                f"frame of {len(requests)} requests; {protocol.MAX_REQUESTS_PER_FRAME} is the limit"
            )
        handle = self._handlers.handle
        for request in requests:
            if isinstance(request, tuple):
                channel.fail(*request)
            else:
                handle(channel, request)

    # --- out --------------------------------------------------------------------------------------

    def queued(self, size: int) -> None:
        """A channel has queued about `size` bytes: they are written at the end of this turn."""
        if self._gone:
            for channel in self._channels:
                channel.drop()
            return
        self.unsent_bytes += size
        if self.unsent_bytes > PAUSE_READING_BYTES:
            self._check_unsent()
        if not self._flush_scheduled:
            self._schedule_flush()

    def _check_unsent(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()
        if self.unsent_bytes > DROP_BYTES:
            _log.warning("dropped %s: it left about %d bytes unread", self._peer, self.unsent_bytes)
            self._leave()
            self.transport.abort()

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled and not self._gone:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._gone:
            return
        for channel in self._channels:
            channel.write()
        if self.write_paused:
            return
        if self._reading_paused and not self._got_eof:
            self._reading_paused = False
            self.transport.resume_reading()
        for channel in self._channels:
            for stream in list(channel.streams.values()):
                if stream.waiting:
                    stream.pump()
        if self._got_eof and not self.unsent_bytes and not self._in_flight():
            self._leave()
            self.transport.close()

    def _in_flight(self) -> int:
        return sum(channel.in_flight for channel in self._channels)

    # --- the end ----------------------------------------------------------------------------------

    def refuse(self, reason: str) -> None:
        """What came in can't be read any further: say why in the log, and close."""
        _log.warning("closed the connection of %s: %s", self._peer, reason)
        self.close()

    def shut_down(self) -> None:
        """The node ends: tell the streams, and close once the rest is written."""
        error = Error("The node is shutting down", ErrorCode.SHUTTING_DOWN)
        for channel in self._channels:
            for stream in list(channel.streams.values()):
                stream.end(error)
        self.close()

    def close(self) -> None:
        """Write what the client reads without waiting for it, and close."""
        if self._gone:
            return
        for channel in self._channels:
            channel.write()
        self._leave()
        self.transport.close()

    def abort(self) -> None:
        """Close now, whatever is unsent."""
        self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        self._gone = True
        for channel in self._channels:
            channel.drop()


def _describe_peer(connection: socket.socket | None) -> str:
    if connection is None:
        return "a client"
    try:
        pid, uid, _gid = peer_credentials(connection)
    except OSError:
        return "a client"
    return f"a client of uid {uid}" if pid is None else f"client pid {pid} uid {uid}"
