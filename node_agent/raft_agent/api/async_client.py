"""The client for asyncio: finds the leader, keeps one connection, and sends a write again whose
answer was lost, because the cluster applies it once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from raft_agent.api import protocol
from raft_agent.api.answers import (
    AgentNotReachable,
    RaftClientError,
    RequestFailed,
    no_answer,
)
from raft_agent.api.async_calls import Calls
from raft_agent.api.attempts import FIRST_PAUSE_S, Attempts, Pauses
from raft_agent.api.link import Link, NotSent
from raft_agent.api.protocol import ErrorCode
from raft_agent.api.write_session import WriteSession

if TYPE_CHECKING:
    from raft_agent.api.endpoint import Endpoint

# One agent may use up this part of the time before another one is tried.
_SHARES = 3
# A session that nobody closed is forgotten after this time.
_SESSION_TTL_MS = 60_000
_KEEP_EVERY_S = _SESSION_TTL_MS / 3000
_CLOSE_S = 1.0

# The path of a Unix socket, or an agent on another machine.
Agent: TypeAlias = "str | Path | Endpoint"
Agents: TypeAlias = "Agent | Sequence[Agent] | Mapping[str, Agent]"


class Client(Calls):
    """`agents`: one agent, several, or agents by node name; each is the path of a Unix socket or an
    Endpoint, for one on another machine.

    `timeout_s` is for each request with all its attempts. The client goes to the leader, which it
    finds by name if `agents` has names, else by asking one after the other; where the leader is
    not among them, or with `forward` always, an agent passes writes on. `exactly_once`: writes are
    numbered in a session, so that one whose answer was lost is sent again, to any agent, and
    applied once. Belongs to one event loop. Use it with `async with`, or `await close()` it.

    All requests raise AgentNotReachable when nobody answers in time, RequestFailed when an agent
    refuses, and writes OutcomeUnknown when they were sent and no answer came in time (without
    `exactly_once`: when their connection was lost).
    """

    def __init__(
        self,
        agents: Agents,
        *,
        timeout_s: float = 5.0,
        forward: bool = False,
        exactly_once: bool = True,
    ) -> None:
        if not isinstance(agents, Mapping | Sequence) or isinstance(agents, str):
            agents = [agents]
        self._place_of = (
            {name: place for place, name in enumerate(agents)}
            if isinstance(agents, Mapping)
            else {}
        )
        self._agents = [*(agents.values() if isinstance(agents, Mapping) else agents)]
        if not self._agents:
            raise ValueError("a client needs at least one agent")
        self._timeout_s = timeout_s
        self._forward = forward
        self._exactly_once = exactly_once
        self._place = 0
        self._link: Link | None = None
        self._connecting = asyncio.Lock()
        self._last_id = 0
        self._session: WriteSession | None = None
        self._opening = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the session and the connection. Watches have their own connections, and end with
        their own `close`."""
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        session, self._session = self._session, None
        if session is not None and self._link is not None and self._link.is_open:
            # Only politeness: who is not told forgets it when its time is over.
            request = protocol.CloseSession(0, session.session, True)
            deadline = asyncio.get_running_loop().time() + min(_CLOSE_S, self._timeout_s)
            with contextlib.suppress(RaftClientError):
                await self._ask(request, deadline)
        if self._link is not None:
            self._link.close()
            self._link = None

    # --- requests ---------------------------------------------------------------------------------

    async def request(self, request: protocol.Request) -> Any:
        """The result of any request, as protocol.RESULT_TYPES says; its id is chosen here. A write
        is sent again after a lost answer only when it says `once`."""
        return await self._ask(request, self.deadline())

    async def _ask(self, request: protocol.Request, deadline: float) -> Any:
        self._last_id += 1
        request = msgspec.structs.replace(request, id=self._last_id)
        attempts = Attempts(request, has_others=self.has_others)
        pauses = Pauses()
        tried = 0
        while True:
            try:
                link = await self._connected(deadline)
            except AgentNotReachable as error:
                attempts.failed(error, is_last=True)
                raise
            try:
                return await self._answer(link, request, deadline, attempts.may_repeat)
            except NotSent:
                continue
            except RaftClientError as error:
                code = error.code if isinstance(error, RequestFailed) else None
                if not isinstance(error, RequestFailed):
                    # Also when it was the last attempt: the next request must not wait here, too.
                    self._go_on_from(link)
                attempts.failed(error, is_last=self._deadline_is_near(deadline))
                if isinstance(error, RequestFailed):
                    if error.code is ErrorCode.NOT_LEADER and tried + 1 >= len(self._agents):
                        request = _forwarded(request)
                    self._follow(link, error.leader)
            tried += 1
            if code is ErrorCode.NO_LEADER or tried % len(self._agents) == 0:
                await self._pause(pauses, deadline)

    async def _answer(
        self, link: Link, request: protocol.Request, deadline: float, may_repeat: bool
    ) -> Any:
        loop = asyncio.get_running_loop()
        # An agent that hangs must not use up the time in which another one could answer.
        until = min(deadline, loop.time() + self._timeout_s / _SHARES) if may_repeat else deadline
        answer = link.ask(request)
        try:
            async with asyncio.timeout_at(until):
                return await answer
        except TimeoutError:
            reason = f"no answer within {self._timeout_s:g} s"
            if link.was_sent(request):
                raise no_answer(request, reason) from None
            raise AgentNotReachable(reason) from None
        finally:
            link.forget(request)

    # --- exactly once -----------------------------------------------------------------------------

    async def _write(self, make: Callable[[protocol.Once], protocol.Request]) -> Any:
        deadline = self.deadline()
        if not self._exactly_once:
            return await self._ask(make(None), deadline)
        while True:
            session = await self._opened(deadline)
            once = session.begin()
            try:
                return await self._ask(make(once), deadline)
            except RequestFailed as error:
                # With this code it is the first copy's answer: an earlier one makes it unknown.
                if error.code is not ErrorCode.SESSION_EXPIRED or self._deadline_is_near(deadline):
                    raise
                if self._session is session:
                    self._session = None
            finally:
                session.end(once)

    async def _opened(self, deadline: float) -> WriteSession:
        """The session of this client, which is opened with its first write."""
        if self._session is not None:
            return self._session
        async with self._opening:
            if self._session is None:
                request = protocol.OpenSession(0, _SESSION_TTL_MS, self._forward)
                opened: protocol.SessionResult = await self._ask(request, deadline)
                self._session = WriteSession(opened.session)
                if self._keeper is None:
                    self._keeper = asyncio.create_task(self._keep_session())
            return self._session

    async def _keep_session(self) -> None:
        """Use the session when nobody else does, so that it lives on."""
        while True:
            await asyncio.sleep(_KEEP_EVERY_S)
            session = self._session
            if session is None:
                continue
            if session.was_used:
                session.was_used = False
                continue
            try:
                await self.request(protocol.KeepSession(0, session.session, self._forward))
            except AgentNotReachable:
                continue
            except RequestFailed as error:
                if error.code is ErrorCode.SESSION_EXPIRED and self._session is session:
                    self._session = None

    # --- connections ------------------------------------------------------------------------------

    def _follow(self, link: Link, leader: str) -> None:
        if link is not self._link:
            return  # another request has moved on already
        self._go_on_from(link)
        self._place = self._place_of.get(leader, self._place)

    def _go_on_from(self, link: Link) -> None:
        """Leave `link` for the next agent, once those who wait for its answers have them."""
        if link is self._link:
            self._link = None
            self._place = (self._place + 1) % len(self._agents)
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
        # One that stands still, or is cut off, must not use up the time of the others.
        share = self._timeout_s if len(self._agents) == 1 else self._timeout_s / _SHARES
        pauses = Pauses()
        while True:
            reason = "no answer"
            for _ in self._agents:
                agent = self._agents[self._place]
                try:
                    async with asyncio.timeout_at(min(deadline, loop.time() + share)):
                        return await open_link(agent)
                except OSError as error:
                    reason = f"{agent}: {error.strerror or str(error) or 'no answer in time'}"
                except AgentNotReachable as error:
                    reason = f"{agent}: {error}"
                self._place = (self._place + 1) % len(self._agents)
                if self._deadline_is_near(deadline):
                    # The next request begins with the next one, whoever stood still here.
                    raise AgentNotReachable(reason)
            await self._pause(pauses, deadline)

    @property
    def has_others(self) -> bool:
        """Whether there is more than one agent to ask."""
        return len(self._agents) > 1

    async def may_go_on(self, deadline: float) -> bool:
        """Turn to the next agent after a short pause; False when there is no time for that."""
        if self._deadline_is_near(deadline):
            return False
        self._place = (self._place + 1) % len(self._agents)
        await asyncio.sleep(FIRST_PAUSE_S)
        return True

    async def _pause(self, pauses: Pauses, deadline: float) -> None:
        """And leave time for a last attempt."""
        left_s = deadline - asyncio.get_running_loop().time() - FIRST_PAUSE_S
        await asyncio.sleep(min(pauses.next_s(), max(left_s, 0)))

    def _deadline_is_near(self, deadline: float) -> bool:
        """Whether there is no time for another round."""
        return asyncio.get_running_loop().time() + FIRST_PAUSE_S > deadline

    def deadline(self) -> float:
        """When a request that starts now has to be answered, in the loop's time."""
        return asyncio.get_running_loop().time() + self._timeout_s


async def open_link(agent: Agent) -> Link:
    """A connection to `agent`. Raises OSError or AgentNotReachable."""
    if isinstance(agent, str | Path):
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(Link, str(agent))
        return link
    from raft_agent.api.endpoint import GREETING  # noqa: PLC0415  # TLS is for those who use it

    link = await agent.connect(Link)
    try:
        with contextlib.suppress(RequestFailed):
            await link.ask(GREETING)
    except NotSent:
        raise AgentNotReachable(link.lost) from None
    except BaseException:
        link.close()
        raise
    return link


def _forwarded(request: protocol.Request) -> protocol.Request:
    """The request as an agent passes it on to the leader, when it can be passed on."""
    if hasattr(request, "forward"):
        return msgspec.structs.replace(request, forward=True)
    return request
