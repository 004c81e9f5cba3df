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

# By whether they are JSON.
_REPLY = [wire.PlainFrames(wire.FrameType.CLIENT_REPLY, flags) for flags in (0, wire.Flag.JSON)]
_PUSH = [wire.PlainFrames(wire.FrameType.CLIENT_PUSH, flags) for flags in (0, wire.Flag.JSON)]


class _Outbox:
    """Replies or pushed items that wait to be written, and about how many bytes each and all of
    them have."""

    __slots__ = ("items", "size", "sizes")

    def __init__(self) -> None:
        self.items: list[Answer] = []
        self.sizes: list[int] = []
        self.size = 0

    def take(self) -> tuple[list[Answer], int]:
        """(the items of the next frame, their size); at least one item."""
        items, sizes, size = self.items, self.sizes, self.size
        if size > FRAME_BYTES:
            size = taken = 0
            for item_size in sizes:
                if taken and size + item_size > FRAME_BYTES:
                    break
                size += item_size
                taken += 1
            self.items, self.sizes = items[taken:], sizes[taken:]
            self.size -= size
            return items[:taken], size
        self.items, self.sizes, self.size = [], [], 0
        return items, size

    def forget(self, item_id: int) -> int:
        """Remove the items with this id; returns their size."""
        size = self.size
        kept = [place for place, item in enumerate(self.items) if item[0] != item_id]
        self.items = [self.items[place] for place in kept]
        self.sizes = [self.sizes[place] for place in kept]
        self.size = sum(self.sizes)
        return size - self.size

    def clear(self) -> None:
        self.items, self.sizes, self.size = [], [], 0


class Channel(Caller):
    """The requests of one connection in one encoding, and what goes back in it."""

    def __init__(self, connection: ClientConnection, is_json: bool) -> None:
        super().__init__(connection.principal)
        self.is_json = is_json
        self._replies = _Outbox()
        self._pushes = _Outbox()
        self._connection = connection
        self._encode = protocol.JSON_ENCODER.encode if is_json else protocol.ENCODER.encode
        self._reply_frames, self._push_frames = _REPLY[is_json], _PUSH[is_json]

    @property
    def is_gone(self) -> bool:
        return self._connection.is_gone

    @property
    def has_left(self) -> bool:
        return self._connection.is_gone or self._connection.got_eof

    def reply(self, request_id: int, result: object, data_bytes: int = 0) -> None:
        self._queue(self._replies, (request_id, None, result), data_bytes)

    def fail(self, request_id: int, error: Error) -> None:
        self._queue(self._replies, (request_id, error, None), 0)

    def answer(self, answers: list[Answer]) -> None:
        if len(answers) == 1:
            self._queue(self._replies, answers[0], 0)
            return
        replies, size = self._replies, REPLY_BYTES * len(answers)
        replies.items += answers
        replies.sizes += [REPLY_BYTES] * len(answers)
        replies.size += size
        self._connection.queued(self, size)

    def push(self, stream_id: int, item: object, data_bytes: int) -> None:
        self._queue(self._pushes, (stream_id, None, item), data_bytes)

    def push_end(self, stream_id: int, error: Error) -> None:
        self._queue(self._pushes, (stream_id, error, None), 0)

    def _queue(self, outbox: _Outbox, item: Answer, data_bytes: int) -> None:
        size = data_bytes + REPLY_BYTES
        outbox.items.append(item)
        outbox.sizes.append(size)
        outbox.size += size
        self._connection.queued(self, size)

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
            self._write_frames(self._replies, self._reply_frames)
        if self._pushes.items:
            self._write_frames(self._pushes, self._push_frames)

    def pump(self) -> None:
        """The client reads: streams that wait for that may go on."""
        for stream in list(self.streams.values()):
            if stream.waiting:
                stream.pump()

    def _write_frames(self, outbox: _Outbox, frames: wire.PlainFrames) -> None:
        connection = self._connection
        while outbox.items and not connection.write_paused:
            items, size = outbox.take()
            body = self._encode(items)
            if len(body) <= wire.MAX_BODY_BYTES:
                connection.transport.write(frames.encode(body, len(items)))
            else:
                self._write_parts(items, len(body), frames)
            connection.unsent_bytes -= size

    def _write_parts(self, items: list[Answer], size: int, frames: wire.PlainFrames) -> None:
        """Write what is too large for one frame, `size` bytes, in several."""
        if len(items) > 1:
            middle = len(items) // 2
            parts = [items[:middle], items[middle:]]
        else:
            error = Error(
                f"The answer of {size} bytes is over the limit of {wire.MAX_BODY_BYTES}",
                ErrorCode.TOO_LARGE,
                "Ask for fewer at a time (limit).",
            )
            parts = [[(items[0][0], error, None)]]
        for part in parts:
            body = self._encode(part)
            if len(body) > wire.MAX_BODY_BYTES:
                self._write_parts(part, len(body), frames)
            else:
                self._connection.transport.write(frames.encode(body, len(part)))
