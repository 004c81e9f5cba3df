"""The node's place in the network: listens, dials every peer, and passes messages on.

There is one main connection per peer and direction of calls: our requests go out on the connection
that we dialled and the replies come back on it; the peer's requests come in on the one that it
dialled. Beside it there can be one for bulk, over which snapshots go.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from raft_agent.consensus import types
from raft_agent.platform import tcp_received_bytes, tcp_silence_us
from raft_agent.transport import codec
from raft_agent.transport.address import parse_address
from raft_agent.transport.connection import (
    Connection,
    Flow,
    Local,
    PeerStats,
    TransportHandlers,
)
from raft_agent.transport.dialling import PeerTarget, in_words
from raft_agent.transport.handshake import Hello, Purpose, Refused, check_known, said_by_another
from raft_agent.transport.inbound import InboundConnection
from raft_agent.transport.outbound import Dialer, OnReply, OutboundConnection
from raft_agent.transport.probe import ProbeFailed, probe
from raft_agent.transport.rejects import RejectLog
from raft_agent.transport.strangers import Strangers
from raft_agent.transport.unknown import check_unknown
from raft_agent.versions import CLUSTER_VERSIONS, Versions
from raft_agent.wire import FrameType

__all__ = [
    "Flow",
    "Hello",
    "PeerStats",
    "PeerTarget",
    "ProbeFailed",
    "Transport",
    "TransportHandlers",
]

if TYPE_CHECKING:
    from raft_agent.tls.security import Security

logger = logging.getLogger("raft.transport")

# Answered without waiting for a disk, so silence after them means that the peer is gone. A vote
# waits for the voter's disk, a new leader's read index for its no-op, and AppendEntries never go
# without heartbeats.
_ANSWERED_AT_ONCE = frozenset({types.PreVote, types.Heartbeat, types.BootstrapAsk})

_BACKLOG = 512
_CLOSE_TIMEOUT_S = 0.5


def _why_not_listening(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            "address already in use; end the program that listens there, or set server.listen_addr"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            "this machine has no such address; set server.listen_addr to one that it has, or to "
            f"0.0.0.0:{port}"
        )
    return in_words(error)


class Transport:
    """All connections with other members. Everything happens in the event loop that `start` ran in;
    no method blocks, and none calls a handler before it returns.
    """

    def __init__(
        self,
        *,
        member_id: int,
        name: str,
        cluster_id: str,
        listen_addr: str,
        election_timeout_max_ms: int,
        handlers: TransportHandlers,
        advertise_addr: str = "",
        seed: int | None = None,
        security: Security | None = None,
        versions: Versions = CLUSTER_VERSIONS,
    ) -> None:
        """`cluster_id`: 32 hexadecimal digits, or "" of a fresh node. `listen_addr`: "host:port" or
        "[v6]:port", port 0 takes a free one. `advertise_addr`: where others dial this node, told in
        the handshake; "" stands for the address that is listened on. `seed`: for the jitter.
        `security`: TLS for all connections; without it there is none. `versions`: the cluster
        versions that this program knows.
        """
        self._local = Local(
            member_id=member_id,
            name=name,
            cluster_id=cluster_id,
            address=advertise_addr or listen_addr,
            election_timeout_max_ms=election_timeout_max_ms,
            handlers=handlers,
            rejects=RejectLog(time.monotonic),
            security=security,
            versions=versions,
        )
        self._listen_addr = listen_addr
        self._rng = random.Random(seed)  # noqa: S311  (jitter)
        self._server: asyncio.Server | None = None
        self._dialers: list[Dialer] = []
        self._inbound: dict[int, InboundConnection] = {}
        self._inbound_bulk: dict[int, InboundConnection] = {}
        self._outbound: dict[int, OutboundConnection] = {}
        self._stats: dict[int, PeerStats] = {}
        self._names: dict[int, str] = {}
        self.strangers: Strangers[InboundConnection] = Strangers()
        self.serials: Iterator[int] = itertools.count(1)

    async def start(self) -> None:
        """Listen. Raises OSError that says which address can't be listened on and why."""
        self._local.loop = asyncio.get_running_loop()
        try:
            host, port = parse_address(self._listen_addr)
            self._server = await self._local.loop.create_server(
                self._accept, host, port, backlog=_BACKLOG
            )
        except ValueError as error:
            raise OSError(errno.EINVAL, f"can't listen: {error}") from error
        except OSError as error:
            text = _why_not_listening(error, port)
            raise OSError(error.errno, f"can't listen on {self._listen_addr}: {text}") from error
        logger.info("listening on %s, port %d", self._listen_addr, self.listen_port)

    def _accept(self) -> asyncio.Protocol:
        return self._local.accepted(InboundConnection(self._local, self))

    @property
    def listen_port(self) -> int:
        """The port that is listened on (after `start`)."""
        if self._server is None:
            raise RuntimeError("the transport was not started")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def reject_counts(self) -> Counter[str]:
        """Refused connections and frames by reason, since the start: the reasons of
        wire.FrameError and handshake.Refused, "truncated", "handshake_timeout", "half_frame",
        "crowded" (too many strangers), "silence".
        """
        return self._local.rejects.counts

    def set_cluster(self, cluster_id: str) -> None:
        """This node has joined a cluster: later handshakes say so, and connections with members of
        another one end.
        """
        self._local.cluster_id = cluster_id
        for connection in list(self._local.open):
            if connection.cluster_id not in ("", cluster_id):
                text = f"it belongs to cluster {connection.cluster_id}, this node to {cluster_id}"
                connection.reject("cluster", text)

    def set_generation(self, generation: types.Generation) -> None:
        """This node is of this generation from now on: later handshakes say so, and connections
        with members of others end. Comes before `start`, too."""
        before, self._local.generation = self._local.generation, generation
        if generation.id == before.id:
            return
        for connection in list(self._local.open):
            if connection.member_id and connection.generation != generation.id:
                connection.reject("generation", "it is of another generation of the cluster")

    def set_versions(self, *, in_force: int, promised: int) -> None:
        """What later handshakes say of the cluster version: see Hello."""
        self._local.version_in_force = in_force
        self._local.version_promised = promised

    def set_peers(self, peers: Sequence[PeerTarget]) -> None:
        """Dial these members and no others, after `start`. Connections that lead to one of them at
        the same address stay. This node itself may be among them and is left out.

        A member id that is known is welcome under its own name only, in either direction.
        """
        self._names = {target.member_id: target.name for target in peers if target.member_id}
        kept: list[Dialer] = []
        new: list[PeerTarget] = []
        others = list(self._dialers)
        for target in peers:
            if self._is_self(target):
                continue
            dialer = next((dialer for dialer in others if dialer.serves(target)), None)
            if dialer is None:
                new.append(target)
            else:
                others.remove(dialer)
                dialer.target = target
                kept.append(dialer)
        for dialer in others:
            dialer.stop()
            if self._outbound_of(dialer) is not None:
                del self._outbound[dialer.member_id]
        made = [Dialer(target, self._local, self, self._rng) for target in new]
        self._dialers = kept + made
        for connection in (
            *self._inbound.values(),
            *self._inbound_bulk.values(),
            *self._outbound.values(),
        ):
            name = self._names.get(connection.member_id, connection.name)
            if name != connection.name:
                text = said_by_another(connection.member_id, name, connection.name)
                connection.reject("identity", text)
        self._forget_strangers()

    def send(self, to: int, message: types.Message) -> None:
        """Send to the member `to`: calls on the connection that we dialled, replies on the one that
        it dialled; snapshots and their replies on the ones for bulk. Dropped, and counted, when
        that does not stand or its queue is full.

        Raises ValueError when the message is too large for a frame.
        """
        kind = type(message)
        connection: Connection | None
        if kind is types.SnapshotReply:
            connection = self._inbound_bulk.get(to)
        elif kind in codec.REPLIES:
            connection = self._inbound.get(to)
        else:
            connection = self._outbound.get(to)
        if connection is None:
            stats = self._stats.get(to)
            if stats is not None:
                stats.dropped_frames += 1
            return
        if isinstance(message, types.AppendEntries):
            # The most frequent by far, and the largest.
            connection.send(*codec.encode_append(self._local.member_id, message), bulk=True)
            return
        frame = codec.encode_message(self._local.member_id, message)
        bulk = kind is types.BootstrapInstall
        if not isinstance(connection, OutboundConnection):
            connection.send(frame, bulk=bulk)
        elif kind is types.SnapshotChunk:
            connection.send_bulk(frame)
        else:
            reply_due = message.request_id if kind in _ANSWERED_AT_ONCE else 0
            connection.call(frame, bulk=bulk, reply_due=reply_due)

    def forward(self, to: int, body: bytes, on_reply: OnReply) -> None:
        """Have the member `to` serve a request: its on_forward handler gets `body`. Later, exactly
        once: on_reply(reply, True); on_reply(None, True) when the connection was lost, so that the
        outcome is unknown; on_reply(None, False) when the request was not sent.

        Raises ValueError when `body` is too large for a frame.
        """
        connection = self._outbound.get(to)
        if connection is None:
            self._local.loop.call_soon(on_reply, None, False)
        else:
            connection.forward(body, on_reply)

    def known_versions(self) -> dict[int, Versions]:
        """The cluster versions that each peer knows to whom our connection stands."""
        return {
            member_id: connection.stats.versions
            for member_id, connection in self._outbound.items()
            if connection.stats.versions is not None
        }

    def agent_of(self, member_id: int) -> tuple[str, Versions | None]:
        """Which raft-agent a peer runs, and the cluster versions that it knows, by its last
        handshake; ("", None) when there was none."""
        stats = self._stats.get(member_id)
        return ("", None) if stats is None else (stats.program, stats.versions)

    def ask_version(self, to: int, version: int) -> None:
        """Ask the member `to` to promise a cluster version; it answers by on_version_promise.
        Nothing comes when no connection stands."""
        connection = self._outbound.get(to)
        if connection is not None:
            member_id = self._local.member_id
            frame = codec.encode_version(FrameType.VERSION_ASK, member_id, version)
            connection.send(frame, bulk=False)

    def promise_version(self, to: int, version: int) -> None:
        """Answer the member `to`, which asked."""
        connection = self._inbound.get(to)
        if connection is not None:
            member_id = self._local.member_id
            frame = codec.encode_version(FrameType.VERSION_PROMISE, member_id, version)
            connection.send(frame, bulk=False)

    async def probe(self, address: str, timeout_s: float) -> Hello:
        """Ask who answers at `address`, in whatever cluster ("" in the answer: in none), without
        becoming its peer. It may be this node itself.

        Raises ProbeFailed, whose text says to people why nobody of use does.
        """
        return await probe(self._local, address, timeout_s)

    def peer_at(self, address: str) -> int:
        """The id of the member to whom our connection to this address of `set_peers` stands, else
        0.
        """
        for member_id, connection in self._outbound.items():
            if connection.dialer.target.address == address:
                return member_id
        return 0

    def certified_name(self, member_id: int) -> str:
        """Who dialled us by the certificate that it has shown; "" where there is no TLS."""
        connection = self._inbound.get(member_id)
        return connection.name if connection is not None and connection.certificate else ""

    def leader_silence_us(self, peer: int, term: int) -> int | None:
        """For how many microseconds the kernel has received nothing on the main connection that
        `peer` dialled, provided that its last frame was of `term`; None when that can't be told.
        """
        connection = self._inbound.get(peer)
        if connection is None or connection.last_term != term or connection.is_closing:
            return None
        return tcp_silence_us(connection.socket)

    def flows(self) -> list[Flow]:
        """Every connection with a peer whose handshake is done."""
        found = []
        for connection in self._local.open:
            ends = connection.ends
            if connection.member_id and ends is not None:
                received = tcp_received_bytes(connection.socket)
                found.append(Flow(connection.member_id, *ends, received))
        return found

    def stats(self) -> dict[int, PeerStats]:
        """A copy of the numbers of every peer that was reached or that reached us, by member id."""
        copies = {}
        for member_id, stats in self._stats.items():
            outbound = self._outbound.get(member_id)
            inbound = self._inbound.get(member_id)
            link = None if outbound is None else outbound.bulk
            ways = (outbound, inbound, link, self._inbound_bulk.get(member_id))
            copies[member_id] = msgspec.structs.replace(
                stats,
                connected=outbound is not None,
                connected_inbound=inbound is not None,
                connected_bulk=link is not None and link.connection is not None,
                queued_bytes=sum(way.queued_bytes for way in ways if way is not None),
            )
        return copies

    def announced(self, member_id: int) -> str:
        """Where this member says that others dial it; "" while no connection with it stands. This
        node itself can be asked about, too."""
        if member_id == self._local.member_id:
            return self._local.address
        stats = self._stats.get(member_id)
        if stats is None or not (member_id in self._outbound or member_id in self._inbound):
            return ""
        return stats.address

    def problem(self, member_id: int) -> str:
        """Why no connection to this peer stands, in a few words for people, as in "connection
        refused"; "" when one does, before the first try and for ids that are not dialled.
        """
        if member_id in self._outbound:
            return ""
        return next((d.problem for d in self._dialers if d.member_id == member_id), "")

    async def close(self) -> None:
        """Stop listening and dialling, let what is queued go out for a moment, close everything."""
        self._local.closing = True
        for dialer in self._dialers:
            dialer.stop_dialling()
        self._dialers = []
        if self._server is not None:
            self._server.close()
        for close in (Connection.close, Connection.abort):
            ends = [connection.ended for connection in self._local.open]
            for connection in list(self._local.open):
                close(connection)
            if ends:
                await asyncio.wait(ends, timeout=_CLOSE_TIMEOUT_S)
        if self._server is not None:
            await self._server.wait_closed()

    # --- what the connections tell ------------------------------------------------------------

    def inbound_stands(self, connection: InboundConnection, hello: Hello) -> PeerStats:
        """A peer's connection to us has finished its handshake. Raises Refused when a newer one
        stands or when the configuration contradicts what it says.

        The one that the peer dialled last counts: it dials anew only when it has given the old one
        up. After a pause of this process several may be read in any order.
        """
        check_known(self._names, self._local.hello(), hello)
        standing = self._standing(connection)
        check_unknown(hello, self._names, standing)
        older = standing.get(hello.member_id)
        if older is not None:
            if older.serial > connection.serial:
                raise Refused("superseded", f"a newer connection from {hello.name!r} stands")
            logger.debug("a newer connection from %s takes over", older.describe())
            older.abort()
        standing[hello.member_id] = connection
        for dialer in self._dialers:
            if dialer.member_id == hello.member_id:
                dialer.wake()
        return self._stats.setdefault(hello.member_id, PeerStats())

    def inbound_lost(self, connection: InboundConnection) -> None:
        """A peer's connection to us has ended."""
        standing = self._standing(connection)
        if standing.get(connection.member_id) is connection:
            del standing[connection.member_id]
            self._forget_strangers()

    def outbound_stands(self, connection: OutboundConnection, hello: Hello) -> PeerStats:
        """Our connection to a peer has finished its handshake. Raises Refused when another one
        leads to the same member.
        """
        if hello.member_id in self._outbound:
            raise Refused(
                "duplicate", f"{hello.name!r} answers there, to whom a connection stands already"
            )
        self._outbound[hello.member_id] = connection
        stats = self._stats.setdefault(hello.member_id, PeerStats())
        stats.reconnects += connection.dialer.has_stood
        return stats

    def outbound_lost(self, connection: OutboundConnection) -> None:
        """Our connection to a peer has ended."""
        if self._outbound.get(connection.member_id) is connection:
            del self._outbound[connection.member_id]
            self._forget_strangers()
        if not self._local.closing:
            self._local.handlers.on_peer_down(connection.member_id)

    def _standing(self, connection: InboundConnection) -> dict[int, InboundConnection]:
        return self._inbound_bulk if connection.purpose == Purpose.BULK else self._inbound

    def _is_self(self, target: PeerTarget) -> bool:
        if target.member_id:
            return target.member_id == self._local.member_id
        if target.name:
            return target.name == self._local.name
        return target.address == self._local.address

    def _outbound_of(self, dialer: Dialer) -> OutboundConnection | None:
        connection = self._outbound.get(dialer.member_id)
        return connection if connection is not None and connection.dialer is dialer else None

    def _forget_strangers(self) -> None:
        """Anybody can claim any member id: numbers are kept of peers and open connections only."""
        known = {dialer.member_id for dialer in self._dialers}
        for member_id in list(self._stats):
            if member_id not in known and not any(
                member_id in standing
                for standing in (self._inbound, self._inbound_bulk, self._outbound)
            ):
                del self._stats[member_id]
