"""One TCP connection between two members: frames in, a bounded queue of frames out.

What both sides have in common; `inbound` and `outbound` say what the frames mean.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec

from raft_agent import __version__, platform, wire
from raft_agent.consensus import types
from raft_agent.histogram import Histogram
from raft_agent.tls.identity import Identity, Kind
from raft_agent.transport import codec
from raft_agent.transport.address import format_address
from raft_agent.transport.handshake import MAX_HELLO_BYTES, Fate, Hello, Purpose, Refused, shown
from raft_agent.transport.rejects import RejectLog
from raft_agent.versions import CLUSTER_VERSIONS, Versions
from raft_agent.wire import FrameError, FrameType

if TYPE_CHECKING:
    # The library behind them is for those who have [tls].
    from raft_agent.tls.credentials import PeerCertificate
    from raft_agent.tls.security import Security

SEND_LIMIT_BYTES = 16 << 20
SEND_RESERVE_BYTES = 1 << 20  # beyond the limit, for what must not wait behind bulk

# How long a frame may take to arrive, once its first byte has come; the largest on a slow line.
HALF_FRAME_S = 60.0

# Up to here one copy costs less than handing over the pieces of what is written.
_COPIED_BYTES = 16 << 10

# An idle connection whose other machine died without a word is found by the kernel's probes.


class Flow(msgspec.Struct, frozen=True):
    """One TCP connection with a peer: both ends as (IP address, port), and how many bytes of it the
    system has received, those that nobody has read yet too; None where it does not tell.
    """

    member_id: int
    local: tuple[str, int]
    remote: tuple[str, int]
    received_bytes: int | None


class PeerStats(msgspec.Struct):
    """One peer in numbers, all connections together, since this agent started.

    `connected`: our main connection to the peer stands; `connected_inbound`: its one to us;
    `connected_bulk`: our connection for snapshots.
    `dropped_frames`: not connected, or the queue was full. `last_received`: when the last bytes
    came, in seconds of time.monotonic(), None before the first. `reconnects`: how often our
    connection was made anew. `queued_bytes`: what waits in this process to be sent. `round_trips`:
    of heartbeats and pre-votes, which are answered at once; one at a time is timed. `versions`:
    the cluster versions that the peer knows, as its last handshake said; `program`: which
    raft-agent it is.
    """

    name: str = ""
    address: str = ""
    connected: bool = False
    connected_inbound: bool = False
    connected_bulk: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    frames_in: int = 0
    frames_out: int = 0
    dropped_frames: int = 0
    last_received: float | None = None
    reconnects: int = 0
    queued_bytes: int = 0
    round_trips: Histogram = msgspec.field(default_factory=Histogram)
    versions: Versions | None = None
    program: str = ""


def _no_clients(certificate: PeerCertificate) -> asyncio.Protocol:
    raise NotImplementedError(f"nobody serves {certificate.identity}")


class TransportHandlers(msgspec.Struct, frozen=True):
    """What the transport tells its owner. Called in the event loop, never from within a call of
    the owner. An exception that one of them raises closes the connection and goes to the loop's
    exception handler.

    on_message(sender, message); on_peer_up(member_id, name): our main connection to the peer
    stands, told every time; on_peer_down(member_id): it does not any more; on_forward(sender, body,
    reply): a request that a peer passes on to this node, reply(body) answers it and raises
    ValueError when that is too large for a frame; on_client(certificate): a remote client's first
    request is about to come, under TLS: whoever serves it; on_version_ask(sender, version) and
    on_version_promise(sender, version): see `machine.upgrade`; on_outdated(text): a member of this
    node's cluster says that this program is too old for it.
    admit(hello): before a peer's connection to us stands, and before it is answered who is here;
    raises Refused when it is not welcome.
    on_superseded(member_id, generation, is_awaited): a peer is of a later generation, and told this
    node what becomes of it. standing(): what to say to whoever asks before a recovery.
    """

    on_message: Callable[[int, types.Message], None]
    on_peer_up: Callable[[int, str], None]
    on_peer_down: Callable[[int], None]
    on_forward: Callable[[int, bytes, Callable[[bytes], None]], None]
    on_client: Callable[[PeerCertificate], asyncio.Protocol] = _no_clients
    on_version_ask: Callable[[int, int], None] = lambda _sender, _version: None
    on_version_promise: Callable[[int, int], None] = lambda _sender, _version: None
    on_outdated: Callable[[str], None] = lambda _text: None
    admit: Callable[[Hello], None] = lambda _hello: None
    on_superseded: Callable[[int, int, bool], None] | None = None
    standing: Callable[[], types.Standing] | None = None


class Local:
    """What all connections of this node share."""

    def __init__(
        self,
        *,
        member_id: int,
        name: str,
        cluster_id: str,
        address: str,
        election_timeout_max_ms: int,
        handlers: TransportHandlers,
        rejects: RejectLog,
        security: Security | None,
        versions: Versions = CLUSTER_VERSIONS,
    ) -> None:
        self.security = security
        self.member_id = member_id
        self.name = name
        self.cluster_id = cluster_id
        self.generation = types.Generation()
        self.address = address
        self.handlers = handlers
        self.rejects = rejects
        self.versions = versions
        self.version_in_force = 0
        self.version_promised = 1
        self.loop: asyncio.AbstractEventLoop  # set by Transport.start
        self.open: set[Connection] = set()
        self.closing = False
        # Shorter than a second would only punish machines with slow clocks or busy processors.
        self.silence_s = max(3 * election_timeout_max_ms / 1000, 1.0)
        # TLS takes two more messages, each with a millisecond of computing behind those of others.
        shortest_s = 1.0 if security is None else 2.0
        self.handshake_s = max(2 * election_timeout_max_ms / 1000, shortest_s)

    def hello(
        self,
        refusal: str = "",
        purpose: Purpose = Purpose.MAIN,
        fate: str = Fate.NONE,
        standing: types.Standing | None = None,
    ) -> Hello:
        return Hello(
            oldest=self.versions.oldest,
            newest=self.versions.newest,
            cluster_id=self.cluster_id,
            member_id=self.member_id,
            name=self.name,
            address=self.address,
            refusal=refusal,
            purpose=purpose,
            in_force=self.version_in_force if self.cluster_id else 0,
            promised=self.version_promised,
            program=__version__,
            generation=self.generation.id,
            fate=fate,
            standing=standing,
        )

    def dialled(self, connection: Connection, name: str) -> asyncio.Protocol:
        """The protocol under a connection to the node `name` ("": any)."""
        if self.security is None:
            return connection
        return self.security.dialled(connection, name, connection.count_overhead)

    def accepted(self, connection: Connection) -> asyncio.Protocol:
        """The protocol under a connection that was accepted."""
        if self.security is None:
            return connection
        return self.security.accepted(connection, connection.count_overhead)


class Connection(asyncio.Protocol):
    """Frames on one connection. Subclasses take them in `frame_received` and are told the end in
    `lost`.
    """

    def __init__(self, local: Local, first_frame: FrameType) -> None:
        self.local = local
        self.stats = PeerStats()  # a throwaway until the peer is known
        self.member_id = 0  # of the peer, once the handshake is done
        self.name = ""
        self.cluster_id = ""  # what the handshake said; "" of a fresh peer
        self.generation = 0
        self.peer_address = "unknown address"
        self.last_term = 0  # header.term of the last frame that came
        self.is_closing_by_us = False
        self.handshake_s = local.handshake_s
        self._transport: asyncio.Transport | None = None
        self._reader = wire.FrameReader(frozenset({first_frame}), max_body_bytes=MAX_HELLO_BYTES)
        self._queue: list[bytes] = []
        self._queue_bytes = 0
        self._queue_frames = 0
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._half_frame_timer: asyncio.TimerHandle | None = None
        self._frames_read = 0
        self.ended: asyncio.Future[None] = local.loop.create_future()

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.local.open.add(self)
        self.peer_address = format_address(transport.get_extra_info("peername"))
        with contextlib.suppress(OSError):  # the peer can be gone before we looked
            platform.notice_dead_peer(transport.get_extra_info("socket"), self.local.silence_s)
        self._handshake_timer = self.local.loop.call_later(
            self.handshake_s, self._handshake_is_late
        )

    def data_received(self, data: bytes) -> None:
        stats = self.stats
        stats.bytes_in += len(data)
        stats.last_received = self.local.loop.time()
        try:
            frames = self._reader.feed(data)
        except FrameError as error:
            self.reject(error.reason, str(error))
            return
        for frame in frames:
            if self.is_closing or self.local.closing:
                return
            self.stats.frames_in += 1
            self.last_term = frame.term
            self.frame_received(frame)
        self._frames_read += len(frames)
        if self._half_frame_timer is None and self._reader.pending_bytes:
            self._watch_half_frame()

    def count_overhead(self, received: int, sent: int) -> None:
        """So many bytes went over TCP that are no part of frames: those of TLS."""
        self.stats.bytes_in += received
        self.stats.bytes_out += sent

    def connection_lost(self, exc: Exception | None) -> None:
        self.local.open.discard(self)
        if not self.ended.done():
            self.ended.set_result(None)
        for timer in (self._handshake_timer, self._half_frame_timer):
            if timer is not None:
                timer.cancel()
        if self.is_closing_by_us:
            pass
        elif isinstance(exc, FrameError):
            self.reject(exc.reason, str(exc))
        elif self._reader.pending_bytes:
            self._record(
                "truncated", f"the stream ended within a frame ({exc or 'closed by the peer'})"
            )
        self._queue.clear()
        self._queue_bytes = 0
        self._queue_frames = 0
        self.lost(exc)

    def leave(self) -> asyncio.Transport:
        """Somebody else speaks over this connection from now on; gives it away."""
        transport = self._transport
        if transport is None:
            raise RuntimeError("there is no connection to give away")
        self._transport = None
        self.local.open.discard(self)
        self.ended.set_result(None)
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
        return transport

    # --- for subclasses -----------------------------------------------------------------------

    def frame_received(self, frame: wire.Frame) -> None:
        raise NotImplementedError

    def lost(self, exc: Exception | None) -> None:
        raise NotImplementedError

    def handshake_done(self, hello: Hello, stats: PeerStats, frame_types: frozenset[int]) -> None:
        """The peer is who it should be: from now on these frames are welcome."""
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None
        self.member_id = hello.member_id
        self.name = hello.name
        self.cluster_id = hello.cluster_id
        self.generation = hello.generation
        stats.name = hello.name
        stats.address = hello.address
        stats.versions = hello.versions
        stats.program = shown(hello.program)
        stats.bytes_in += self.stats.bytes_in
        stats.bytes_out += self.stats.bytes_out
        stats.frames_in += self.stats.frames_in
        stats.frames_out += self.stats.frames_out
        stats.last_received = self.stats.last_received
        self.stats = stats
        self._reader.expect(frame_types)

    def check_certificate(self, hello: Hello) -> None:
        """Whether the certificate is that of the node which the handshake names. Raises Refused."""
        certificate = self.certificate
        if certificate is None or certificate.identity == Identity(Kind.NODE, hello.name):
            return
        reason = "tls_name" if certificate.identity.kind is Kind.NODE else "tls_role"
        raise Refused(
            reason, f"{hello.name!r} has the certificate of {certificate.identity} and not its own"
        )

    def message_received(self, frame: wire.Frame) -> None:
        """Decode a Raft message and hand it over."""
        try:
            message = codec.decode_message(frame)
        except FrameError as error:
            self.reject(error.reason, str(error))
            return
        self.local.handlers.on_message(self.member_id, message)

    def is_from_peer(self, frame: wire.Frame) -> bool:
        """Whether the header names the member that the handshake named; else closes."""
        if frame.sender == self.member_id:
            return True
        self.reject("sender", f"frame from {frame.sender:016x} on a connection of another member")
        return False

    def version_in(self, frame: wire.Frame) -> int:
        """What a frame about cluster versions says; 0 when it says nothing, which closes."""
        try:
            return codec.decode_version(frame)
        except FrameError as error:
            self.reject(error.reason, str(error))
            return 0

    # --- sending ------------------------------------------------------------------------------

    def send(self, *frame: bytes, bulk: bool) -> bool:
        """Queue one frame, whole or in pieces; False when it was dropped. `bulk` frames leave the
        reserve alone.

        All frames of one turn of the loop go out with one write, in order.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            self.stats.dropped_frames += 1
            return False
        size = sum(map(len, frame))
        waiting = self.queued_bytes
        limit = SEND_LIMIT_BYTES if bulk else SEND_LIMIT_BYTES + SEND_RESERVE_BYTES
        # A single frame may be larger than the limit: it goes out when nothing else waits.
        if waiting and waiting + size > limit:
            self.stats.dropped_frames += 1
            return False
        if not self._queue:
            self.local.loop.call_soon(self._flush)
        self._queue += frame
        self._queue_bytes += size
        self._queue_frames += 1
        return True

    @property
    def queued_bytes(self) -> int:
        """What waits in this process to be sent."""
        buffered = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self._queue_bytes + buffered

    def _flush(self) -> None:
        queue = self._queue
        transport = self._transport
        if not queue or transport is None:
            return
        if not transport.is_closing():
            self.stats.frames_out += self._queue_frames
            self.stats.bytes_out += self._queue_bytes
            if len(queue) == 1:
                transport.write(queue[0])
            elif self._queue_bytes <= _COPIED_BYTES:
                transport.write(b"".join(queue))
            else:
                transport.writelines(queue)
        self._queue = []
        self._queue_bytes = 0
        self._queue_frames = 0

    # --- the end ------------------------------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    @property
    def certificate(self) -> PeerCertificate | None:
        """The other side's; None without TLS."""
        if self._transport is None or self.local.security is None:
            return None
        found: PeerCertificate | None = self._transport.get_extra_info("peer_certificate")
        return found

    @property
    def socket(self) -> Any:
        """The socket, for `platform.tcp_silence_us`; None when the connection is gone."""
        return None if self._transport is None else self._transport.get_extra_info("socket")

    @property
    def ends(self) -> tuple[tuple[str, int], tuple[str, int]] | None:
        """(IP address, port) here and there; None when the connection is gone."""
        if self._transport is None or self._transport.is_closing():
            return None
        here = self._transport.get_extra_info("sockname")
        there = self._transport.get_extra_info("peername")
        return (here[:2], there[:2]) if here and there else None

    def reject(self, reason: str, text: str) -> None:
        """Close at once because of what came (or did not come), with a log line and a counter."""
        self._record(reason, text)
        self.abort()

    def refuse(self, reason: str, text: str) -> None:
        """Like `reject`, but what was queued for the peer still goes out."""
        self._record(reason, text)
        self.close()

    def abort(self) -> None:
        """Close at once; what is queued is lost."""
        self.is_closing_by_us = True
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close after what is queued has gone out."""
        self._flush()
        self.is_closing_by_us = True
        if self._transport is not None:
            self._transport.close()

    def describe(self) -> str:
        """The other side, for people."""
        if not self.name:
            return self.peer_address
        return f"{self.name!r} ({self.peer_address})"

    def reject_host(self) -> str:
        """Whose log lines are limited together."""
        return self.peer_address.rpartition(":")[0]

    def _record(self, reason: str, text: str) -> None:
        self.local.rejects.record(
            reason, self.reject_host(), f"closed the connection with {self.describe()}: {text}"
        )

    def _watch_half_frame(self) -> None:
        self._half_frame_timer = self.local.loop.call_later(
            HALF_FRAME_S, self._look_at_half_frame, self._frames_read
        )

    def _look_at_half_frame(self, frames_read: int) -> None:
        self._half_frame_timer = None
        if self.is_closing or not self._reader.pending_bytes:
            return
        if frames_read != self._frames_read:
            self._watch_half_frame()
        else:
            self.reject("half_frame", f"a frame was not finished within {HALF_FRAME_S:g} s")

    def _handshake_is_late(self) -> None:
        self._handshake_timer = None
        self.reject("handshake_timeout", f"no complete handshake within {self.handshake_s:.1f} s")
