"""A node as its clients see it: takes what they ask to whoever can do it, and brings the answers
back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

from raft_agent.api import protocol
from raft_agent.api.host import Backup, Failure, Outcome
from raft_agent.api.protocol import ErrorCode
from raft_agent.config import Config
from raft_agent.consensus.types import (
    MembershipChanged,
    Proposed,
    ReadReady,
    Recovered,
    RefusalReason,
    Refused,
    TransferDone,
)
from raft_agent.machine.commands import Command
from raft_agent.machine.machine import Machine
from raft_agent.runtime.audit import Audit
from raft_agent.runtime.backups import begin_backup
from raft_agent.runtime.barriers import Barriers
from raft_agent.runtime.changes import Changes
from raft_agent.runtime.changes import Request as ChangeRequest
from raft_agent.runtime.engine import Answer, Engine, now_us
from raft_agent.runtime.events import EventLog
from raft_agent.runtime.export_side import ExportSide
from raft_agent.runtime.joining import Doorkeeper
from raft_agent.runtime.kernel_side import KernelSide
from raft_agent.runtime.leaders import Transfers, forward_to_leader
from raft_agent.runtime.lease_keeper import LeaseKeeper
from raft_agent.runtime.memberships import Memberships
from raft_agent.runtime.proposals import Proposals
from raft_agent.runtime.readings import Readings
from raft_agent.runtime.refusals import failure_of, why_not_leading
from raft_agent.runtime.rescue import Gatherer, Rescue
from raft_agent.runtime.states import StateChecks, flip_bit
from raft_agent.runtime.versions import VersionKeeper
from raft_agent.runtime.views import Views
from raft_agent.transport.transport import Transport

if TYPE_CHECKING:
    from raft_agent.http.source import Reading

Rebuild: TypeAlias = Callable[[str, bool, Callable[[protocol.RebuildResult | Failure], None]], None]

# Hand-overs and changes of the members; proposals count from 1 on, reads downwards.
_TAGS = 1 << 62


class Front:
    """Implements `api.host.Host` and `http.source.Source`. `readings` is set by whoever builds the
    node, before anybody asks.
    """

    readings: Readings

    def __init__(
        self,
        *,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        machine: Machine,
        transport: Transport,
        views: Views,
        events: EventLog,
        kernel: KernelSide,
        exports: ExportSide,
        proposals: Proposals,
        lease_keeper: LeaseKeeper,
        tell: Callable[..., None],
        versions: VersionKeeper,
    ) -> None:
        self.node_name = config.server.node_id
        self.machine = machine
        self.unfit: Failure | None = None
        self._may_flip = config.fault_injection
        self._rebuild: Rebuild | None = None
        self._node = engine.node
        self._transport = transport
        self._views = views
        self._events = events
        self._audit = Audit(events, lambda: self._node.current_term, loop.time)
        self._kernel = kernel
        self._exports = exports
        self._proposals = proposals
        self._lease_keeper = lease_keeper
        self.barriers = Barriers(
            loop,
            engine.feed,
            lambda: machine.last_applied,
            patience_s=max(1.0, 4 * config.timing.election_timeout_max_ms / 1000),
        )
        tags = count(_TAGS)
        self._transfers = Transfers(engine.node, engine.feed, lambda: next(tags))
        self._memberships = Memberships(
            node=engine.node,
            transport=transport,
            loop=loop,
            feed=engine.feed,
            next_tag=lambda: next(tags),
            list_members=views.member_list,
            joiner_problem=versions.joiner_problem,
        )
        self._rescue = Rescue(
            node=engine.node,
            machine=machine,
            transport=transport,
            loop=loop,
            feed=engine.feed,
            next_tag=lambda: next(tags),
            configured={peer.id: peer.address for peer in config.peers},
        )
        self.gatherer = Gatherer(
            node=engine.node,
            memberships=self._memberships,
            transport=transport,
            loop=loop,
            tell=tell,
        )
        self._states = StateChecks(engine.node, loop, engine.feed)
        self._doorkeeper = Doorkeeper(config.cluster.token, loop.time)
        self._changes = Changes(self, self._memberships, self._doorkeeper, loop)

    def give_up(self, failure: Failure) -> None:
        """The node ends or its disk failed: whoever waits hears so."""
        self.barriers.give_up(failure)
        self._changes.give_up(failure)
        self.gatherer.stop()
        self._states.give_up(failure)
        self._rescue.give_up(failure)
        self._memberships.give_up(failure)

    def give_up_reads(self, failure: Failure) -> None:
        """Nothing is applied here any more, until something else takes the state's place."""
        self.barriers.give_up_waiting(failure)

    def rebuild_with(self, rebuild: Rebuild) -> None:
        """What `rebuild` does; comes before anybody asks."""
        self._rebuild = rebuild

    def answered(self, answer: Answer) -> None:
        """The core has answered what one of them asked."""
        if isinstance(answer, Proposed):
            self._proposals.proposed(answer)
        elif isinstance(answer, ReadReady):
            self.barriers.ready(answer)
        elif isinstance(answer, TransferDone):
            self._transfers.answered(answer.tag, self._views.member_name(answer.leader))
        elif isinstance(answer, MembershipChanged):
            self._memberships.changed(answer)
        elif isinstance(answer, Recovered):
            self._rescue.answered(answer)
        else:
            self._refused(answer)

    def _refused(self, answer: Refused) -> None:
        leader = self._views.member_name(answer.leader) if answer.leader else ""
        failure = failure_of(answer.reason, leader, self._node.state.failed)
        if self._rescue.owns(answer.tag):
            self._rescue.answered(answer)
        elif self._memberships.owns(answer.tag):
            self._memberships.refused(answer, failure)
        elif self._proposals.owns(answer.tag):
            self._proposals.refused(answer.tag, failure)
        elif self.barriers.owns(answer.tag):
            passing = (RefusalReason.NO_LEADER, RefusalReason.NOT_LEADER)
            self.barriers.refused(answer.tag, failure, may_pass=answer.reason in passing)
        else:
            self._transfers.answered(answer.tag, failure)

    # --- Host

    def propose(self, commands: Sequence[Command], done: Callable[[Outcome], None]) -> None:
        self._proposals.add(commands, done)

    def read_barrier(self, done: Callable[[Failure | None], None], *, lease: bool = False) -> None:
        self.barriers.add(done, lease=lease)

    def lease_times_ms(self) -> dict[int, int]:
        return self._lease_keeper.remaining_ms()

    def stale_age_ms(self) -> int | None:
        age_us = self._node.stale_age_us(now_us())
        return None if age_us is None else age_us // 1000

    def forward(self, request: protocol.Request, done: Callable[[bytes | Failure], None]) -> None:
        forward_to_leader(self._node, self._transport, request, done)

    def transfer_leadership(self, target: str, done: Callable[[str | Failure], None]) -> None:
        self._transfers.begin(target, done)

    def change_membership(
        self,
        request: ChangeRequest,
        done: Callable[[protocol.MembershipResult | Failure], None],
        *,
        may_forward: bool,
        certified: str = "",
    ) -> None:
        self._changes.change(request, done, may_forward=may_forward, certified=certified)

    def recover(
        self,
        request: protocol.Recover,
        done: Callable[[protocol.RecoverResult | Failure], None],
    ) -> None:
        self._rescue.recover(request, done)

    def begin_backup(self) -> Backup | Failure:
        return begin_backup(self._node, self.machine)

    def join_challenge(self) -> bytes:
        return self._doorkeeper.challenge()

    def is_leader(self) -> bool:
        return self._node.state.leadership is not None

    def why_not_leading(self) -> Failure:
        return why_not_leading(self._node, self._views.leader_name() or "")

    def leader_name(self) -> str | None:
        return self._views.leader_name()

    def status(self) -> protocol.StatusResult:
        return self._views.status()

    def health(self) -> protocol.HealthResult:
        return self._views.health()

    def vitals(self) -> protocol.VitalsResult:
        return self.readings.vitals()

    def member_list(self) -> protocol.MemberListResult:
        return self._views.member_list()

    def kernel(self) -> protocol.KernelResult:
        return self._kernel.report()

    def set_fault(self, request: protocol.FaultSet) -> protocol.FaultsResult | Failure:
        return self._kernel.set_fault(request)

    def heal_faults(self, request: protocol.FaultHeal) -> protocol.FaultsResult | Failure:
        return self._kernel.heal_faults(request)

    def export_list(self) -> protocol.ExportListResult:
        return self._exports.listing()

    def export_dump(
        self,
        name: str,
        limit: int,
        done: Callable[[protocol.ExportDumpResult | Failure], None],
    ) -> None:
        self._exports.dump(name, limit, done)

    def watch_export(
        self, name: str, on_event: Callable[[protocol.ExportEvent], None]
    ) -> Callable[[], None] | Failure:
        return self._exports.watch(name, on_event)

    def flip_state(self, key: str) -> Failure | None:
        if not self._may_flip:
            return Failure(
                ErrorCode.REFUSED,
                "This agent was not started for tests with faults",
                "Start it with raft-agent --enable-fault-injection",
            )
        if not flip_bit(self.machine, key):
            return Failure(ErrorCode.KEY_NOT_FOUND, f'There is no key "{key}" with a value')
        return None

    def check_states(self, done: Callable[[protocol.StateCheckResult | Failure], None]) -> None:
        self._states.check(done, self.why_not_leading)

    def rebuild(
        self, *, force: bool, done: Callable[[protocol.RebuildResult | Failure], None]
    ) -> None:
        state = self._node.state
        reason = state.failed or (self.unfit.error if self.unfit is not None else "")
        if self._rebuild is None or not (reason or force):
            done(
                Failure(
                    ErrorCode.REFUSED,
                    "Nothing is known to be wrong with what this node holds",
                    "Compare it with the others: raftctl doctor --cluster; --force rebuilds it all "
                    "the same",
                )
            )
            return
        self._rebuild(reason or "it was asked to", force, done)

    def audit(self, who: str, what: str, outcome: str) -> None:
        self._audit.add(who, what, outcome)

    def recent_events(self, limit: int) -> list[protocol.EventItem]:
        return self._events.recent(limit)

    def subscribe_events(
        self, on_event: Callable[[protocol.EventItem], None]
    ) -> Callable[[], None]:
        return self._events.subscribe(on_event)

    # --- Source

    def reading(self) -> Reading:
        return self.readings.reading()

    def not_ready(self) -> str:
        return self.readings.not_ready()
