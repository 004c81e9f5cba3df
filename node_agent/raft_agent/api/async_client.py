"""The client for asyncio: finds the leader, keeps one connection, never repeats a write that may
have happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from raft_agent.api import protocol
from raft_agent.api.answers import AgentNotReachable, RequestFailed, no_answer
from raft_agent.api.link import Link, NotSent
from raft_agent.api.protocol import Consistency, ErrorCode

ItemT = TypeVar("ItemT")

# How long to wait before all agents are tried once more.
_ROUND_PAUSE_S = 0.05

Sockets = str | Path | Sequence[str | Path] | Mapping[str, str | Path]


class Client:
    """`sockets`: the path of one agent's socket, several, or paths by node name.

    `timeout_s` is for each request with all its attempts. `forward`: have a follower pass writes
    on; without it the client goes to the leader by itself, which it finds by name if `sockets`
    has names, else by asking one after the other. Belongs to one event loop. Use it with
    `async with`, or `await close()` it.

    All requests raise AgentNotReachable when nobody answers in time, RequestFailed when an agent
    refuses, and writes OutcomeUnknown when they were sent and the answer did not come.
    """

    def __init__(self, sockets: Sockets, *, timeout_s: float = 5.0, forward: bool = False) -> None:
        if isinstance(sockets, str | Path):
            sockets = [sockets]
        named = sockets if isinstance(sockets, Mapping) else {}
        self._paths = [str(path) for path in (named.values() if named else sockets)]
        if not self._paths:
            raise ValueError("a client needs at least one socket")
        self._path_of = {name: str(path) for name, path in named.items()}
        self._timeout_s = timeout_s
        self._forward = forward
        self._place = 0
        self._link: Link | None = None
        self._connecting = asyncio.Lock()
        self._last_id = 0

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection. Watches have their own, and end with their own `close`."""
        if self._link is not None:
            self._link.close()
            self._link = None

    # --- requests ---------------------------------------------------------------------------------

    async def put(self, key: str, value: bytes, *, if_revision: int = -1) -> protocol.WriteResult:
        """Store a key. `if_revision`: only at that revision (0: absent), else RequestFailed with
        the code CONFLICT."""
        return await self.request(protocol.Put(0, key, value, if_revision, self._forward))  # type: ignore[no-any-return]

    async def delete(self, key: str, *, if_revision: int = -1) -> protocol.WriteResult:
        """Remove a key; `deleted` of the result is 0 when there was none."""
        return await self.request(protocol.Delete(0, key, if_revision, self._forward))  # type: ignore[no-any-return]

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

    async def send(self, text: str) -> protocol.WriteResult:
        """Append a text to the message log."""
        return await self.request(protocol.Send(0, text, self._forward))  # type: ignore[no-any-return]

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

    def watch_keys(self, key: str, *, prefix: bool = False) -> Watch[protocol.KeyEvent]:
        """Changes of a key, or with `prefix` of all keys that start with it, from now on. Ends with
        AgentNotReachable when the connection does, for then some may have been missed."""
        return Watch(self, protocol.WatchKeys(1, key, prefix))

    def watch_messages(self, after_index: int = -1) -> Watch[protocol.MessageItem]:
        """Messages after a log index (-1: from now on). Goes on at another agent when the
        connection is lost, without missing or repeating any."""
        return Watch(self, protocol.WatchMessages(1, after_index))

    def follow_events(self, limit: int = 0) -> Watch[protocol.EventItem]:
        """The newest `limit` events of one agent, and new ones as they happen."""
        return Watch(self, protocol.Events(1, limit, True))

    async def request(self, request: protocol.Request) -> Any:
        """The result of any request, as protocol.RESULT_TYPES says; its id is chosen here."""
        self._last_id += 1
        request = msgspec.structs.replace(request, id=self._last_id)
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        refusal: RequestFailed | None = None
        tried = 0
        while True:
            try:
                link = await self._connected(deadline)
            except AgentNotReachable:
                if refusal is not None:
                    raise refusal from None
                raise
            try:
                return await self._answer(link, request, deadline)
            except NotSent:
                continue
            except AgentNotReachable:
                # A question that lost its connection may be asked again, of somebody else too.
                if link.is_open:
                    raise
                self._go_on_from(link)
            except RequestFailed as error:
                if not self._may_find_leader(error) or self.deadline_is_near(deadline):
                    raise
                refusal = error
                self._follow(link, error.leader)
            tried += 1
            if tried % len(self._paths) == 0:
                await asyncio.sleep(_ROUND_PAUSE_S)

    async def _answer(self, link: Link, request: protocol.Request, deadline: float) -> Any:
        answer = link.ask(request)
        try:
            async with asyncio.timeout_at(deadline):
                return await answer
        except TimeoutError:
            reason = f"no answer within {self._timeout_s:g} s"
            if link.was_sent(request):
                raise no_answer(request, reason) from None
            raise AgentNotReachable(reason) from None
        finally:
            link.forget(request)

    # --- connections ------------------------------------------------------------------------------

    def _may_find_leader(self, error: RequestFailed) -> bool:
        """Nothing has happened yet, and another agent or a later moment may serve it."""
        if error.code is ErrorCode.NO_LEADER:
            return True
        return error.code is ErrorCode.NOT_LEADER and len(self._paths) > 1

    def _follow(self, link: Link, leader: str) -> None:
        if link is not self._link:
            return  # another request has moved on already
        path = self._path_of.get(leader)
        self._go_on_from(link)
        if path is not None:
            self._place = self._paths.index(path)

    def _go_on_from(self, link: Link) -> None:
        """Leave `link` for the next agent, once those who wait for its answers have them."""
        if link is self._link:
            self._link = None
            self._place = (self._place + 1) % len(self._paths)
            link.close_when_idle()

    async def _connected(self, deadline: float) -> Link:
        """The connection that stands, or a new one to whoever answers first."""
        async with self._connecting:
            if self._link is None or not self._link.is_open:
                self._link = await self.connect(deadline)
            return self._link

    async def connect(self, deadline: float) -> Link:
        """A new connection to the first agent that answers, from the one used last on."""
        loop = asyncio.get_running_loop()
        while True:
            reason = "no answer"
            for _ in self._paths:
                path = self._paths[self._place]
                try:
                    async with asyncio.timeout_at(deadline):
                        _, link = await loop.create_unix_connection(Link, path)
                    return link
                except OSError as error:
                    reason = f"{path}: {error.strerror or str(error) or 'no answer in time'}"
                self._place = (self._place + 1) % len(self._paths)
            if self.deadline_is_near(deadline):
                raise AgentNotReachable(reason)
            await asyncio.sleep(_ROUND_PAUSE_S)

    def deadline_is_near(self, deadline: float) -> bool:
        """Whether there is no time for another round."""
        return asyncio.get_running_loop().time() + _ROUND_PAUSE_S > deadline

    def deadline(self) -> float:
        """When a request that starts now has to be answered, in the loop's time."""
        return asyncio.get_running_loop().time() + self._timeout_s


class Watch(Generic[ItemT]):
    """Items as they come, with `async for`; on a connection of its own, so that a consumer who is
    slow holds up nothing but its watch. Use it with `async with` to have the watch stand before
    the block begins, and closed after it; or `await close()` it.
    """

    def __init__(
        self, client: Client, request: protocol.WatchKeys | protocol.WatchMessages | protocol.Events
    ) -> None:
        self._client = client
        self._request = request
        self._link: Link | None = None
        self._closed = False

    async def __aenter__(self) -> Watch[ItemT]:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> int:
        """Make the watch stand. The log index from which on it misses nothing."""
        deadline = self._client.deadline()
        link = await self._client.connect(deadline)
        answer = link.ask(self._request)
        try:
            async with asyncio.timeout_at(deadline):
                started: protocol.StreamStarted = await answer
        except NotSent:
            raise AgentNotReachable("the connection was lost") from None
        except TimeoutError:
            link.close()
            raise AgentNotReachable("no answer in time") from None
        except BaseException:
            link.close()
            raise
        self._link = link
        if isinstance(self._request, protocol.WatchMessages):
            self._request = protocol.WatchMessages(self._request.id, started.index)
        return started.index

    async def close(self) -> None:
        """End the watch."""
        self._closed = True
        if self._link is not None:
            self._link.close()

    def __aiter__(self) -> AsyncIterator[ItemT]:
        return self

    async def __anext__(self) -> ItemT:
        while not self._closed:
            if self._link is None:
                await self.start()
                continue
            try:
                item: ItemT = await self._link.next_item()
            except (AgentNotReachable, RequestFailed) as error:
                self._link.close()
                if self._closed:
                    break
                if not self._may_resume(error):
                    raise
                self._link = None
                continue
            if isinstance(item, protocol.MessageItem):
                self._request = protocol.WatchMessages(self._request.id, item.index)
            return item
        raise StopAsyncIteration

    def _may_resume(self, error: AgentNotReachable | RequestFailed) -> bool:
        if not isinstance(self._request, protocol.WatchMessages):
            return False
        return isinstance(error, AgentNotReachable) or error.code is ErrorCode.SHUTTING_DOWN
