"""What a node tells of itself: status, members, health. Reads the core, changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from raft_agent import __version__
from raft_agent.api.protocol import (
    EbpfStatus,
    HealthMember,
    HealthResult,
    MemberInfo,
    MemberListResult,
    ProgressInfo,
    StatusResult,
)
from raft_agent.consensus.generations import generation_of
from raft_agent.consensus.node import Node
from raft_agent.consensus.progress import Progress
from raft_agent.consensus.types import Configuration, Role
from raft_agent.runtime.engine import now_us
from raft_agent.runtime.versions import VersionKeeper
from raft_agent.transport.transport import Transport

# A follower that is this many entries behind has not merely a few round trips in flight.
_LAGGING_ENTRIES = 10_000

_SHOWN_ROLES = {
    Role.FRESH: "follower",
    Role.PRE_CANDIDATE: "candidate",
}


class Views:
    """`configured_peers`: the names in the configuration file, shown until there is a cluster.
    `note` is what the node wants to be known, for example what it waits for; `ebpf` tells how the
    kernel part is, `disputed_index` behind which entry no majority had equal states (0: none).
    `versions` is set by whoever builds the node.
    """

    versions: VersionKeeper

    def __init__(
        self,
        *,
        name: str,
        node: Node,
        transport: Transport,
        configured_peers: tuple[str, ...],
        silence_limit_us: int,
    ) -> None:
        self._name = name
        self._node = node
        self._transport = transport
        self._configured_peers = configured_peers
        self.ebpf: Callable[[], EbpfStatus] = EbpfStatus
        self.disputed_index: Callable[[], int] = int
        self._silence_limit_us = silence_limit_us
        self.note = ""

    def member_name(self, member_id: int) -> str:
        """A name for people; the id itself for somebody who is no member."""
        if member_id == self._node.state.member_id:
            return self._name
        member = self._node.state.membership.member(member_id)
        return member.name if member is not None else f"{member_id:016x}"

    def is_member(self, member_id: int) -> bool:
        """Whether the configuration in force has it."""
        return self._node.state.membership.member(member_id) is not None

    def leader_name(self) -> str | None:
        return self.member_name(self._node.leader_id) if self._node.leader_id else None

    def _members(self) -> list[MemberInfo]:
        configuration = self._node.configuration
        if configuration is None:
            return []
        return sorted(
            (
                MemberInfo(
                    member.name,
                    f"{member.id:016x}",
                    member.address,
                    "learner" if member.id in configuration.learners else "voter",
                    _member_state(configuration, member.id),
                    *self._agent_of(member.id),
                )
                for member in configuration.members
            ),
            key=lambda info: info.name,
        )

    def _agent_of(self, member_id: int) -> tuple[str, tuple[int, int] | None]:
        agent, known = self.versions.agent_of(member_id)
        return agent, None if known is None else (known.oldest, known.newest)

    def member_list(self) -> MemberListResult:
        configuration = self._node.configuration
        index = self._node.configuration_index
        return MemberListResult(
            cluster_id=configuration.cluster_id if configuration else "",
            leader=self.leader_name(),
            members=self._members(),
            configuration_index=index,
            pending=configuration is not None
            and (bool(configuration.voters_outgoing) or index > self._node.commit_index),
            removed=[f"{gone:016x}" for gone in configuration.removed] if configuration else [],
        )

    def status(self) -> StatusResult:
        node = self._node
        members = self._members()
        others = [info.name for info in members if info.name != self._name]
        configuration = node.configuration
        return StatusResult(
            node_id=self._name,
            role=self._shown_role(),
            term=node.current_term,
            commit_index=node.commit_index,
            last_applied=node.applied_index,
            leader=self.leader_name(),
            peers=others if configuration else list(self._configured_peers),
            voters=[info.name for info in members if info.role == "voter"],
            learners=[info.name for info in members if info.role == "learner"],
            members=members,
            cluster_id=configuration.cluster_id if configuration else "",
            version=__version__,
            ebpf=self.ebpf(),
            progress=self._progress(),
            note=self._note(),
            removed=node.state.was_removed,
            cluster_version=self.versions.in_force,
            knows=self._agent_of(node.state.member_id)[1] or (0, 0),
            generation=self._generation(),
            id=f"{node.state.member_id:016x}",
            superseded=node.state.superseded != 0,
        )

    def _generation(self) -> str:
        number = generation_of(self._node.configuration).id
        return f"{number:016x}" if number else ""

    def _shown_role(self) -> str:
        role = self._node.role
        # Whatever it was when it heard that it was removed, it stands for nothing any more.
        if self._node.state.was_removed:
            role = Role.FOLLOWER
        return _SHOWN_ROLES.get(role, str(role))

    def _note(self) -> str:
        """What people should know at once, the gravest first."""
        state = self._node.state
        if state.failed:
            return state.failed
        if state.was_removed:
            return (
                "this node was removed from the cluster; to bring it back stop it, empty its data "
                f"directory, start it, and at a member: raftctl --node MEMBER join {self._name} "
                "ADDRESS"
            )
        if state.diverged_index:
            return (
                f"its state differs from the other members' (at index {state.diverged_index}): it "
                "serves nothing until it is rebuilt; run here: raftctl rebuild"
            )
        disputed_index = self.disputed_index()
        if disputed_index:
            return (
                f"no majority of the members has equal states (found at index {disputed_index}): "
                "nothing is read or written until one has; see raftctl doctor --cluster"
            )
        if state.installing:
            return "is taking over a snapshot"
        if state.vote_floor != (0, 0) and state.has_quorum({state.member_id}):
            return (
                "the end of its log is damaged, and no other voter can refill it up to index "
                f"{state.vote_floor[1]}: restore a backup (raftctl snapshot restore), or go on "
                "with what is left: raftctl recover --accept-data-loss"
            )
        if state.vote_floor != (0, 0):
            return (
                "the end of its log is damaged: does not stand for election until a leader has "
                f"refilled it up to index {state.vote_floor[1]}"
            )
        if self.note or self._node.role is not Role.FRESH or not self._configured_peers:
            return self.note
        reached = {peer.name for peer in self._transport.stats().values() if peer.connected}
        missing = [name for name in self._configured_peers if name not in reached]
        if missing:
            return f"first start: waits for {', '.join(missing)}"
        founder = min(*self._configured_peers, self._name)
        return f"first start: waits for {founder} to form the cluster"

    def _progress(self) -> dict[str, ProgressInfo] | None:
        node = self._node
        if node.role is not Role.LEADER:
            return None
        last_index = node.log.last_index
        return {
            self.member_name(peer): ProgressInfo(
                progress.match_index, last_index - progress.match_index, _contact_ms(progress)
            )
            for peer, progress in sorted(node.progress.items())
        }

    def health(self) -> HealthResult:
        node = self._node
        configuration = node.configuration
        addresses = {m.name: m.id for m in configuration.members} if configuration else {}
        members = [self._health_of(info, addresses[info.name]) for info in self._members()]
        if node.role is Role.LEADER:
            answering = {
                addresses[member.name] for member in members if member.state != "unreachable"
            }
            quorum = node.state.has_quorum(answering)
        else:
            quorum = node.leader_id != 0
        return HealthResult(quorum, self.leader_name(), node.current_term, members)

    def _is_odd(self, member_id: int) -> bool:
        leadership = self._node.state.leadership
        return leadership is not None and member_id in leadership.odd

    def _health_of(self, info: MemberInfo, member_id: int) -> HealthMember:
        node = self._node
        state, detail = "healthy", ""
        contact_ms: int | None = None
        match_index: int | None = None
        lag: int | None = None
        if member_id == node.state.member_id:
            contact_ms, match_index = 0, node.state.persisted_index
            lag = node.log.last_index - match_index
            if node.state.failed:
                state, detail = "unreachable", node.state.failed
            elif node.state.diverged_index:
                state, detail = "differs", _DIFFERS
        elif member_id in node.progress:
            progress = node.progress[member_id]
            contact_ms, match_index = _contact_ms(progress), progress.match_index
            lag = node.log.last_index - match_index
            if now_us() - progress.last_contact_us > self._silence_limit_us:
                why = self._transport.problem(member_id)
                state = "unreachable"
                detail = f"silent for {contact_ms} ms" + (f": {why}" if why else "")
            elif lag > _LAGGING_ENTRIES:
                state, detail = "lagging", f"{lag} entries behind"
            elif self._is_odd(member_id):
                state, detail = "differs", _DIFFERS
        else:
            peer = self._transport.stats().get(member_id)
            if peer is None or not peer.connected:
                why = self._transport.problem(member_id)
                state = "unreachable"
                detail = f"not connected to {self._name}" + (f": {why}" if why else "")
        return HealthMember(
            info.name,
            info.id,
            info.address,
            info.role,
            state,
            contact_ms,
            match_index,
            lag,
            detail,
            info.agent,
            info.knows,
        )


_DIFFERS = "its state is not the others': run raftctl rebuild there"


def _member_state(configuration: Configuration, member_id: int) -> str:
    if any(entry.id == member_id for entry in configuration.joining):
        return "joining"
    staying = member_id in configuration.voters or member_id in configuration.learners
    return "" if staying else "leaving"


def members_line(configuration: Configuration) -> str:
    """ "node-01, node-02 (leaving), node-03 (learner, joining)"."""
    shown = (
        member.name + (f" ({remark})" if (remark := _remark(configuration, member.id)) else "")
        for member in configuration.members
    )
    return ", ".join(sorted(shown))


def _remark(configuration: Configuration, member_id: int) -> str:
    state = _member_state(configuration, member_id)
    if member_id in configuration.learners:
        return f"learner, {state}" if state else "learner"
    outgoing = configuration.voters_outgoing
    return "becoming a voter" if outgoing and member_id not in outgoing else state


def _contact_ms(progress: Progress) -> int:
    return (now_us() - progress.last_contact_us) // 1000
