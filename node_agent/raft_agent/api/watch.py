"""Watches of the asyncio client: items as they come, over lost connections where that is safe."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, Protocol, TypeVar

import msgspec

from raft_agent.api import protocol
from raft_agent.api.answers import AgentNotReachable, RequestFailed
from raft_agent.api.attempts import ELSEWHERE
from raft_agent.api.link import Link, NotSent
from raft_agent.api.protocol import ErrorCode

ItemT = TypeVar("ItemT")


class Connector(Protocol):
    """What a watch needs of its client."""

    async def connect(self, deadline: float) -> Link: ...

    async def may_go_on(self, deadline: float) -> bool: ...

    @property
    def has_others(self) -> bool: ...

    def deadline(self) -> float: ...


class Watch(Generic[ItemT]):
    """Items as they come, with `async for`; on a connection of its own, so that a consumer who is
    slow holds up nothing but its watch. Use it with `async with` to have the watch stand before
    the block begins, and closed after it; or `await close()` it.

    Watches of keys and messages go on at any agent when the connection is lost, and at another one
    when theirs does not serve its state any more, without missing or repeating any;
    HistoryCompacted is raised when changes of keys are gone that would come next, RequestFailed
    when messages are.
    """

    def __init__(
        self,
        client: Connector,
        request: protocol.WatchKeys | protocol.WatchMessages | protocol.Events,
    ) -> None:
        self._client = client
        self._request = request
        self._link: Link | None = None
        self._has_stood = False
        self._closed = False

    async def __aenter__(self) -> Watch[ItemT]:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> int:
        """Make the watch stand. The log index from which on it misses nothing."""
        deadline = self._client.deadline()
        while True:
            link = await self._client.connect(deadline)
            try:
                started = await self._ask(link, deadline)
                break
            except (AgentNotReachable, RequestFailed) as error:
                # It ended in this very moment, hangs, or serves nobody: another one may answer.
                is_refused = isinstance(error, RequestFailed) and not self._may_resume(error)
                if is_refused or not await self._client.may_go_on(deadline):
                    raise
        if self._has_stood and isinstance(self._request, protocol.WatchMessages):
            after_index = self._request.after_index
            if started.index > after_index:
                link.close()
                raise RequestFailed(
                    f"Of the messages after index {after_index} the oldest are gone",
                    ErrorCode.BUSY,
                    f"Only the newest are kept; watch anew after index {started.index}.",
                )
        self._link, self._has_stood = link, True
        if self._closed:  # while it connected
            link.close()
        if isinstance(self._request, protocol.WatchMessages):
            self._go_on_after(started.index)
        elif isinstance(self._request, protocol.WatchKeys):
            self._go_on_after(started.revision)
        return started.index

    async def _ask(self, link: Link, deadline: float) -> protocol.StreamStarted:
        loop = asyncio.get_running_loop()
        until = loop.time() + max(deadline - loop.time(), 0) / 2
        answer = link.ask(self._request)
        try:
            async with asyncio.timeout_at(until):
                started: protocol.StreamStarted = await answer
        except NotSent:
            raise AgentNotReachable("the connection was lost") from None
        except TimeoutError:
            link.close()
            raise AgentNotReachable("no answer in time") from None
        except BaseException:
            link.close()
            raise
        return started

    def _go_on_after(self, place: int) -> None:
        """Where a new connection goes on: after this log index or this revision of the store."""
        if isinstance(self._request, protocol.WatchMessages):
            self._request = msgspec.structs.replace(self._request, after_index=place)
        elif isinstance(self._request, protocol.WatchKeys):
            self._request = msgspec.structs.replace(self._request, from_revision=place + 1)

    async def close(self) -> None:
        """End the watch."""
        self._closed = True
        if self._link is not None:
            self._link.close()

    def __aiter__(self) -> AsyncIterator[ItemT]:
        return self

    async def __anext__(self) -> ItemT:
        while not self._closed:
            try:
                if self._link is None:
                    await self.start()
                    continue
            except (AgentNotReachable, RequestFailed):
                if self._closed:
                    break
                raise
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
                self._go_on_after(item.index)
            return item
        raise StopAsyncIteration

    def _may_resume(self, error: AgentNotReachable | RequestFailed) -> bool:
        if isinstance(self._request, protocol.Events):
            return False  # they are one agent's, and have no place to go on from
        if isinstance(error, AgentNotReachable) or error.code is ErrorCode.SHUTTING_DOWN:
            return True
        return self._client.has_others and error.code in ELSEWHERE


class KeyWatch(Watch[protocol.KeyEvent]):
    """A watch of keys. Nothing of a revision is given before all of it is there, so that a lost
    connection never leaves one in parts. `together` gives the events of a revision at once.

    `bookmarks`: events of the type "bookmark" are given, too; they let the watch go on from where
    it is, also when its keys have not changed for longer than changes are kept.
    """

    def __init__(
        self, client: Connector, request: protocol.WatchKeys, *, bookmarks: bool = False
    ) -> None:
        super().__init__(client, request)
        self._bookmarks = bookmarks
        self._complete: deque[protocol.KeyEvent] = deque()
        self._incomplete: list[protocol.KeyEvent] = []

    async def start(self) -> int:
        # All of a revision that had come in parts comes again.
        self._incomplete = []
        return await super().start()

    async def __anext__(self) -> protocol.KeyEvent:
        while not self._complete:
            await self._receive()
        return self._complete.popleft()

    async def together(self) -> list[protocol.KeyEvent]:
        """All events of the next revision (those not yet given), or one bookmark. Raises
        StopAsyncIteration when the watch was closed."""
        while not self._complete:
            await self._receive()
        events = [self._complete.popleft()]
        while events[-1].more:
            events.append(self._complete.popleft())
        return events

    async def _receive(self) -> None:
        event = await super().__anext__()
        if event.type == "bookmark":
            self._go_on_after(event.revision)
            if self._bookmarks:
                self._complete.append(event)
            return
        self._incomplete.append(event)
        if not event.more:
            self._go_on_after(event.revision)
            self._complete.extend(self._incomplete)
            self._incomplete = []
