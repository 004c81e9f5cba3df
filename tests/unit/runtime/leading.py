"""A leader whose core is real: what it asks of the network and of its disk is done at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import count

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.consensus.membership import first_entry
from raft_agent.consensus.types import (
    AppendReply,
    Configuration,
    Effect,
    Event,
    Member,
    MembershipChanged,
    PreVote,
    PreVoteReply,
    Refused,
    Role,
    VoteReply,
)
from raft_agent.runtime.memberships import Memberships
from raft_agent.runtime.refusals import failure_of
from raft_agent.transport.handshake import Hello
from raft_agent.transport.transport import ProbeFailed
from tests.unit.consensus.server import Server, sends

CLUSTER = "c1" * 16


def member(number: int) -> Member:
    return Member(number, f"node-{number:02}", f"10.0.0.{number}:5555")


def configuration(voters: tuple[int, ...], learners: tuple[int, ...] = ()) -> Configuration:
    """node-01 … by their numbers; 99 was removed."""
    members = tuple(map(member, sorted((*voters, *learners))))
    return Configuration(CLUSTER, members, voters, learners=learners, removed=(99,))


def hello(number: int, *, name: str = "", cluster_id: str = "") -> Hello:
    known = member(number)
    return Hello(1, 1, cluster_id, known.id, name or known.name, known.address)


class Network:
    """Who answers when it is asked who is there, by address; what those say who are `connected`."""

    def __init__(self) -> None:
        self.answers: dict[str, Hello] = {}
        self.connected: dict[int, str] = {}

    async def probe(self, address: str, _timeout_s: float) -> Hello:
        await asyncio.sleep(0)
        if address not in self.answers:
            raise ProbeFailed(f"cannot connect to {address}: Connection refused")
        return self.answers[address]

    def announced(self, member_id: int) -> str:
        return self.connected.get(member_id, "")


class Leader:
    """node-01 leads; the other voters acknowledge what it sends when `are_awake`."""

    are_awake = True
    joiner_problem: Callable[[Hello], Failure | None] = staticmethod(lambda _: None)

    def __init__(self, known: Configuration) -> None:
        loop = asyncio.get_running_loop()
        self.server = Server(1, name="node-01", address=member(1).address, log=[first_entry(known)])
        self.network = Network()
        self._others = tuple(voter for voter in known.voters if voter != 1)
        tags = count(1)
        self.memberships = Memberships(
            node=self.server.node,
            transport=self.network,  # type: ignore[arg-type]
            loop=loop,
            feed=self.feed,
            next_tag=lambda: next(tags),
            list_members=self.list_members,
            joiner_problem=lambda hello: self.joiner_problem(hello),  # noqa: PLW0108
        )
        self._be_elected()

    def _be_elected(self) -> None:
        server = self.server
        asked = sends(PreVote, server.tick())
        term = server.node.current_term + 1
        for voter in self._others:
            server.receive(voter, PreVoteReply(term, asked[0].request_id, True))
        for voter in self._others:
            number = server.node.state.next_request_id() - 1
            server.receive(voter, VoteReply(server.node.current_term, number, True))
        assert server.node.role is Role.LEADER
        self.acknowledge()

    def feed(self, event: Event) -> None:
        self._take(self.server.step(event))
        self.acknowledge()

    def acknowledge(self) -> None:
        """What the voters who are awake would say to all that was sent."""
        node = self.server.node
        while self.are_awake:
            behind = [
                peer
                for peer, progress in node.progress.items()
                if peer in self._others and progress.match_index < node.log.last_index
            ]
            if not behind:
                return
            for peer in behind:
                if peer in node.progress:
                    session = node.progress[peer].session
                    answer = AppendReply(
                        node.current_term, 1, session, True, node.log.last_index, 0, 0
                    )
                    self._take(self.server.receive(peer, answer))

    def _take(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, MembershipChanged):
                self.memberships.changed(effect)
            elif isinstance(effect, Refused):
                self.memberships.refused(effect, failure_of(effect.reason, "", ""))

    def list_members(self) -> protocol.MemberListResult:
        known = self.configuration
        members = [
            protocol.MemberInfo(
                item.name,
                f"{item.id:016x}",
                item.address,
                "learner" if item.id in known.learners else "voter",
            )
            for item in known.members
        ]
        index = self.server.node.configuration_index
        return protocol.MemberListResult(CLUSTER, "node-01", members, index)

    @property
    def configuration(self) -> Configuration:
        known = self.server.node.configuration
        assert known is not None
        return known

    async def ask(self, request: protocol.MembershipRequest) -> protocol.MembershipResult | Failure:
        """What whoever asks is told."""
        told: asyncio.Future[protocol.MembershipResult | Failure]
        told = asyncio.get_running_loop().create_future()
        give_up_at = asyncio.get_running_loop().time() + 3
        self.memberships.change(request, told.set_result, give_up_at)  # type: ignore[arg-type]
        return await told

    async def refusal(self, request: protocol.MembershipRequest) -> Failure:
        """Why not; nothing was changed."""
        before = self.server.node.configuration_index, self.configuration
        answer = await self.ask(request)
        assert isinstance(answer, Failure), answer
        assert (self.server.node.configuration_index, self.configuration) == before
        return answer


def alone(*, learners: tuple[int, ...] = ()) -> Leader:
    return Leader(configuration((1,), learners))
