"""A small blocking client; what `raftctl` uses, so it must import fast."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from raft_agent import wire
from raft_agent.api import protocol
from raft_agent.api.answers import (
    AgentNotReachable,
    AnswerUnreadable,
    OutcomeUnknown,
    RaftClientError,
    RequestFailed,
    item_of,
    no_answer,
    read_replies,
    result_of,
)
from raft_agent.api.attempts import WRONG_TIME, Attempts

if TYPE_CHECKING:
    from raft_agent.api.endpoint import Endpoint, SealedSocket
    from raft_agent.backup import BackupInfo

__all__ = [
    "AgentNotReachable",
    "AnswerUnreadable",
    "OutcomeUnknown",
    "RequestFailed",
    "SyncClient",
]

_REPLY_TYPES = frozenset({int(wire.FrameType.CLIENT_REPLY), int(wire.FrameType.CLIENT_PUSH)})
_READ_BYTES = 1 << 18
_FRAME_REQUESTS = 1000
_FRAME_BYTES = 1 << 20
_PAUSE_S = 0.05
# An agent whose machine stands still must not hold up a backup for ever.
_SNAPSHOT_PATIENCE_S = 60.0
# A one-shot's deadline is so far behind the last attempt, so that clocks may differ by that much.
_CLOCK_SLACK_MS = 30_000
_MAX_TTL_MS = 300_000

# Writes that can be numbered, so that each is applied once however often it is sent.
_Numbered: TypeAlias = (
    protocol.Put
    | protocol.Delete
    | protocol.Send
    | protocol.Txn
    | protocol.LeaseGrant
    | protocol.LeaseRevoke
)

_monotonic = time.monotonic

# Inside the class `list` is the method.
Results: TypeAlias = list[Any]


class SyncClient:
    """One connection to an agent; a context manager. Not for several threads at once.

    `agent` is the path of its Unix socket, or an Endpoint for one on another machine.

    `timeout_s` is for connecting, and for each answer. After an exception other than RequestFailed
    the connection is closed. Raises AgentNotReachable when nobody answers there.

    Writes are applied once: within `timeout_s` they are sent again over new connections until there
    is an answer. Agents pass them on to the leader.
    """

    def __init__(self, agent: str | Endpoint, timeout_s: float = 5.0) -> None:
        self._agent = agent
        self._socket: socket.socket | SealedSocket
        self._timeout_s = timeout_s
        self._reader = wire.FrameReader(_REPLY_TYPES)
        self._received: list[tuple[int, list[protocol.Reply]]] = []  # (frame type, replies)
        # What the log's time is ahead of this machine's clock, as far as that has shown.
        self._clock_offset_ms = 0
        self._connect()

    def _connect(self) -> None:
        if not isinstance(self._agent, str):
            self._dial(self._agent)
            return
        self._socket = connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._timeout_s)
        try:
            connection.connect(self._agent)
        except OSError as error:
            connection.close()
            raise AgentNotReachable(f"{self._agent}: {_reason(error)}") from error

    def _dial(self, endpoint: Endpoint) -> None:
        from raft_agent.api.endpoint import GREETING  # noqa: PLC0415  # TLS is for those who use it

        try:
            self._socket = endpoint.dial(self._timeout_s)
        except OSError as error:
            raise AgentNotReachable(f"{endpoint}: {_reason(error)}") from error
        with contextlib.suppress(RequestFailed):
            self.request(GREETING)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(
        self, key: str, value: bytes, *, if_revision: int = -1, lease: int = 0
    ) -> protocol.WriteResult:
        """Store a key. `if_revision`: only at that revision (0: absent), else RequestFailed with
        the code CONFLICT. `lease`: the key ends with it; LEASE_NOT_FOUND when there is none."""
        return self.write(protocol.Put(1, key, value, if_revision, True, None, lease))  # type: ignore[no-any-return]

    def delete(self, key: str, *, if_revision: int = -1) -> protocol.WriteResult:
        """Remove a key; `deleted` of the result is 0 when there was none."""
        return self.write(protocol.Delete(1, key, if_revision, True))  # type: ignore[no-any-return]

    def send(self, text: str) -> protocol.WriteResult:
        """Append a text to the message log."""
        return self.write(protocol.Send(1, text, True))  # type: ignore[no-any-return]

    def get(
        self,
        key: str,
        *,
        consistency: protocol.Consistency = protocol.Consistency.LINEARIZABLE,
    ) -> protocol.KeyValue | None:
        """The key as it stands, or None."""
        try:
            return self.request(protocol.Get(1, key, consistency))  # type: ignore[no-any-return]
        except RequestFailed as error:
            if error.code is protocol.ErrorCode.KEY_NOT_FOUND:
                return None
            raise

    def list(
        self,
        prefix: str = "",
        *,
        limit: int = 1000,
        after: str = "",
        consistency: protocol.Consistency = protocol.Consistency.LINEARIZABLE,
    ) -> protocol.ListResult:
        """Keys that start with `prefix`, in byte order; while `more`, go on after the last one."""
        return self.request(protocol.List(1, prefix, limit, after, consistency))  # type: ignore[no-any-return]

    def txn(
        self,
        compares: Sequence[protocol.Compare],
        then: Sequence[protocol.Operation],
        otherwise: Sequence[protocol.Operation] = (),
    ) -> protocol.TxnResult:
        """Do `then` when all `compares` hold, else `otherwise`: all of it at one revision, or
        nothing. `succeeded` of the result tells which."""
        request = protocol.Txn(1, [*compares], [*then], [*otherwise], True)
        return self.write(request)  # type: ignore[no-any-return]

    def lease_grant(self, ttl_s: float) -> protocol.LeaseResult:
        """A lease, which ends when it is not kept alive for `ttl_s` (1 s to a year), and all keys
        with it that were put with it."""
        return self.write(protocol.LeaseGrant(1, round(ttl_s * 1000), True))  # type: ignore[no-any-return]

    def lease_keepalive(self, lease: int) -> protocol.LeaseResult:
        """Give a lease all of its time again. RequestFailed with LEASE_NOT_FOUND when it has
        ended."""
        return self.request(protocol.LeaseKeepalive(1, lease, True))  # type: ignore[no-any-return]

    def lease_revoke(self, lease: int) -> protocol.WriteResult:
        """End a lease and delete its keys; `deleted` of the result counts them."""
        return self.write(protocol.LeaseRevoke(1, lease, True))  # type: ignore[no-any-return]

    def write(self, request: protocol.Request, *, is_patient: bool = True) -> Any:
        """The result of `request`. A write that can be numbered is numbered here, and sent again
        until it is answered; the agents see to it that it is applied once. Anything else is sent
        one time.

        `is_patient`: wait for a leader, too, within `timeout_s`. Else what has certainly changed
        nothing is raised at once. Raises OutcomeUnknown when a copy was sent and no answer came,
        RequestFailed when the agent refuses, AgentNotReachable when it is not there.
        """
        if not isinstance(request, _Numbered):
            return self.request(request)
        give_up_at = _monotonic() + self._timeout_s
        copy = self._numbered(request)
        attempts = Attempts(copy)
        while True:
            left_s = give_up_at - _monotonic()
            try:
                # An agent that hangs must not use up the time in which another may be started.
                return self._attempt(
                    copy, min(left_s, self._timeout_s / 3) if is_patient else left_s
                )
            except RaftClientError as error:
                is_last = _monotonic() + _PAUSE_S > give_up_at
                is_unchanged = not (attempts.in_doubt or isinstance(error, OutcomeUnknown))
                if (
                    is_unchanged
                    and isinstance(error, RequestFailed)
                    and error.code in WRONG_TIME
                    and not is_last
                ):
                    # Nothing was applied, so it can be said anew in the cluster's time.
                    self._clock_offset_ms = error.time_ms - time.time_ns() // 1_000_000
                    copy = self._numbered(request)
                    continue
                if is_unchanged and not is_patient:
                    raise
                attempts.failed(error, is_last=is_last)
            if attempts.in_doubt:
                # It was taken once; whoever leads by now may bring it to its end.
                copy = msgspec.structs.replace(copy, forward=True)
            time.sleep(_PAUSE_S)

    def _numbered(self, request: _Numbered) -> _Numbered:
        """`request` under a new id."""
        now_ms = time.time_ns() // 1_000_000 + self._clock_offset_ms
        ttl_ms = min(int(self._timeout_s * 1000) + _CLOCK_SLACK_MS, _MAX_TTL_MS)
        once = protocol.OneShot(os.urandom(16), max(now_ms + ttl_ms, 0))
        return msgspec.structs.replace(request, once=once)

    def _attempt(self, request: protocol.Request, limit_s: float) -> Any:
        """Ask within `limit_s`, rounded up to what people can read, over a new connection when the
        last one was lost."""
        timeout_s = self._timeout_s
        self._timeout_s = max(math.ceil(limit_s * 10) / 10, 0.1)
        try:
            if self._socket.fileno() < 0:
                self._reader = wire.FrameReader(_REPLY_TYPES)
                self._received = []
                self._connect()
            return self.request(request)
        finally:
            self._timeout_s = timeout_s

    def request(self, request: protocol.Request) -> Any:
        """The result of `request`, as protocol.RESULT_TYPES says.

        Raises RequestFailed when the agent refuses, OutcomeUnknown when a write was sent and no
        answer came, AgentNotReachable when a question was not answered.
        """
        return self.request_many([request])[0]

    def request_many(self, requests: Sequence[protocol.Request]) -> Results:
        """The results of `requests`, in their order; their ids must differ.

        Many travel in one frame, so the agent can serve them together. Raises like `request`, but
        RequestFailed only once all were answered that were sent with the one that failed.
        """
        if len({request.id for request in requests}) < len(requests):
            raise ValueError("two requests have the same id")
        results: Results = []
        for chunk in _chunks(requests):
            # One frame at a time: an agent whose replies we don't read would stop reading, too.
            self._send([request for request, _ in chunk], [data for _, data in chunk])
            replies = self._receive([request for request, _ in chunk])
            results += [result_of(request, replies[request.id]) for request, _ in chunk]
        return results

    def stream(
        self, request: protocol.Request, *, patience_s: float | None = None
    ) -> Iterator[Any]:
        """What a watch (or Events with follow) gives: first its StreamStarted, then its items as
        protocol.ITEM_TYPES says, waiting for each as long as it takes, or for `patience_s`.

        The connection serves nothing else from then on. Raises RequestFailed when the agent refuses
        or ends the stream, AgentNotReachable when the connection is lost.
        """
        self._send([request], [protocol.ENCODER.encode(request)])
        started = self._receive([request], keep_pushes=True)[request.id]
        yield result_of(request, started)
        self._socket.settimeout(patience_s)
        while True:
            received, self._received = self._received, []
            for _, replies in received:
                for reply in replies:
                    yield item_of(request, reply)
            try:
                self._read_frames()
            except OSError as error:
                self.close()
                raise AgentNotReachable(f"{self._agent}: {_reason(error)}") from error

    def save_snapshot(
        self,
        path: str,
        *,
        force: bool = False,
        on_progress: Callable[[float, int], None] = lambda _part, _size_bytes: None,
    ) -> BackupInfo:
        """Write a backup of the cluster to `path`, which is not there yet unless `force`: all that
        was acknowledged before. It gets its name only when all of it was checked and is durable.
        `on_progress(part, size_bytes)`: about which part of it is done, from 0 to 1.

        The connection serves nothing else from then on. Raises BackupError when it can't be
        written, AgentNotReachable when the connection is lost, RequestFailed when the agent refuses
        or gives up.
        """
        from raft_agent.backup import NewBackup  # noqa: PLC0415  (few programs need it)

        backup = NewBackup(Path(path), force=force)
        try:
            pieces = self.stream(protocol.SnapshotSave(1), patience_s=_SNAPSHOT_PATIENCE_S)
            next(pieces)
            for piece in pieces:
                backup.append(piece.data)
                on_progress(piece.progress, backup.size_bytes)
                if piece.is_last:
                    break
            return backup.finish()
        finally:
            backup.close()

    def _send(self, requests: Sequence[protocol.Request], encoded: Sequence[bytes]) -> None:
        body = _array(encoded)
        if len(body) > wire.MAX_BODY_BYTES:
            raise RequestFailed(
                f"The request of {len(body)} bytes is over the limit of {wire.MAX_BODY_BYTES}",
                protocol.ErrorCode.TOO_LARGE,
            )
        frame = wire.encode(wire.FrameType.CLIENT_REQUEST, body, count=len(requests))
        self._socket.settimeout(self._timeout_s)
        try:
            self._socket.sendall(frame)
        except OSError as error:
            # An agent does nothing with a frame that is cut short, so nothing has changed.
            self.close()
            raise AgentNotReachable(f"{self._agent}: {_reason(error)}") from error

    def _receive(
        self, requests: Sequence[protocol.Request], *, keep_pushes: bool = False
    ) -> dict[int, protocol.Reply]:
        """The replies to all of `requests`, by id."""
        waiting = {request.id: request for request in requests}
        replies: dict[int, protocol.Reply] = {}
        deadline = _monotonic() + self._timeout_s
        while True:
            received, self._received = self._received, []
            for frame_type, items in received:
                if frame_type == wire.FrameType.CLIENT_PUSH:
                    if keep_pushes:
                        self._received.append((frame_type, items))
                    continue
                for reply in items:
                    if waiting.pop(reply.id, None) is not None:
                        replies[reply.id] = reply
                deadline = _monotonic() + self._timeout_s
            if not waiting:
                return replies
            try:
                self._socket.settimeout(max(deadline - _monotonic(), 0.001))
                self._read_frames()
            except OSError as error:
                self.close()
                reason = f"{self._agent}: {_reason(error)}"
                if isinstance(error, TimeoutError):
                    reason = f"no answer from {self._agent} within {self._timeout_s:g} s"
                unanswered = list(waiting.values())
                writes = [item for item in unanswered if isinstance(item, protocol.WRITES)]
                raise no_answer((writes or unanswered)[0], reason) from error

    def _read_frames(self) -> None:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("the agent closed the connection")
        try:
            for frame in self._reader.feed(data):
                self._received.append((frame.type, read_replies(frame.body)))
        except ValueError as error:  # also wire.FrameError
            raise ConnectionAbortedError(f"what answers there is no agent: {error}") from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _array(encoded: Sequence[bytes]) -> bytes:
    """The MessagePack array of these encoded elements."""
    size = len(encoded)
    head = bytes((0x90 | size,)) if size < 16 else b"\xdc" + size.to_bytes(2, "big")
    return head + b"".join(encoded)


def _chunks(
    requests: Sequence[protocol.Request],
) -> Iterator[list[tuple[protocol.Request, bytes]]]:
    """The requests with their encodings, in portions of which each fits one frame."""
    chunk: list[tuple[protocol.Request, bytes]] = []
    size = 0
    for request in requests:
        data = protocol.ENCODER.encode(request)
        if chunk and (len(chunk) >= _FRAME_REQUESTS or size + len(data) > _FRAME_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((request, data))
        size += len(data)
    if chunk:
        yield chunk
