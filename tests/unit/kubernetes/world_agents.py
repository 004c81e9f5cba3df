"""The agents of a world, as an operator reaches them, and certificates that cost no time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raft_agent.api import protocol
from raft_agent.api.protocol import HealthResult, MemberListResult, StatusResult
from raft_agent.tls.files import TlsFiles
from raft_operator import resources
from raft_operator.agents import AgentsError, Place
from raft_operator.kube import SECRETS, Kube
from raft_operator.resources import Owner
from raft_operator.spec import Spec
from tests.unit.kubernetes.raft_model import Entry, Process, Raft
from tests.unit.kubernetes.world import Stop

_OFF = protocol.EbpfStatus(state="off", reason="", interfaces=[])


class WorldAgents:
    def __init__(self, raft: Raft) -> None:
        self._raft = raft

    async def close(self) -> None:
        pass

    async def look(self, places: Sequence[Place]) -> Mapping[str, StatusResult]:
        await Stop()
        found = {}
        for place in places:
            process = self._raft.processes.get(place.address)
            if process is not None and process.name == place.name:
                found[place.name] = self._status(process)
        return found

    def _status(self, process: Process) -> StatusResult:
        raft, volume = self._raft, process.volume
        names = sorted(e.name for e in raft.members.values()) if volume.cluster else []
        return StatusResult(
            node_id=process.name,
            role="follower",
            term=raft.term,
            commit_index=0,
            last_applied=0,
            leader=self._leader() if volume.id in raft.members else None,
            peers=[],
            voters=names,
            learners=[],
            members=[protocol.MemberInfo(name, "", "", "voter") for name in names],
            cluster_id=volume.cluster,
            version="1",
            ebpf=_OFF,
            removed=volume.knows_removed,
            id=volume.id,
        )

    def _leader(self) -> str | None:
        entry = self._raft.members.get(self._raft.leader)
        return None if entry is None else entry.name

    def _ask(self, place: Place) -> None:
        process = self._raft.processes.get(place.address)
        if process is None or process.name != place.name:
            raise AgentsError(f"{place.name} does not answer")

    async def members(self, place: Place) -> MemberListResult:
        await Stop()
        self._ask(place)
        raft = self._raft
        return MemberListResult(
            cluster_id=raft.cluster,
            leader=self._leader(),
            members=[
                protocol.MemberInfo(e.name, e.id, e.address, e.role, e.state)
                for e in self._sorted()
            ],
            configuration_index=raft.configuration,
            removed=sorted(raft.removed),
        )

    async def health(self, place: Place) -> HealthResult:
        await Stop()
        self._ask(place)
        members = [
            protocol.HealthMember(e.name, e.id, e.address, e.role, self._health(e), 0, 0, 0)
            for e in self._sorted()
        ]
        return HealthResult(self._raft.has_quorum(), self._leader(), self._raft.term, members)

    def _health(self, entry: Entry) -> str:
        return "unreachable" if self._raft.running(entry.id) is None else "healthy"

    def _sorted(self) -> list[Entry]:
        return sorted(self._raft.members.values(), key=lambda entry: entry.name)

    async def confirm(self, leader: Place, configuration: int) -> None:
        await Stop()
        self._ask(leader)
        self._raft.confirm(configuration)

    async def join(self, place: Place, joiner: Place, if_configuration: int) -> str:
        await Stop()
        self._ask(place)
        self._raft.join(joiner.name, joiner.address, if_configuration)
        return ""

    async def promote(self, _place: Place, _name: str, _if_configuration: int) -> str:
        await Stop()
        raise AssertionError("no learner here is to stay one")

    async def move(self, place: Place, _member: Place, _if_configuration: int) -> str:
        await Stop()
        self._ask(place)
        return ""

    async def leave(self, place: Place, name: str, if_configuration: int) -> str:
        await Stop()
        self._ask(place)
        self._raft.leave(name, if_configuration)
        return ""

    async def hand_over(self, leader: Place, to: str) -> None:
        await Stop()
        self._ask(leader)
        self._raft.hand_over(to)

    async def rescue(self, _place: Place, **_: bool) -> protocol.RecoverResult:
        await Stop()
        raise AssertionError("nobody asked for a rescue")


class WorldCredentials:
    """One Secret that has to be written once."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._owner: Owner | None = None
        self._there = False

    async def look(
        self, owner: Owner, _spec: Spec, _members: Mapping[str, tuple[str, ...]]
    ) -> bool:
        self._owner = owner
        name = owner.key.nodes_secret
        self._there = await self._kube.get(SECRETS, owner.key.namespace, name) is not None
        return not self._there

    async def write(self) -> None:
        assert self._owner is not None
        await self._kube.put(resources.secret(self._owner, self._owner.key.nodes_secret, {}), None)

    def files(self) -> TlsFiles | None:
        return TlsFiles("", "", "") if self._there else None

    def close(self) -> None:
        pass
