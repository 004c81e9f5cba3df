"""What goes back to one client in one encoding: replies and pushed items, gathered into frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft_agent import wire
from raft_agent.api import protocol
from raft_agent.api.caller import REPLY_BYTES, Answer, Caller
from raft_agent.api.protocol import Error, ErrorCode

if TYPE_CHECKING:
    from raft_agent.api.connection import ClientConnection

# Frames are cut at about this size, and made no faster than the client reads them.
FRAME_BYTES = 1 << 20

_REPLY = int(wire.FrameType.CLIENT_REPLY)
_PUSH = int(wire.FrameType.CLIENT_PUSH)
_JSON = int(wire.Flag.JSON)


class _Outbox:
    """Replies or pushed items that wait to be written, and about how many bytes each has."""

    __slots__ = ("items", "sizes")

    def __init__(self) -> None:
        self.items: list[Answer] = []
        self.sizes: list[int] = []

    def take(self) -> tuple[list[Answer], int]:
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
        super().__init__(connection.principal)
        self.is_json = is_json
        self._replies = _Outbox()
        self._pushes = _Outbox()
        self._connection = connection
        self._encode = protocol.JSON_ENCODER.encode if is_json else protocol.ENCODER.encode
        self._flags = _JSON if is_json else 0

    def reply(self, request_id: int, result: object, data_bytes: int = 0) -> None:
        self._queue(self._replies, (request_id, None, result), data_bytes)

    def fail(self, request_id: int, error: Error) -> None:
        self._queue(self._replies, (request_id, error, None), 0)

    def answer(self, answers: list[Answer]) -> None:
        self._replies.items += answers
        self._replies.sizes += [REPLY_BYTES] * len(answers)
        self._connection.queued(REPLY_BYTES * len(answers))

    def push(self, stream_id: int, item: object, data_bytes: int) -> None:
        self._queue(self._pushes, (stream_id, None, item), data_bytes)

    def push_end(self, stream_id: int, error: Error) -> None:
        self._queue(self._pushes, (stream_id, error, None), 0)

    def _queue(self, outbox: _Outbox, item: Answer, data_bytes: int) -> None:
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
        if self._replies.items:
            self._write_frames(self._replies, _REPLY)
        if self._pushes.items:
            self._write_frames(self._pushes, _PUSH)

    def pump(self) -> None:
        """The client reads: streams that wait for that may go on."""
        for stream in list(self.streams.values()):
            if stream.waiting:
                stream.pump()

    def _write_frames(self, outbox: _Outbox, frame_type: int) -> None:
        connection = self._connection
        while outbox.items and not connection.write_paused:
            items, size = outbox.take()
            self._write_items(items, frame_type)
            connection.unsent_bytes -= size

    def _write_items(self, items: list[Answer], frame_type: int) -> None:
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
