"""Locks on leases: first come, first served, and lost by who does not keep its lease alive.

Who wants the lock puts a key of its own under the lock's name, with a lease. The revision at which
that key was created is its place in the queue: who has the smallest holds the lock, and the others
wait for the key before theirs to go. It is the fencing token, too: whoever holds the lock later has
a greater one, so what the lock protects can tell a holder that was stopped for longer than its
lease, and does not know yet that it has lost the lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from raft_agent.api import protocol
from raft_agent.api.answers import HistoryCompacted, RaftClientError, RequestFailed
from raft_agent.api.protocol import ErrorCode
from raft_agent.platform import boot_time_ns

if TYPE_CHECKING:
    from raft_agent.api.async_calls import Calls

PREFIX = "lock/"
# A lease is kept alive so many times in its time.
_KEPT_ALIVE = 3
_RETRY_S = 0.2


class LockLost(RaftClientError):  # noqa: N818
    """The lease has ended, or could not be kept alive for all of its time: somebody else may hold
    the lock."""


def lock_prefix(name: str) -> str:
    """What the keys of all who hold the lock or wait for it start with."""
    return f"{PREFIX}{quote(name, safe='')}/"


class Lock:
    """The lock `name`; its lease lasts `ttl_s` unless it is kept alive, which is done for as long
    as the lock is held or waited for.

    With `async with`, or `acquire` and `release`. `token`: the fencing token while it is held, else
    0; `key` exists, with that create revision, exactly for as long as the lock is held, so that a
    transaction with `guard()` does nothing once it is lost. `lost` is set when that happens.
    """

    def __init__(self, client: Calls, name: str, *, ttl_s: float = 10.0) -> None:
        if not name:
            raise ValueError("a lock needs a name")
        self.name = name
        self.token = 0
        self.key = ""
        self.lost = asyncio.Event()
        self._client = client
        self._ttl_s = ttl_s
        self._lease = 0
        # Of the acquire that holds the lock or waits for it, one after the other.
        self._wanted: object | None = None
        self._keeper: asyncio.Task[None] | None = None
        # When the lease may have ended, in nanoseconds of CLOCK_BOOTTIME: it goes on while the
        # machine is suspended, and so does the leader's.
        self._ends_ns = 0

    async def __aenter__(self) -> Lock:
        await self.acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()

    def guard(self) -> protocol.Compare:
        """A compare that holds for as long as the lock is held."""
        return protocol.Compare(
            protocol.Target.CREATE_REVISION, self.key, protocol.Relation.EQUAL, self.token
        )

    async def acquire(
        self, timeout_s: float | None = None, *, waits: Callable[[str], None] | None = None
    ) -> int:
        """Wait for the lock, and hold it; the fencing token. `waits` is called with what whoever
        comes before left in its key, when somebody does.

        Raises TimeoutError after `timeout_s`, LockLost when the lease ended or `release` was called
        while it waited, RuntimeError when it is held or waited for already, and what requests
        raise. To leave the queue then takes one more request.
        """
        if self._wanted is not None:
            raise RuntimeError(f"the lock {self.name!r} is held or waited for already")
        wanted = self._wanted = object()
        self.lost.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._get_lease(wanted)
                self.key = f"{lock_prefix(self.name)}{self._lease:016x}"
                who = f"{socket.gethostname()} pid {os.getpid()}".encode()
                written = await self._client.put(self.key, who, if_revision=0, lease=self._lease)
                await self._my_turn(written.revision, waits)
                if self._wanted is not wanted:
                    raise self._released()
        except BaseException:
            if self._wanted is wanted:
                await self.release()
            raise
        self.token = written.revision
        return self.token

    async def release(self) -> None:
        """Give the lock back, or give up waiting. Nothing happens when it was lost."""
        keeper, self._keeper = self._keeper, None
        lease, self._lease, self.token = self._lease, 0, 0
        self._wanted = None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        if lease:
            await self._revoke(lease)

    async def _get_lease(self, wanted: object) -> None:
        """Get the lease, and keep it; unless `wanted` was given up meanwhile."""
        began_ns = boot_time_ns()
        lease = (await self._client.lease_grant(self._ttl_s)).lease
        if self._wanted is not wanted:
            await self._revoke(lease)
            raise self._released()
        self._lease = lease
        self._ends_ns = began_ns + int(self._ttl_s * 1e9)
        self._keeper = asyncio.create_task(self._keep())

    def _released(self) -> LockLost:
        return LockLost(f"The lock {self.name!r} was released while it was waited for")

    async def _revoke(self, lease: int) -> None:
        # Who is not told ends it when its time is over.
        with contextlib.suppress(RaftClientError):
            await self._client.lease_revoke(lease)

    # --- waiting

    async def _my_turn(self, token: int, waits: Callable[[str], None] | None) -> None:
        """Wait until nobody is left whose key was created before."""
        told = False
        while True:
            queue, revision = await self._queue()
            earlier = [item for item in queue if item.create_revision < token]
            if not any(item.create_revision == token for item in queue) or self.lost.is_set():
                raise LockLost(f"The lease of the lock {self.name!r} ended while it waited")
            if not earlier:
                return
            before = max(earlier, key=lambda item: item.create_revision)
            if waits is not None and not told:
                told = True
                waits(before.value.decode(errors="replace"))
            await self._or_lost(self._gone(before.key, revision))

    async def _queue(self) -> tuple[list[protocol.KeyValue], int]:
        """All who hold the lock or wait for it, and a revision from which on a watch tells when one
        of them goes."""
        prefix = lock_prefix(self.name)
        page = await self._client.list(prefix)
        queue, revision = page.keys, page.revision
        while page.more:
            page = await self._client.list(prefix, after=queue[-1].key)
            queue += page.keys
        return queue, revision

    async def _gone(self, key: str, revision: int) -> None:
        """Wait until the key, which was there at `revision`, is not there any more."""
        with contextlib.suppress(HistoryCompacted):
            async with self._client.watch_keys(key, from_revision=revision + 1) as watch:
                async for event in watch:
                    if event.type == "delete":
                        return

    async def _or_lost(self, work: Any) -> None:
        """Do `work` unless the lease ends before."""
        tasks = [asyncio.ensure_future(work), asyncio.ensure_future(self.lost.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- the lease

    def left_s(self) -> float:
        """How long the lease lasts yet for certain."""
        return max(self._ends_ns - boot_time_ns(), 0) / 1e9

    async def _keep(self) -> None:
        """Keep the lease alive; set `lost` when it has ended, or may have."""
        pause_s = self._ttl_s / _KEPT_ALIVE
        while True:
            await asyncio.sleep(min(pause_s, self.left_s()))
            if not self.left_s():
                break
            began_ns = boot_time_ns()
            try:
                async with asyncio.timeout(self.left_s()):
                    await self._client.lease_keepalive(self._lease)
            except RequestFailed as error:
                if error.code is ErrorCode.LEASE_NOT_FOUND:
                    break
                pause_s = _RETRY_S
            except (RaftClientError, TimeoutError):
                pause_s = _RETRY_S
            else:
                self._ends_ns = began_ns + int(self._ttl_s * 1e9)
                pause_s = self._ttl_s / _KEPT_ALIVE
        self.lost.set()
