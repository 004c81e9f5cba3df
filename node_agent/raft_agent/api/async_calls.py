"""What the client for asyncio can be asked for: one method per request."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raft_agent.api import protocol
from raft_agent.api.answers import RequestFailed
from raft_agent.api.link import Link
from raft_agent.api.lock import Lock
from raft_agent.api.protocol import Consistency, ErrorCode
from raft_agent.api.watch import KeyWatch, Watch

if TYPE_CHECKING:
    from raft_agent.backup import BackupInfo

# How often a watch hears that it has missed nothing.
BOOKMARK_MS = 10_000


class Calls(ABC):
    """The requests of `Client`, which sends them."""

    _forward: bool

    @abstractmethod
    async def request(self, request: protocol.Request) -> Any: ...

    @abstractmethod
    async def _write(self, make: Callable[[protocol.Once], protocol.Request]) -> Any:
        """The result of a write, which is applied once however often it has to be sent."""

    @abstractmethod
    async def connect(self, deadline: float) -> Link: ...

    @abstractmethod
    async def may_go_on(self, deadline: float) -> bool: ...

    @property
    @abstractmethod
    def has_others(self) -> bool: ...

    @abstractmethod
    def deadline(self) -> float: ...

    async def put(
        self, key: str, value: bytes, *, if_revision: int = -1, lease: int = 0
    ) -> protocol.WriteResult:
        """Store a key. `if_revision`: only at that revision (0: absent), else RequestFailed with
        the code CONFLICT. `lease`: the key ends with it; RequestFailed with LEASE_NOT_FOUND when
        there is no such lease."""
        return await self._write(  # type: ignore[no-any-return]
            lambda once: protocol.Put(0, key, value, if_revision, self._forward, once, lease)
        )

    async def delete(self, key: str, *, if_revision: int = -1) -> protocol.WriteResult:
        """Remove a key; `deleted` of the result is 0 when there was none."""
        return await self._write(  # type: ignore[no-any-return]
            lambda once: protocol.Delete(0, key, if_revision, self._forward, once)
        )

    async def get(
        self, key: str, *, consistency: Consistency = Consistency.LINEARIZABLE
    ) -> protocol.KeyValue | None:
        """The key as it stands, or None."""
        try:
            return await self.request(protocol.Get(0, key, consistency))  # type: ignore[no-any-return]
        except RequestFailed as error:
            if error.code is ErrorCode.KEY_NOT_FOUND:
                return None
            raise

    async def list(
        self,
        prefix: str = "",
        *,
        limit: int = 1000,
        after: str = "",
        consistency: Consistency = Consistency.LINEARIZABLE,
    ) -> protocol.ListResult:
        """Keys that start with `prefix`, in byte order; while `more`, go on after the last one."""
        return await self.request(protocol.List(0, prefix, limit, after, consistency))  # type: ignore[no-any-return]

    async def scan(
        self, prefix: str = "", *, consistency: Consistency = Consistency.LINEARIZABLE
    ) -> AsyncIterator[protocol.KeyValue]:
        """All keys that start with `prefix`, in byte order, page by page: what is written meanwhile
        may be among them or not. To go on with a watch, begin it at the first page's revision."""
        after = ""
        while True:
            page = await self.list(prefix, after=after, consistency=consistency)
            for item in page.keys:
                yield item
            if not page.more:
                return
            after = page.keys[-1].key

    async def txn(
        self,
        compares: Sequence[protocol.Compare],
        then: Sequence[protocol.Operation],
        otherwise: Sequence[protocol.Operation] = (),
    ) -> protocol.TxnResult:
        """Do `then` when all `compares` hold, else `otherwise`: all of it at one revision, or
        nothing. `succeeded` of the result tells which. RequestFailed with LEASE_NOT_FOUND when a
        key was to end with a lease that is not there."""
        return await self._write(  # type: ignore[no-any-return]
            lambda once: protocol.Txn(
                0, list(compares), list(then), list(otherwise), self._forward, once
            )
        )

    async def lease_grant(self, ttl_s: float) -> protocol.LeaseResult:
        """A lease, which ends when it is not kept alive for `ttl_s` (1 s to a year), and all keys
        with it that were put with it."""
        ttl_ms = round(ttl_s * 1000)
        return await self._write(  # type: ignore[no-any-return]
            lambda once: protocol.LeaseGrant(0, ttl_ms, self._forward, once)
        )

    async def lease_keepalive(self, lease: int) -> protocol.LeaseResult:
        """Give a lease all of its time again. RequestFailed with LEASE_NOT_FOUND when it has
        ended."""
        return await self.request(protocol.LeaseKeepalive(0, lease, self._forward))  # type: ignore[no-any-return]

    async def lease_revoke(self, lease: int) -> protocol.WriteResult:
        """End a lease and delete its keys; `deleted` of the result counts them."""
        return await self._write(  # type: ignore[no-any-return]
            lambda once: protocol.LeaseRevoke(0, lease, self._forward, once)
        )

    async def lease_list(self) -> Sequence[protocol.LeaseInfo]:
        return (await self.request(protocol.LeaseList(0))).leases  # type: ignore[no-any-return]

    async def lease_show(self, lease: int) -> protocol.LeaseInfo:
        """One lease and its keys. RequestFailed with LEASE_NOT_FOUND when there is none."""
        return await self.request(protocol.LeaseShow(0, lease))  # type: ignore[no-any-return]

    def lock(self, name: str, *, ttl_s: float = 10.0) -> Lock:
        """A lock that this client takes with `async with`, and loses when it can't keep its lease
        of `ttl_s` alive."""
        return Lock(self, name, ttl_s=ttl_s)

    async def send(self, text: str) -> protocol.WriteResult:
        """Append a text to the message log."""
        return await self._write(  # type: ignore[no-any-return]
            lambda once: protocol.Send(0, text, self._forward, "", once)
        )

    async def messages(self, limit: int = 10) -> protocol.MessagesResult:
        """The newest messages, newest first, as the agent asked has applied them."""
        return await self.request(protocol.Messages(0, limit))  # type: ignore[no-any-return]

    async def status(self) -> protocol.StatusResult:
        return await self.request(protocol.Status(0))  # type: ignore[no-any-return]

    async def health(self) -> protocol.HealthResult:
        return await self.request(protocol.Health(0))  # type: ignore[no-any-return]

    async def member_list(self) -> protocol.MemberListResult:
        return await self.request(protocol.MemberList(0))  # type: ignore[no-any-return]

    async def events(self, limit: int = 100) -> protocol.EventsResult:
        """The newest events of the agent asked, oldest first."""
        return await self.request(protocol.Events(0, limit))  # type: ignore[no-any-return]

    async def leader_transfer(self, target: str = "") -> protocol.TransferResult:
        """Hand leadership over to the member `target`, or to the one that is furthest."""
        return await self.request(protocol.LeaderTransfer(0, target, self._forward))  # type: ignore[no-any-return]

    async def save_snapshot(
        self,
        path: str,
        *,
        force: bool = False,
        on_progress: Callable[[float, int], None] = lambda _part, _size_bytes: None,
    ) -> BackupInfo:
        """Write a backup of the cluster to `path`, which is not there yet unless `force`: all that
        was acknowledged before. It gets its name only when all of it was checked and is durable.
        `on_progress(part, size_bytes)`: about which part of it is done, from 0 to 1.

        Raises BackupError when it can't be written, AgentNotReachable when the connection is lost,
        RequestFailed when the agent refuses or gives up.
        """
        from raft_agent.backup import NewBackup  # noqa: PLC0415  (few programs need it)

        backup = await asyncio.to_thread(NewBackup, Path(path), force=force)
        link: Link | None = None
        try:
            link = await self.connect(self.deadline())
            await link.ask(protocol.SnapshotSave(1))
            is_last = False
            while not is_last:
                piece: protocol.SnapshotPiece = await link.next_item()
                await asyncio.to_thread(backup.append, piece.data)
                on_progress(piece.progress, backup.size_bytes)
                is_last = piece.is_last
            return await asyncio.to_thread(backup.finish)
        finally:
            if link is not None:
                link.close()
            backup.close()

    def watch_keys(
        self,
        key: str,
        *,
        prefix: bool = False,
        from_revision: int = 0,
        bookmarks: bool = False,
        bookmark_ms: int = BOOKMARK_MS,
    ) -> KeyWatch:
        """Changes of a key, or with `prefix` of all keys that start with it: from now on, or those
        of the store's revision `from_revision` and later. Goes on at another agent when the
        connection is lost, without missing or repeating any. Raises HistoryCompacted when not all
        of them are kept. `bookmarks`: give events of the type "bookmark", too; `bookmark_ms`: how
        often the agent sends one when the store has moved on."""
        request = protocol.WatchKeys(1, key, prefix, from_revision, bookmark_ms)
        return KeyWatch(self, request, bookmarks=bookmarks)

    def watch_messages(self, after_index: int = -1) -> Watch[protocol.MessageItem]:
        """Messages after a log index (-1: from now on). Goes on at another agent when the
        connection is lost, without missing or repeating any. Raises RequestFailed when some are
        not kept any more."""
        return Watch(self, protocol.WatchMessages(1, after_index))

    def follow_events(self, limit: int = 0) -> Watch[protocol.EventItem]:
        """The newest `limit` events of one agent, and new ones as they happen."""
        return Watch(self, protocol.Events(1, limit, True))
