"""A whole simulated cluster: nodes, network, disks, clients, and what goes wrong with them."""

from __future__ import annotations

import random
from collections import Counter

from raft_agent.consensus.node import Node
from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Effect,
    Event,
    Message,
    PreVoteReply,
    Received,
    RefusalReason,
    Role,
    VoteReply,
)
from tests.sim.calls import Attempt
from tests.sim.checks import Checks
from tests.sim.clock import Clock
from tests.sim.exporting import ExportChecks
from tests.sim.faults import Faults
from tests.sim.leasing import LeaseChecks
from tests.sim.linearizability import KeyValueModel, Model, Operation, check
from tests.sim.network import Network
from tests.sim.operators import Operator
from tests.sim.options import Options
from tests.sim.oracle import Oracle
from tests.sim.process import Process
from tests.sim.store_client import KEYS
from tests.sim.store_model import StoreModel
from tests.sim.survival import Survival
from tests.sim.trace import EVENT_NUMBERS, Tracer
from tests.sim.versions import Installer, VersionAsk, VersionChecks, VersionPromise

# Late messages, then elections: 18 timeouts were the most that 300 seeds needed.
_HEALING_US = 10_000_000
_HEALING_TIMEOUTS = 40
_LOOK_EVERY_US = 50_000
# So long clients that send something again may go on with that.
_LATE_CLIENTS_US = 60_000_000
# What failed is tried again after a while.
_MAPS_FOLLOW_US = 30_000_000
_BEGAN_MS = 1_700_000_000_000
_LINEARIZABILITY_STEPS = 10_000_000


class Cluster:
    """One run. `events` counts the core's steps, `seen` what happened, by name."""

    def __init__(self, seed: int, options: Options, tracer: Tracer | None = None) -> None:
        self.seed = seed
        self.options = options
        self.tracer = tracer
        self.clock = Clock()
        self.seen: Counter[str] = Counter()
        self.events = 0
        self._deadline_us = 0
        self.trace_hash = 0
        self.names = tuple(f"node-{index + 1}" for index in range(options.nodes))
        self.checks = Checks(self)
        self.leases = LeaseChecks(self)
        self.version_checks = VersionChecks(self)
        self.export_checks = ExportChecks(self)
        if tracer is not None:
            tracer.begin(self)
        self.processes = [Process(self, index) for index in range(options.size)]
        self._rng = self.rng("cluster")
        self.network = Network(
            self.clock,
            self.rng("network"),
            options.network,
            nodes=options.size,
            seen=self.seen,
            is_up=lambda index: self.processes[index].node is not None,
            on_connected=self._connected,
            on_lost=self._connection_lost,
        )
        self.survival = Survival(self)
        self.faults = Faults(self)
        self.operator = Operator(self)
        self.installer = Installer(self)
        self.oracle = Oracle(self)

    def rng(self, name: str) -> random.Random:
        """A stream of random numbers of its own for each part, so that one more draw in one of
        them does not change all the others."""
        return random.Random(f"{self.seed}/{name}")

    def wall_ms(self) -> int:
        """What a clock on the wall shows that is right."""
        return _BEGAN_MS + self.clock.now_us // 1000

    # --- the run

    def run(self) -> None:
        """Chaos, healing, final checks. Raises Violation, or whatever the core raises."""
        for process in self.processes:
            self.clock.after(self._rng.randrange(300_000), self.faults.start_first, process)
        self.faults.begin()
        self.operator.begin()
        self.installer.begin()
        while self.events < self.options.events and self.clock.advance():
            pass
        self._heal()
        self._check_end()

    def _heal(self) -> None:
        self.oracle.has_stopped = True
        self.installer.end()
        self.faults.end()
        self.operator.end()
        timeouts_us = _HEALING_TIMEOUTS * self.options.settings.election_timeout_max_us
        self._deadline_us = self.clock.now_us + _HEALING_US + timeouts_us
        look_us = self.clock.now_us
        while not (self.clock.now_us >= look_us and self._has_converged()):
            if self.clock.now_us >= look_us:
                look_us = self.clock.now_us + _LOOK_EVERY_US
            if self._is_overdue():
                raise self.checks.violation(f"no progress after healing: {self._describe()}")
            self.clock.advance()
        leader = self.leader()
        if leader is None or leader.node is None:
            raise self.checks.violation("the leader is gone")
        fresh_from = self.checks.committed.last_index
        self.oracle.write_last(leader)
        while not (self.checks.committed.last_index > fresh_from and self._has_converged()):
            if self._is_overdue():
                raise self.checks.violation(f"no fresh write after healing: {self._describe()}")
            self.clock.advance()
            leader = self.leader()
            if self.oracle.last_was_refused and leader is not None:
                self.oracle.write_last(leader)
        self._leases_end()
        self._maps_follow()

    def _maps_follow(self) -> None:
        """What was refused by a kernel is tried again, and in the end all maps hold what the log
        says."""
        self._deadline_us = self.clock.now_us + _MAPS_FOLLOW_US
        look_us = self.clock.now_us
        while not (
            self._has_converged()
            and all(self.export_checks.has_settled(process) for process in self.members())
        ):
            while self.clock.now_us < look_us:
                self.clock.advance()
            look_us = self.clock.now_us + _LOOK_EVERY_US
            # One that was killed while it exported has to read its log first.
            if self._is_overdue():
                raise self.checks.violation("exported maps do not come to the end of the log")

    def _leases_end(self) -> None:
        """Nobody keeps leases alive any more, so they have to go, once clients have the answers to
        what they had begun."""
        patience_us = _HEALING_US + self.options.clients.lease_ttl_ms * 1000
        look_us = self.clock.now_us
        last_grant_us = self.clock.now_us + _LATE_CLIENTS_US
        self._deadline_us = self.clock.now_us + patience_us
        while not self._has_converged() or any(len(p.machine.leases) for p in self.members()):
            if self.clock.now_us >= look_us:
                look_us = self.clock.now_us + _LOOK_EVERY_US
                if look_us < last_grant_us and self.oracle.still_asks:
                    self._deadline_us = self.clock.now_us + patience_us
            if self._is_overdue():
                raise self.checks.violation("a lease that nobody keeps alive does not end")
            self.clock.advance()

    def _is_overdue(self) -> bool:
        """Whether healing has taken too long; clients may still be sending what they began."""
        late_us = self.clock.now_us - self._deadline_us
        return late_us > 0 and late_us > self._reading_us() + self._catching_up_us()

    def _reading_us(self) -> int:
        """How long it takes to read the whole log batch by batch, and to send the largest snapshot
        chunk by chunk: some nodes keep nothing in memory, apply one batch at a time, and have a
        slow disk."""
        disk, network = self.options.disk, self.options.network
        access_us = disk.fsync_us + disk.jitter_us
        batches = max(len(process.disk.durable.batches) for process in self.processes)
        largest = max(process.disk.shelf.largest_bytes for process in self.processes)
        chunks = largest // self.options.settings.snapshot_chunk_bytes
        chunk_us = 2 * (network.latency_us + network.jitter_us + access_us)
        return 3 * batches * access_us + chunks * chunk_us

    def _catching_up_us(self) -> int:
        """How long the last member takes to get what it lacks, when it comes entry by entry and
        each waits for the one before it to be on a slow disk."""
        disk, network = self.options.disk, self.options.network
        ends = [process.disk.durable.last_index for process in self.processes]
        round_us = 2 * (network.latency_us + network.jitter_us) + disk.fsync_us + disk.jitter_us
        return (max(ends) - min(ends)) * round_us

    def members(self) -> list[Process]:
        """The processes whose ids stand in the leader's configuration."""
        leader = self.leader()
        configuration = leader.node.configuration if leader and leader.node else None
        if configuration is None:
            return []
        ids = {member.id for member in configuration.members}
        return [p for p in self.processes if p.member_id in ids and not self._is_too_late(p)]

    def _is_too_late(self, process: Process) -> bool:
        """Whether a founding member has missed everything: it could only be brought in for as long
        as the log went back to the first entry. It can be replaced, like one that has lost its
        disk."""
        node = process.node
        return self.survival.has_no_log(process) and node is not None and node.role is Role.FRESH

    def leader(self) -> Process | None:
        """The leader of the highest term."""
        leading = [p for p in self.processes if p.node and p.node.role is Role.LEADER]
        return max(leading, key=lambda p: p.node.current_term if p.node else 0, default=None)

    def _has_converged(self) -> bool:
        """One leader whom all members follow, and all have applied the same log to its end; no
        change of the membership is under way, and who was removed knows."""
        leader = self.leader()
        if leader is None or leader.node is None:
            return False
        if not self.operator.has_settled(leader.node):
            return False
        configuration = leader.node.configuration
        if configuration and not self.installer.has_settled(configuration, self.members()):
            return False
        last = (leader.node.log.last_index, leader.node.log.last_term)
        for process in self.members():
            node = process.node
            if node is None or node.leader_id != leader.member_id:
                return False
            if process.audits.flips or node.state.diverged_index:
                return False
            if process.machine.disputed_index:
                return False
            if (node.log.last_index, node.log.last_term) != last:
                return False
            if node.applied_index != last[0] or process.disk.durable.last_index != last[0]:
                return False
        return True

    def _describe(self) -> str:
        lines = []
        for process in self.processes:
            node = process.node
            if node is None:
                lines.append(f"{process.name} is down")
            else:
                lines.append(
                    f"{process.name} {node.role} term {node.current_term} "
                    f"leader {node.leader_id:x} "
                    f"commit {node.commit_index} last {node.log.last_index}"
                )
        return "; ".join(lines)

    def _check_end(self) -> None:
        members = self.members()
        first = members[0]
        committed = self.checks.committed
        for process in members:
            log = process.disk.durable
            if log.batches != committed.batches_from(log.base_index + 1):
                raise self.checks.violation(f"{process.name} has another log than is committed")
            if process.machine.digest() != first.machine.digest():
                raise self.checks.violation(f"{process.name} and {first.name} have other states")
        self.operator.check()
        messages = first.machine.messages_after(-1)
        self.oracle.check_messages([(message.index, message.text) for message in messages])
        # Log indexes as hints make the search straight: one that loses its way has found something.
        self._check_history(self.oracle.history(), KeyValueModel())
        if not self.leases.log.explains(self.oracle.store_calls()):
            self._check_history(self.oracle.store_history(), StoreModel(KEYS))
        self.leases.check()

    def _check_history(self, history: list[Operation], model: Model) -> None:
        result = check(history, model, max_steps=_LINEARIZABILITY_STEPS)
        self.seen["linearizability_steps"] += result.steps
        if not result:
            raise self.checks.violation(str(result))

    # --- what the processes tell

    def stepping(self, process: Process, event: Event) -> None:
        self.events += 1
        if self.tracer is not None:
            self.tracer.event(process, event)

    def stepped(self, process: Process, node: Node, event: Event, effects: list[Effect]) -> None:
        self.checks.stepped(process, node)
        number = EVENT_NUMBERS[type(event.message if isinstance(event, Received) else event)]
        # Integers and tuples of them hash the same in every interpreter.
        self.trace_hash = hash(
            (
                self.trace_hash,
                self.clock.now_us,
                process.index,
                number,
                node.current_term,
                node.commit_index,
                node.log.last_index,
                len(effects),
            )
        )

    def crashed_mid_step(self, process: Process, effect: Effect) -> None:
        self.seen["crash_mid_step"] += 1
        self.seen[f"crash_before_{type(effect).__name__}"] += 1
        self.faults.crash(process)

    def disk_failed(self, process: Process) -> None:
        self.faults.disk_failed(process)

    def crashed(self, process: Process) -> None:
        """Its process is gone, and the disk is what a crash leaves."""

    def recovered(self, process: Process, index: int) -> None:
        """A new generation has begun there."""
        raise self.checks.violation(f"{process.name} recovers unasked, with index {index}")

    def abandoned(self, process: Process) -> None:
        """What it has is to be put aside."""
        raise self.checks.violation(f"{process.name} abandons its data unasked")

    def refused_recovery(self, reason: RefusalReason) -> None:
        """Nobody may recover there."""

    # --- the network

    def send(
        self, process: Process, to: int, message: Message | VersionAsk | VersionPromise
    ) -> None:
        if isinstance(message, AppendEntries):
            if message.batches:
                self.seen["entries_sent"] += 1
        elif isinstance(message, PreVoteReply | VoteReply):
            answer = "granted" if message.granted else "refused"
            self.seen[f"{type(message).__name__}_{answer}"] += 1
        elif isinstance(message, AppendReply) and not message.success:
            self.seen["append_refused"] += 1
        for target in self.processes:
            if target.member_id == to:
                self.network.send(
                    (process.index, target.index),
                    target.receive,
                    process.member_id,
                    to,
                    message,
                )
                return
        self.seen["message_to_nobody"] += 1

    def forward(self, process: Process, leader_id: int, attempt: Attempt) -> None:
        """A client's write on its way from a follower to the leader; it may get lost."""
        for target in self.processes:
            if target.member_id == leader_id and self.network.reaches(process.index, target.index):
                self.seen["write_forwarded"] += 1
                delay_us = self.options.network.latency_us
                self.clock.after(delay_us, target.run, self._forwarded, target, attempt)
                return
        attempt.lost()

    def _forwarded(self, target: Process, attempt: Attempt) -> None:
        target.service.write(attempt, forwarded=True)

    def _connected(self, index: int, other: int) -> None:
        peer = self.processes[other]
        self.processes[index].connected(peer)

    def _connection_lost(self, index: int, other: int) -> None:
        self.processes[index].connection_lost(self.processes[other].member_id)
