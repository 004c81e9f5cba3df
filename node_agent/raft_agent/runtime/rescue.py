"""A recovery, as the member sees it at which it is asked for: what the other survivors have,
whether this is the one to go on from, and how they come in again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import TypeAlias

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.generations import generation_of
from raft_agent.consensus.node import Node
from raft_agent.consensus.recovery import Verdict, judge, standing_of
from raft_agent.consensus.types import (
    Configuration,
    Event,
    Member,
    Recover,
    Recovered,
    RefusalReason,
    Refused,
    Role,
    Survivor,
)
from raft_agent.machine.machine import Machine
from raft_agent.machine.numbers import next_floor
from raft_agent.runtime.memberships import Memberships
from raft_agent.runtime.refusals import failure_of
from raft_agent.transport.handshake import Hello
from raft_agent.transport.transport import ProbeFailed, Transport

Done: TypeAlias = Callable[[protocol.RecoverResult | Failure], None]

_PROBE_TIMEOUT_S = 1.5
_LOOK_EVERY_S = 0.3
_JOIN_PATIENCE_S = 3.0
# A disk that takes longer has failed; the caller has to look what became of it.
_DURABLE_WITHIN_S = 10.0


class Rescue:
    """`feed` and `next_tag`: the core's. `configured`: addresses of members by name, as the
    configuration file has them, where a member may be that has moved."""

    def __init__(
        self,
        *,
        node: Node,
        machine: Machine,
        transport: Transport,
        loop: asyncio.AbstractEventLoop,
        feed: Callable[[Event], None],
        next_tag: Callable[[], int],
        configured: dict[str, str],
    ) -> None:
        self._node = node
        self._machine = machine
        self._transport = transport
        self._loop = loop
        self._feed = feed
        self._next_tag = next_tag
        self._configured = configured
        self._asked: dict[int, asyncio.Future[int | RefusalReason]] = {}
        self._tasks: dict[asyncio.Task[None], Done] = {}

    def recover(self, request: protocol.Recover, done: Done) -> None:
        """Ask the others; go on from here if that is right and `accept_data_loss` is given."""
        task = self._loop.create_task(self._recover(request, done))
        self._tasks[task] = done
        task.add_done_callback(lambda task: self._tasks.pop(task, None))

    def give_up(self, failure: Failure) -> None:
        """The node ends or its disk failed."""
        tasks, self._tasks = self._tasks, {}
        for task, done in tasks.items():
            if task.cancel():
                done(failure)

    def owns(self, tag: int) -> bool:
        return tag in self._asked

    def answered(self, answer: Recovered | Refused) -> None:
        """The core's word."""
        future = self._asked.pop(answer.tag)
        if not future.done():
            future.set_result(answer.index if isinstance(answer, Recovered) else answer.reason)

    async def _recover(self, request: protocol.Recover, done: Done) -> None:
        configuration = self._node.configuration
        if configuration is None:
            done(failure_of(RefusalReason.FRESH, "", ""))
            return
        survivors, members = await self._survey(configuration)
        verdict = judge(self._node.state, survivors)
        names = {member.id: member.name for member in configuration.members}
        best = names.get(verdict.best, "")
        failure = _refusal(verdict, best)
        if not request.accept_data_loss or failure is not None:
            if request.accept_data_loss and failure is not None:
                done(failure)
                return
            refusal, hint = (failure.error, failure.hint) if failure is not None else ("", "")
            done(protocol.RecoverResult(best, members, refusal, hint))
            return
        generation = secrets.randbits(64) | 1
        tag = self._next_tag()
        future = self._asked[tag] = self._loop.create_future()
        self._feed(Recover(tag, generation, tuple(survivors), self._floor()))
        await asyncio.wait([future], timeout=_DURABLE_WITHIN_S)
        if not future.done():
            what = "The disk has not confirmed the new generation; it may still come about"
            hint = "Look at this node's log, and at its status: raftctl status"
            done(Failure(ErrorCode.UNKNOWN_OUTCOME, what, hint))
            return
        outcome = future.result()
        if isinstance(outcome, RefusalReason):
            done(failure_of(outcome, "", self._node.state.failed))
            return
        done(protocol.RecoverResult(best, members, generation=f"{generation:016x}", index=outcome))

    def _floor(self) -> int:
        machine, last_index = self._machine, self._node.log.last_index
        return next_floor(machine.revision, machine.floor, machine.last_applied, last_index)

    # --- the others

    async def _survey(
        self, configuration: Configuration
    ) -> tuple[list[Survivor], list[protocol.SurveyedMember]]:
        """Who of the members answers, and what all of them are like."""
        others = [m for m in configuration.members if m.id != self._node.state.member_id]
        answers = await asyncio.gather(*(self._ask(member) for member in others))
        own = standing_of(self._node.state)
        survivors: list[Survivor] = []
        rows: dict[int, protocol.SurveyedMember] = {}
        for member, (address, answer) in zip(others, answers, strict=True):
            if isinstance(answer, str) or answer.standing is None:
                detail = answer if isinstance(answer, str) else _empty_words(member, answer)
                row = _row(member, address, "unreachable", detail=detail)
            else:
                said = answer.standing
                survivors.append(Survivor(member.id, member.name, address, said))
                state = "survives" if said.is_able else "unable"
                if said.generation != own.generation:
                    state = "other_generation"
                detail = "knows a leader" if said.knows_leader else ""
                row = _row(member, address, state, (said.last_term, said.last_index), detail)
            rows[member.id] = row
        for member in configuration.members:
            if member.id == self._node.state.member_id:
                last = (own.last_term, own.last_index)
                rows[member.id] = _row(member, member.address, "here", last)
        ordered = sorted(configuration.members, key=lambda member: member.name)
        return survivors, [rows[member.id] for member in ordered]

    async def _ask(self, member: Member) -> tuple[str, Hello | str]:
        """Where the member answers and what it says; in words why it does nowhere."""
        announced = self._transport.announced(member.id)
        places = (member.address, announced, self._configured.get(member.name, ""))
        addresses = [place for place in dict.fromkeys(places) if place]
        answers = await asyncio.gather(*(self._probe(member, place) for place in addresses))
        for address, answer in zip(addresses, answers, strict=True):
            if not isinstance(answer, str) and answer.standing is not None:
                return address, answer
        return addresses[0], answers[0]

    async def _probe(self, member: Member, address: str) -> Hello | str:
        configuration = self._node.configuration
        cluster_id = configuration.cluster_id if configuration is not None else ""
        try:
            hello = await self._transport.probe(address, _PROBE_TIMEOUT_S)
        except ProbeFailed as failed:
            return str(failed)
        if hello.cluster_id not in ("", cluster_id):
            return f"{address}: {hello.name} answers, of another cluster"
        if hello.member_id != member.id or not hello.cluster_id:
            return _empty_words(member, hello)  # votes for nobody, and has no log to compare
        return hello


class Gatherer:
    """While this node leads, has those survivors join again that the generation awaits, as soon as
    they have put their data aside. `tell` puts an event into the log."""

    def __init__(
        self,
        *,
        node: Node,
        memberships: Memberships,
        transport: Transport,
        loop: asyncio.AbstractEventLoop,
        tell: Callable[..., None],
    ) -> None:
        self._node = node
        self._memberships = memberships
        self._transport = transport
        self._loop = loop
        self._tell = tell
        self._task: asyncio.Task[None] | None = None
        self._told: dict[int, str] = {}

    def look(self) -> None:
        """The role or the configuration has changed."""
        if self._task is None and self._awaited():
            self._task = self._loop.create_task(self._run())
            self._task.add_done_callback(self._ended)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._task = None

    def _awaited(self) -> tuple[Member, ...]:
        if self._node.role is not Role.LEADER:
            return ()
        return generation_of(self._node.configuration).awaited

    async def _run(self) -> None:
        while awaited := self._awaited():
            for member in awaited:
                await self._take_in(member)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _take_in(self, member: Member) -> None:
        try:
            hello = await self._transport.probe(member.address, _PROBE_TIMEOUT_S)
        except ProbeFailed:
            return
        if hello.name != member.name or hello.cluster_id or self._node.role is not Role.LEADER:
            return
        joined: asyncio.Future[protocol.MembershipResult | Failure] = self._loop.create_future()

        def done(outcome: protocol.MembershipResult | Failure) -> None:
            if not joined.done():
                joined.set_result(outcome)

        request = protocol.Join(0, member.name, member.address)
        self._memberships.change(request, done, self._loop.time() + _JOIN_PATIENCE_S)
        outcome = await joined
        if not isinstance(outcome, Failure):
            self._tell("survivor_taken_in", name=member.name, address=member.address)
        elif outcome.code is ErrorCode.REFUSED and self._told.get(member.id) != outcome.error:
            # It is tried again and again; people have to do something about this.
            self._told[member.id] = outcome.error
            self._tell("survivor_refused", name=member.name, reason=outcome.error)


def _refusal(verdict: Verdict, best: str) -> Failure | None:
    if verdict.refusal is None:
        return None
    failure = failure_of(verdict.refusal, "", "")
    if verdict.refusal is RefusalReason.STATE_DIFFERS:
        hint = "Have it read its state from its own disk again first: raftctl rebuild --no-wait"
        return Failure(failure.code, failure.error, hint)
    if verdict.refusal is not RefusalReason.RECOVER_ELSEWHERE:
        return failure
    return Failure(
        failure.code,
        f"{best} has a more complete log: recovering here would lose what it has",
        f"At {best}: raftctl --node {best} recover --accept-data-loss",
        best,
    )


def _empty_words(member: Member, hello: Hello) -> str:
    if hello.name == member.name and not hello.cluster_id:
        return "its agent runs, with an empty data directory"
    return f"{hello.name} answers there under another id"


def _row(
    member: Member, address: str, state: str, last: tuple[int, int] = (0, 0), detail: str = ""
) -> protocol.SurveyedMember:
    """`last`: term and index of its last entry."""
    member_id = f"{member.id:016x}"
    return protocol.SurveyedMember(member.name, member_id, address, state, *last, detail)
