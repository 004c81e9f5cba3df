"""What the operator asks the agents of one cluster, over TLS, as a client with the role admin.

`Agents` is all that the rest knows of them, so that tests can put others in their place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from raft_agent.api import protocol
from raft_agent.api.client import AgentNotReachable, Client, Endpoint, RaftClientError
from raft_agent.api.protocol import HealthResult, MemberListResult, StatusResult
from raft_agent.tls.errors import TlsError
from raft_agent.tls.files import TlsFiles

# An agent that is there answers in milliseconds; nobody waits long for one that is not.
_LOOK_S = 2.0
_CHANGE_S = 10.0
# Less than the client waits, so that it hears that nothing was changed.
_PATIENCE_MS = 3000


class Place(msgspec.Struct, frozen=True):
    """Where to find an agent: the member's name, which its certificate has, and "host:port"."""

    name: str
    address: str


class AgentsError(Exception):
    """The agents did not do what was asked, or nobody knows whether they did: look again."""


class Agents(Protocol):
    """All but `look` raise AgentsError. `if_configuration`: the change is made to this
    configuration or not at all."""

    async def look(self, places: Sequence[Place]) -> Mapping[str, StatusResult]:
        """What each agent says of itself, by name; those that don't answer are left out."""

    async def members(self, place: Place) -> MemberListResult: ...

    async def health(self, place: Place) -> HealthResult:
        """As the leader sees it, whoever is asked."""

    async def confirm(self, leader: Place, configuration: int) -> None:
        """Raises AgentsError unless that member leads now, with this configuration committed."""

    async def join(self, place: Place, joiner: Place, if_configuration: int) -> str:
        """What was done, for people; as of all changes."""

    async def promote(self, place: Place, name: str, if_configuration: int) -> str: ...

    async def move(self, place: Place, member: Place, if_configuration: int) -> str: ...

    async def leave(self, place: Place, name: str, if_configuration: int) -> str: ...

    async def hand_over(self, leader: Place, to: str) -> None: ...

    async def rescue(self, place: Place, *, accept_data_loss: bool) -> protocol.RecoverResult: ...

    async def close(self) -> None: ...


class RemoteAgents:
    """Agents over TCP and TLS. Connections are kept from one look to the next; `files` are read
    again when they change."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._clients: dict[Place, Client] = {}

    async def close(self) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def look(self, places: Sequence[Place]) -> Mapping[str, StatusResult]:
        for gone in self._clients.keys() - set(places):
            await self._clients.pop(gone).close()
        found = await asyncio.gather(*(self._look(place) for place in places))
        return {place.name: status for place, status in zip(places, found, strict=True) if status}

    async def _look(self, place: Place) -> StatusResult | None:
        try:
            status: StatusResult = await self._ask(place, protocol.Status(0))
        except AgentsError:
            return None
        # Behind an address that was given away another member may answer.
        return status if status.node_id == place.name else None

    async def members(self, place: Place) -> MemberListResult:
        found: MemberListResult = await self._ask(place, protocol.MemberList(0, forward=True))
        return found

    async def health(self, place: Place) -> HealthResult:
        found: HealthResult = await self._ask(place, protocol.Health(0))
        return found

    async def confirm(self, leader: Place, configuration: int) -> None:
        # A linearizable read, of whatever, is answered by a leader only, and only while it is one.
        listing = protocol.List(0, "", 1, "", protocol.Consistency.LINEARIZABLE)
        await self._ask(leader, listing)
        members: MemberListResult = await self._ask(leader, protocol.MemberList(0))
        is_so = members.leader == leader.name and not members.pending
        if not is_so or members.configuration_index != configuration:
            raise AgentsError(
                f"{leader.name} does not confirm that configuration {configuration} is in force"
            )

    async def join(self, place: Place, joiner: Place, if_configuration: int) -> str:
        return await self._change(
            place,
            protocol.Join(
                0,
                joiner.name,
                joiner.address,
                if_configuration=if_configuration,
                patience_ms=_PATIENCE_MS,
            ),
        )

    async def promote(self, place: Place, name: str, if_configuration: int) -> str:
        request = protocol.MemberPromote(0, name, if_configuration, _PATIENCE_MS)
        return await self._change(place, request)

    async def move(self, place: Place, member: Place, if_configuration: int) -> str:
        name, address = member.name, member.address
        request = protocol.MemberUpdate(0, name, address, if_configuration, _PATIENCE_MS)
        return await self._change(place, request)

    async def leave(self, place: Place, name: str, if_configuration: int) -> str:
        request = protocol.Leave(
            0, name, if_configuration=if_configuration, patience_ms=_PATIENCE_MS
        )
        return await self._change(place, request)

    async def hand_over(self, leader: Place, to: str) -> None:
        await self._ask(leader, protocol.LeaderTransfer(0, to), _CHANGE_S)

    async def rescue(self, place: Place, *, accept_data_loss: bool) -> protocol.RecoverResult:
        request = protocol.Recover(0, accept_data_loss)
        found: protocol.RecoverResult = await self._ask(place, request, 2 * _CHANGE_S)
        return found

    async def _change(self, place: Place, request: protocol.Request) -> str:
        result: protocol.MembershipResult = await self._ask(place, request, _CHANGE_S)
        return result.note

    async def _ask(
        self, place: Place, request: protocol.Request, timeout_s: float = _LOOK_S
    ) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._client(place).request(request)
        except (RaftClientError, TlsError, ValueError, TimeoutError, OSError) as error:
            if not isinstance(error, RaftClientError) or isinstance(error, AgentNotReachable):
                await self._forget(place)
            why = str(error) or f"no answer within {timeout_s:g} s"
            hint = getattr(error, "hint", "")
            raise AgentsError(f"{place.name}: {why}{f' ({hint})' if hint else ''}") from error

    def _client(self, place: Place) -> Client:
        client = self._clients.get(place)
        if client is None:
            endpoint = Endpoint(place.address, self._files, server_name=place.name)
            client = self._clients[place] = Client(
                endpoint, timeout_s=_CHANGE_S, exactly_once=False
            )
        return client

    async def _forget(self, place: Place) -> None:
        client = self._clients.pop(place, None)
        if client is not None:
            with contextlib.suppress(RaftClientError, OSError):
                await client.close()


Connect = Callable[[TlsFiles], Agents]
