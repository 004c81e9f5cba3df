"""The API: over the Unix socket for programs of the same machine, over TLS for those of others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from raft_agent import wire
from raft_agent.api import problems, protocol
from raft_agent.api.caller import Caller, error_of
from raft_agent.api.connection import ClientConnection
from raft_agent.api.host import Failure, Host
from raft_agent.api.limits import MAX_REFUSED_CONNECTIONS, Crowd
from raft_agent.api.listener import BACKLOG, UnixListener
from raft_agent.api.protocol import Error, ErrorCode
from raft_agent.api.requests import RequestHandlers
from raft_agent.api.rights import Principal, of_identity, of_node, of_socket
from raft_agent.api.salvage import UnreadableError, decode_request
from raft_agent.api.turn import Turn
from raft_agent.tls.identity import Identity

_log = logging.getLogger("raft.api")

_CLOSE_TIMEOUT_S = 1.0


class ApiServer:
    """Serves clients of `host` at `socket_path`: mode 0600, or 0660 for `group`."""

    def __init__(self, host: Host, *, socket_path: Path, group: str | None) -> None:
        self._connections: set[ClientConnection] = set()
        self._crowd = Crowd(self._connections)
        self._handlers = RequestHandlers(host, self._crowd)
        self._path = socket_path
        self._group = group
        self._listener: UnixListener | None = None
        self._server: asyncio.Server | None = None
        self._turn = Turn()
        self._all_gone = asyncio.Event()

    async def start(self) -> None:
        """Listen. Raises SocketUnavailableError when the socket can't be made, or when an agent
        answers there already."""
        self._listener = UnixListener(self._path, self._group)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            self._accept, sock=self._listener.socket, backlog=BACKLOG
        )
        _log.info("listening for clients at %s", self._path)

    async def close(self) -> None:
        """Stop listening, end the streams, write what clients read at once, and close."""
        self._crowd.stop()
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._listener is not None:
            self._listener.remove()
            self._listener = None
        for connection in list(self._connections):
            connection.shut_down()
        if self._connections:
            self._all_gone.clear()
            try:
                await asyncio.wait_for(self._all_gone.wait(), _CLOSE_TIMEOUT_S)
            except TimeoutError:
                # Who does not read would keep the node from ending.
                for connection in list(self._connections):
                    connection.abort()
                await self._all_gone.wait()

    @property
    def connection_count(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def end_streams(self, failure: Failure) -> None:
        """Nothing of the state is pushed any more; whoever watches it is told why."""
        for connection in self._connections:
            connection.end_watches(error_of(failure))

    def remote_client(self, identity: Identity) -> ClientConnection:
        """What serves a client on another machine, who has shown the certificate of `identity`: the
        protocol of a connection that takes and gives whole frames.
        """
        admit = partial(_remote, identity)
        return ClientConnection(
            self._handlers,
            self._turn,
            self._crowd,
            admit,
            opened=self._connected,
            closed=self._disconnected,
        )

    def serve_forwarded(
        self,
        body: bytes,
        reply: Callable[[bytes], None],
        sender: str = "another node",
        *,
        is_member: bool = True,
        certified: str = "",
    ) -> None:
        """Serve a request that the node `sender` forwarded: `body` is one request array in
        MessagePack (not an array of them). `is_member`: whether the configuration has the node,
        which has checked who asks then; `certified`: its name, if a certificate says so. `reply`
        gets the encoded Reply, now or later, exactly once.
        """
        try:
            request = decode_request(body)
        except UnreadableError as error:
            request = 0, Error(f"Bad request: {error}", ErrorCode.BAD_REQUEST)
        if isinstance(request, tuple):
            reply(_failed(*request))
            return
        caller = _ForwardedCaller(
            reply, of_node(sender, request, is_member=is_member, certified=certified)
        )
        self._handlers.handle(caller, request)
        self._handlers.finish()

    def _accept(self) -> ClientConnection:
        return ClientConnection(
            self._handlers,
            self._turn,
            self._crowd,
            self._local,
            opened=self._connected,
            closed=self._disconnected,
        )

    def _local(self, transport: asyncio.Transport) -> Principal:
        group_id = None if self._listener is None else self._listener.group_id
        return of_socket(transport.get_extra_info("socket"), group_id)

    def _connected(self, connection: ClientConnection) -> None:
        if self._server is None:  # it was accepted a moment before the server was closed
            connection.abort()
            return
        self._connections.add(connection)
        self._crowd.watch()
        refusal = self._crowd.too_many_connections(len(self._connections))
        if refusal is None:
            return
        if len(self._connections) > self._crowd.max_connections + MAX_REFUSED_CONNECTIONS:
            connection.abort()
        else:
            connection.turn_away(refusal)

    def _disconnected(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_gone.set()


def _remote(identity: Identity, transport: asyncio.Transport) -> Principal:
    host, port = (transport.get_extra_info("peername") or ("an unknown address", 0))[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return of_identity(identity, address)


def _failed(request_id: int, error: Error) -> bytes:
    return protocol.ENCODER.encode((request_id, error, None))


class _ForwardedCaller(Caller):
    """Another agent on behalf of its client: one request, one answer, no streams."""

    may_forward = False

    def __init__(self, answer: Callable[[bytes], None], principal: Principal) -> None:
        super().__init__(principal)
        self._answer = answer

    def reply(self, request_id: int, result: object, data_bytes: int = 0) -> None:  # noqa: ARG002
        body = protocol.ENCODER.encode((request_id, None, result))
        if len(body) > wire.MAX_BODY_BYTES:
            self.fail(request_id, problems.too_large("answer", len(body), wire.MAX_BODY_BYTES))
        else:
            self._answer(body)

    def fail(self, request_id: int, error: Error) -> None:
        self._answer(_failed(request_id, error))

    def push(self, stream_id: int, item: object, data_bytes: int) -> None:
        raise NotImplementedError("a forwarded request has no streams")

    def push_end(self, stream_id: int, error: Error) -> None:
        raise NotImplementedError("a forwarded request has no streams")

    def forget_pushes(self, stream_id: int) -> None:
        """There is nothing queued: streams can't be forwarded."""

    def unsent_bytes(self) -> int:
        return 0
