"""One client's connection: frames in, replies and pushed items out, each within limits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import cast

from raft_agent import wire
from raft_agent.api import protocol
from raft_agent.api.channel import FRAME_BYTES, Channel
from raft_agent.api.limits import HALF_FRAME_S, REFUSED_S, Crowd
from raft_agent.api.protocol import Error, ErrorCode
from raft_agent.api.requests import RequestHandlers
from raft_agent.api.rights import Principal
from raft_agent.api.salvage import UnreadableError, read_requests
from raft_agent.api.streams import EventStream
from raft_agent.api.turn import Turn

_log = logging.getLogger("raft.api")

# No more requests are taken from a client that leaves this much unread.
PAUSE_READING_BYTES = 4 << 20
# A client that leaves this much unread is dropped; only streams can get here.
DROP_BYTES = 64 << 20

_END = b""
_CLIENT_TYPES = frozenset({int(wire.FrameType.CLIENT_REQUEST)})
_JSON = int(wire.Flag.JSON)
_PLAIN_START = wire.start_of(wire.FrameType.CLIENT_REQUEST)


class ClientConnection(asyncio.Protocol):
    """`admit` says who is at the other end; `closed` is called when the connection is gone."""

    transport: asyncio.Transport
    principal: Principal

    def __init__(
        self,
        handlers: RequestHandlers,
        turn: Turn,
        crowd: Crowd,
        admit: Callable[[asyncio.Transport], Principal],
        *,
        opened: Callable[[ClientConnection], None],
        closed: Callable[[ClientConnection], None],
    ) -> None:
        self.unsent_bytes = 0
        self.write_paused = False
        self.is_gone = False
        self.got_eof = False
        self._handlers = handlers
        self._turn = turn
        self._crowd = crowd
        # Why nothing that this client asks is done.
        self._refusal: Error | None = None
        self._frames_served = 0
        self._timer: asyncio.TimerHandle | None = None
        self._admit = admit
        self._opened = opened
        self._closed = closed
        self._reader = wire.FrameReader(_CLIENT_TYPES, checksum_optional=True)
        # One for each encoding that the client has used.
        self._channels: list[Channel] = []
        self._flush_scheduled = False
        self._reading_paused = False

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's by their methods, not by their class.
        self.transport = cast("asyncio.Transport", transport)
        transport = self.transport
        transport.set_write_buffer_limits(high=FRAME_BYTES)
        self.principal = self._admit(transport)
        _log.debug("%s connected", self.principal.who)
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        if not self.is_gone:
            self._turn.serve(self, data)

    def eof_received(self) -> bool:
        # A client may close its side once it has asked; it still gets its answers.
        if not self.is_gone:
            self._turn.serve(self, _END)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if isinstance(exc, wire.FrameError):  # of TLS, which has closed it
            self._crowd.complain(f"closed the connection of {self.principal.who}: {exc}")
        else:
            _log.debug("%s disconnected%s", self.principal.who, f": {exc}" if exc else "")
        self._closed(self)
        # Connection and channels refer to each other; nobody collects such rings in an agent that
        # runs without full garbage collections.
        self._channels = []

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        self._schedule_flush()

    # --- in ---------------------------------------------------------------------------------------

    def serve(self, data: bytes) -> None:
        """What has come from the client is read and done; b"" is its end."""
        if self.is_gone:
            return
        if self._reading_paused:
            self._schedule_flush()
        try:
            body = self._reader.only_body(data, _PLAIN_START) if data else None
            if body is not None:
                self._frames_served += 1
                self._serve(body, is_json=False)
            elif data:
                self._serve_pieces(data)
            else:
                self._ended()
        except (wire.FrameError, UnreadableError) as error:
            self.refuse(str(error))

    def _serve_pieces(self, data: bytes) -> None:
        """Several frames, or what is not one in full."""
        for frame in self._reader.feed(data):
            if not self.is_gone:
                self._frames_served += 1
                self._serve_frame(frame)
        if self._timer is None and self._reader.pending_bytes:
            self._watch_half_frame()

    def hold(self) -> None:
        """Read nothing more until the next flush."""
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def _ended(self) -> None:
        self.got_eof = True
        for channel in self._channels:
            for stream in list(channel.streams.values()):
                stream.stop()
        self._schedule_flush()

    def _serve_frame(self, frame: wire.Frame) -> None:
        flags = frame.flags
        if flags & ~_JSON:
            raise wire.FrameError("flags", f"frame with unknown flags {flags:#x}")
        self._serve(frame.body, is_json=bool(flags))

    def _serve(self, body: bytes, *, is_json: bool) -> None:
        requests = read_requests(body, is_json)
        channel = self._channel(is_json)
        refusal = self._refusal or self._crowd.too_many_requests(len(requests))
        if refusal is not None:
            self._refuse_all(channel, requests, refusal)
            return
        self._handlers.handle_all(channel, requests)

    def _refuse_all(
        self,
        channel: Channel,
        requests: Sequence[protocol.Request | tuple[int, Error]],
        refusal: Error,
    ) -> None:
        for request in requests:
            channel.fail(request[0] if isinstance(request, tuple) else request.id, refusal)
        if self._refusal is not None:
            self.close()

    def turn_away(self, refusal: Error) -> None:
        """Answer the first frame with `refusal`, and close; close as well when none comes."""
        self._refusal = refusal
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(REFUSED_S, self.refuse, refusal.error)

    def _watch_half_frame(self) -> None:
        """See to it that the frame that is not there in full does not take for ever."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HALF_FRAME_S, self._is_half_still, self._frames_served)

    def _is_half_still(self, frames_served: int) -> None:
        self._timer = None
        if self.is_gone or not self._reader.pending_bytes:
            return
        # Of a client that is not read from the rest may well have come.
        if frames_served != self._frames_served or self._reading_paused:
            self._watch_half_frame()
        else:
            self.refuse(f"a frame was not finished within {HALF_FRAME_S:g} s")

    def _channel(self, is_json: bool) -> Channel:
        for channel in self._channels:
            if channel.is_json == is_json:
                return channel
        channel = Channel(self, is_json)
        self._channels.append(channel)
        return channel

    # --- out --------------------------------------------------------------------------------------

    def queued(self, channel: Channel, size: int) -> None:
        """`channel` has queued about `size` bytes: they are written at the end of this turn."""
        if self.is_gone:
            channel.drop()
            return
        self.unsent_bytes += size
        if self.unsent_bytes > PAUSE_READING_BYTES:
            self._check_unsent()
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._turn.write(self)

    def _check_unsent(self) -> None:
        self.hold()
        if self.unsent_bytes > DROP_BYTES:
            self.drop(f"it left about {self.unsent_bytes} bytes unread")

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled and not self.is_gone:
            self._flush_scheduled = True
            self._turn.write(self)

    def flush(self) -> None:
        """Write what is queued as far as the client reads, and go on with what waited for that."""
        self._flush_scheduled = False
        if self.is_gone:
            return
        for channel in self._channels:
            channel.write()
        if self.write_paused:
            return
        if self._reading_paused and not self.got_eof:
            self._reading_paused = False
            self.transport.resume_reading()
        for channel in self._channels:
            if channel.streams:
                channel.pump()
        if self.got_eof and not self.unsent_bytes and not self.in_flight():
            self._leave()
            self.transport.close()

    # --- for the crowd ----------------------------------------------------------------------------

    def in_flight(self) -> int:
        """How many requests wait for an answer."""
        return sum(channel.in_flight for channel in self._channels)

    def stream_count(self) -> int:
        return sum(len(channel.streams) for channel in self._channels)

    def half_frame_bytes(self) -> int:
        """How much has come of a frame that is not there in full."""
        return self._reader.pending_bytes

    def drop(self, reason: str) -> None:
        """End the connection now, whatever is unsent, with a line that says why."""
        self._crowd.complain(f"dropped {self.principal.who}: {reason}")
        self.abort()

    # --- the end ----------------------------------------------------------------------------------

    def refuse(self, reason: str) -> None:
        """What came in can't be read any further: say why in the log, and close."""
        self._crowd.complain(f"closed the connection of {self.principal.who}: {reason}")
        self.close()

    def end_watches(self, error: Error) -> None:
        """Streams of what is in the state come to their end; those of events go on."""
        for channel in self._channels:
            for stream in list(channel.streams.values()):
                if not isinstance(stream, EventStream):
                    stream.end(error)

    def shut_down(self) -> None:
        """The node ends: tell the streams, and close once the rest is written."""
        error = Error("The node is shutting down", ErrorCode.SHUTTING_DOWN)
        for channel in self._channels:
            for stream in list(channel.streams.values()):
                stream.end(error)
        self.close()

    def close(self) -> None:
        """Write what the client reads without waiting for it, and close."""
        if self.is_gone:
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
        self.is_gone = True
        for channel in self._channels:
            channel.drop()
