"""Leases in a simulated process, and when they may end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.consensus.types import Propose, Role, RoleChanged
from raft_agent.machine.commands import (
    ExpireLease,
    KeepLease,
    encode_commands,
    join_commands,
)
from raft_agent.machine.lease_clock import LeaseClock
from raft_agent.machine.results import LeaseKept, StatesDisputed, WriteDone
from tests.sim.store_client import KEYS
from tests.sim.store_log import StoreLog
from tests.version2 import in_words_of_version_1

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.process import Process

_LOOK_AGAIN_US = 50_000
_ONE_TURN_US = 1_000


class LeaseKeeper:
    """The host's part: as leader it proposes the end of leases whose time is over."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._clock = LeaseClock()
        self._due_us: int | None = None

    def begin(self) -> None:
        """The process starts."""
        self._clock = LeaseClock()
        self._due_us = None

    def role(self, change: RoleChanged) -> None:
        if change.role is not Role.LEADER:
            self._clock.follow()
            self._due_us = None
        elif not self._clock.leads:
            self._clock.lead(self._process.machine.leases, self._process.clock.now_us())
            self._arm()

    def applied(self) -> None:
        """A batch was applied."""
        if self._clock.leads:
            self._clock.applied(self._process.clock.now_us())
            self._arm()

    def _arm(self) -> None:
        due_us = self._clock.next_due_us()
        if due_us is None or (self._due_us is not None and due_us >= self._due_us):
            return
        self._due_us = due_us
        process = self._process
        delay_us = max(process.clock.until_us(due_us), _LOOK_AGAIN_US) + _ONE_TURN_US
        process.cluster.clock.after(delay_us, process.run, self._look, process.boots, due_us)

    def _look(self, boot: int, due_us: int) -> None:
        process = self._process
        if boot != process.boots or due_us != self._due_us:
            return
        self._due_us = None
        ends = self._clock.due(process.clock.now_us())
        if ends:
            commands = encode_commands([ExpireLease(*end) for end in ends])
            tag = process.service.nobodys_tag()
            payload = join_commands(process.wall_ms(), len(ends), [commands])
            process.step(Propose(tag, len(ends), payload))
        if self._clock.leads:
            self._arm()


@dataclass(frozen=True, slots=True)
class Ended:
    """A lease ended for want of renewals, by the entry `index`, applied at `at_us` first."""

    index: int
    at_us: int


class LeaseChecks:
    """What became of leases in a run, by the log alone."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._seen_index = 0
        self.log = StoreLog(cluster, KEYS)
        self.ended: dict[int, Ended] = {}

    def applied(self, batch: Batch, results: list[Any] | None) -> None:
        """Some process has applied this batch; the first one tells what it was."""
        if batch.first_index <= self._seen_index:
            return
        self._seen_index = batch.last_index
        if batch.kind != BatchKind.COMMANDS or results is None:
            return
        if isinstance(results[0], StatesDisputed):
            return
        commands = in_words_of_version_1(batch.payload, batch.count)
        for offset, (command, result) in enumerate(zip(commands, results, strict=True)):
            self.log.applied(batch.first_index + offset, command, result)
            if isinstance(command, ExpireLease):
                self._expired(command, result, batch.first_index + offset)
            elif isinstance(command, KeepLease) and isinstance(result, LeaseKept):
                self._cluster.seen["lease_kept"] += 1

    def _expired(self, command: ExpireLease, result: Any, index: int) -> None:
        if isinstance(result, WriteDone):
            self._cluster.seen["lease_ended"] += 1
            self._cluster.seen["leased_key_ended"] += result.deleted
            self.ended[command.lease] = Ended(index, self._cluster.clock.now_us)
        elif isinstance(result, LeaseKept):
            self._cluster.seen["lease_end_was_too_late"] += 1

    def check(self) -> None:
        """No lease has ended before its time, counted from each renewal that was acknowledged: from
        when its client asked, as the fastest clock shows time."""
        fastest_ppm = max(self._cluster.options.skew_ppm)
        for call in self._cluster.oracle.calls:
            match call.action[0], call.output:
                case "grant", int(lease):
                    pass
                case "keep", None:
                    lease = call.action[1]
                case _:
                    continue
            ended = self.ended.get(lease)
            if ended is None or call.index >= ended.index:
                continue
            ttl_us = self._cluster.options.clients.lease_ttl_ms * 1000
            lived_us = ended.at_us - call.asked_us
            if lived_us * (1_000_000 + fastest_ppm) < ttl_us * 1_000_000:
                raise self._cluster.checks.violation(
                    f"a lease ended before its time (lease={lease} lived_us={lived_us})"
                )
