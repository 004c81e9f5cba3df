"""A majority is lost for good: an operator goes on from one of the survivors, and the dead return.

First a cluster lives through trouble as in any other run. Then all but some survivors die in one
moment; what is lost with them is lost for the checks as well, which begin anew with what the
survivor has from which the cluster goes on. Members of different generations are told apart where
messages arrive, by the rule that the agent's handshake has.
"""

from __future__ import annotations

from collections.abc import Iterable

from raft_agent.consensus import changes
from raft_agent.consensus.generations import Kinship, generation_of, is_awaited, kinship
from raft_agent.consensus.recovery import standing_of
from raft_agent.consensus.types import (
    Configuration,
    Joining,
    Member,
    MembershipChange,
    Message,
    Recover,
    RefusalReason,
    Role,
    Superseded,
    Survivor,
)
from raft_agent.machine.numbers import next_floor
from tests.sim.cluster import Cluster
from tests.sim.eras import Eras
from tests.sim.logfile import LogFile
from tests.sim.operators import Change
from tests.sim.options import Options
from tests.sim.process import Process
from tests.sim.service import RECOVERY_TAG

_LEADERLESS_TIMEOUTS = 3
_TRY_AGAIN_US = 30_000
_PATIENCE_US = 60_000_000
_CRASHES = 2


class _Unleased:
    """Clients have no leases here."""

    def applied(self, *_: object) -> None:
        pass


class RescuedCluster(Cluster):
    """`survivors`: the processes that are left, by number. `returning`: the dead that come back in
    the end, with their disks."""

    def __init__(
        self, seed: int, options: Options, survivors: Iterable[int], returning: Iterable[int]
    ) -> None:
        super().__init__(seed, options)
        self.eras = Eras(self.checks)
        self.checks = self.eras  # type: ignore[assignment]
        self.leases = _Unleased()  # type: ignore[assignment]
        self._random = self.rng("rescue")
        self._survivors = [self.processes[index] for index in survivors]
        self._returning = [self.processes[index] for index in returning]
        self._dead: set[int] = set()
        self._had = LogFile()
        self._chosen: Process | None = None
        self._generation = 0
        self._refused: list[tuple[Process, RefusalReason]] = []
        self._outcome: int | RefusalReason = 0
        self._applied = (0, 0)
        self._crashes = 0

    # --- the run

    def run(self) -> None:
        for process in self.processes:
            self.clock.after(self._random.randrange(300_000), self.faults.start_first, process)
        self.faults.begin()
        while self.events < self.options.events or not self.checks.cluster_id:
            self.clock.advance()
        self.faults.end()
        self._refuses_while_all_is_well()
        self._disaster()
        self._recover()
        self._come_together()
        self._the_dead_return()
        self._check()

    def _pass(self, duration_us: int) -> None:
        until_us = self.clock.now_us + duration_us
        while self.clock.now_us < until_us:
            self.clock.advance()

    def _timeouts_us(self, count: int) -> int:
        return count * self.options.settings.election_timeout_max_us

    def _refuses_while_all_is_well(self) -> None:
        """With a majority in reach nobody goes on alone."""
        for process in self.processes:
            if process.node is not None and process.node.role is not Role.FRESH:
                self._ask_core(process, self._survey(process, self.processes))
                if not isinstance(self._outcome, RefusalReason):
                    raise self.checks.violation(f"{process.name} recovers beside a majority")
                self.seen[f"recovery_refused_{self._outcome.value}"] += 1

    def _disaster(self) -> None:
        self.oracle.has_lost_writes = True
        if self._random.random() < 0.6:
            self._leave_survivors_behind()
        for process in self.processes:
            if process not in self._survivors:
                self._dead.add(process.index)
                self.faults.crash(process, kill=False)
        # A power failure takes the rest along, which comes back.
        power_fails = self._random.random() < 0.5
        for process in self._survivors:
            # Bits that have turned in memory would be the truth where nobody is left to compare
            # with: who goes on from one of few starts it anew first (operations.md).
            if power_fails or process.audits.flips:
                self.faults.crash(process, kill=False)
        self.faults.start = self._start_living  # type: ignore[method-assign]
        self._pass(1_600_000)
        self._pass(self._timeouts_us(_LEADERLESS_TIMEOUTS))

    def _leave_survivors_behind(self) -> None:
        """Those who will be lost go on alone for a while, so that more is lost with them."""
        left = {process.index for process in self._survivors}
        links = [
            (a, b)
            for a in range(self.options.size)
            for b in range(self.options.size)
            if (a in left) != (b in left)
        ]
        self.network.block(links)
        for _ in range(6):
            self._pass(self._timeouts_us(2))
            leader = self.leader()
            if leader is not None and leader.index not in left:
                self.oracle.burst(leader, 10)
        self.network.unblock(links)

    def _start_living(self, process: Process) -> None:
        if process.index not in self._dead and process.node is None:
            process.start()

    # --- the operator

    def _survey(self, asked: Process, others: Iterable[Process]) -> list[Survivor]:
        """What `asked` hears of all others that run."""
        configuration = asked.node.configuration if asked.node else None
        members = {m.id for m in configuration.members} if configuration else set()
        return [
            Survivor(p.member_id, p.name, p.address, standing_of(p.node.state))
            for p in others
            if p is not asked and p.node is not None and p.member_id in members and not _is_fresh(p)
        ]

    def _ask_core(self, process: Process, survivors: list[Survivor]) -> None:
        node = process.node
        if node is None:
            return
        self._outcome = 0
        self._generation = self._random.getrandbits(63) | 1
        machine = process.machine
        floor = next_floor(
            machine.revision, machine.floor, machine.last_applied, node.log.last_index
        )
        self._had, self._chosen = process.disk.written.copy(), process
        self._applied = (
            machine.revision,
            machine.revision + node.log.last_index - machine.last_applied,
        )
        self.eras.begin(process)
        boot = process.boots
        crashes = self._dead and self._crashes < _CRASHES and self._random.random() < 0.6
        if crashes:
            # Between two effects, or below while the entry is on its way to the disk.
            process.crash_after = self._random.choice((0, 1, 2, 3, None))
        process.step(Recover(RECOVERY_TAG, self._generation, tuple(survivors), floor))
        if isinstance(self._outcome, RefusalReason):
            self.eras.take_back(process)
        elif crashes:
            self._crashes += 1
            disk = self.options.disk
            delay_us = self._random.randrange(2 * (disk.fsync_us + disk.jitter_us))
            self.clock.after(delay_us, self._crash_that, process, boot)
        if process.boots == boot and process.node is not None:
            process.crash_after = None

    def _crash_that(self, process: Process, boot: int) -> None:
        if process.boots == boot and process.node is not None:
            self.faults.crash(process, kill=self._random.random() < 0.3)

    def _recover(self) -> None:
        """Try it at all survivors, in any order, until one goes on."""
        give_up_us = self.clock.now_us + _PATIENCE_US
        while True:
            if self.clock.now_us > give_up_us:
                raise self.checks.violation(f"nobody can recover: {self._describe()}")
            self._pass(_TRY_AGAIN_US)
            able = [p for p in self._survivors if p.node and p.node.role is not Role.FRESH]
            if not able or len(able) < len(self._survivors):
                if not any(p.node is None for p in self._survivors) and not able:
                    return  # nobody who survives has ever had anything
                if any(p.node is None for p in self._survivors):
                    continue
            process = self._random.choice(able)
            self._ask_core(process, self._survey(process, able))
            if isinstance(self._outcome, RefusalReason):
                self.seen[f"recovery_refused_{self._outcome.value}"] += 1
                self._refused.append((process, self._outcome))
                self._is_rightly_refused(process, able)
                continue
            if self._recovery_came_about(process):
                self.seen["recovered"] += 1
                return

    def _is_rightly_refused(self, process: Process, able: list[Process]) -> None:
        logs = {p.index: (p.disk.written.last_term, p.disk.written.last_index) for p in able}
        is_best = logs[process.index] == max(logs.values())
        if self._outcome is RefusalReason.RECOVER_ELSEWHERE and is_best:
            raise self.checks.violation(f"{process.name} has the most and is sent elsewhere")

    def _recovery_came_about(self, process: Process) -> bool:
        """Wait until the new generation shows itself; False when a crash has undone it."""
        survivors = [p for p in self._survivors if p.node is not None]
        logs = {
            p.index: (p.disk.written.last_term, p.disk.written.last_index)
            for p in survivors
            if p is not process
        }
        had = (self._had.last_term, self._had.last_index)
        give_up_us = self.clock.now_us + _PATIENCE_US
        while self.clock.now_us < give_up_us:
            if process.node is not None and process.index in self.eras.moved:
                shown = process.node.generation.id
                durable = generation_of(process.disk.durable.configuration).id
                if shown and shown != durable:
                    raise self.checks.violation("a generation shows itself before it is on disk")
                if shown and logs and max(logs.values()) > had:
                    what = f"recovered at {process.name}, which has not the most"
                    raise self.checks.violation(what)
                if shown:
                    self._forget_lost_revisions()
                    return True
            elif process.node is not None:
                return False
            self.clock.advance()
        raise self.checks.violation(f"a recovery never ends: {self._describe()}")

    def _forget_lost_revisions(self) -> None:
        """What was given out for entries of which the survivor did not know whether they were
        committed: others may have stood in their place."""
        applied, all_of_it = self._applied
        self.oracle.forget_revisions(applied + 1, all_of_it)

    def crashed(self, process: Process) -> None:
        """A process has ended while its recovery was under way: which of the two is it now?"""
        if process is self._chosen and process.index in self.eras.moved:
            if generation_of(process.disk.durable.configuration).id == 0:
                self.seen["recovery_undone_by_crash"] += 1
                self.eras.take_back(process)
            else:
                self.seen["recovery_survived_crash"] += 1

    # --- what the processes tell

    def refused_recovery(self, reason: RefusalReason) -> None:
        self._outcome = reason

    def recovered(self, process: Process, index: int) -> None:  # noqa: ARG002
        self._outcome = index

    def abandoned(self, process: Process) -> None:
        """Its data is put aside; it comes back with an empty disk and another id."""
        self.seen["abandoned"] += 1
        process.crash(kill=False)
        process.new_disk()
        process.wait_to_be_joined()
        self.eras.move(process)
        self.clock.after(20_000, self._start_living, process)

    # --- the network, with handshakes

    def send(self, process: Process, to: int, message: Message) -> None:
        """As always; what arrives is of the generation that its sender had."""
        for target in self.processes:
            if target.member_id == to and process.node is not None:
                self.network.send(
                    (process.index, target.index),
                    self._arrives,
                    target,
                    process,
                    (process.member_id, process.node.generation.id, _is_fresh(process)),
                    to,
                    message,
                )

    def _arrives(
        self,
        target: Process,
        sender: Process,
        said: tuple[int, int, bool],
        to: int,
        message: Message,
    ) -> None:
        member_id, generation, was_fresh = said
        if was_fresh or self._welcomes(target, sender, member_id, generation):
            target.receive(member_id, to, message)

    def _connected(self, index: int, other: int) -> None:
        process, peer = self.processes[index], self.processes[other]
        if process.node is None or peer.node is None:
            return
        generation = peer.node.generation.id
        if _is_fresh(peer) or self._welcomes(process, peer, peer.member_id, generation):
            super()._connected(index, other)

    def _welcomes(self, own: Process, other: Process, member_id: int, generation: int) -> bool:
        """The listener's part of the handshake; a member of a former generation is told."""
        node = own.node
        if node is None or _is_fresh(own):
            return True
        kin = kinship(node.generation, generation)
        if kin is Kinship.SAME:
            return True
        self.seen[f"generation_{kin.value}"] += 1
        knows = other.node is not None and other.node.configuration is not None
        if kin is Kinship.FORMER and knows and other.member_id == member_id:
            awaited = is_awaited(node.generation, member_id)
            told = Superseded(own.member_id, node.generation.id, awaited)
            self.clock.after(1_000, self._tell, other, member_id, told)
        return False

    def _tell(self, process: Process, member_id: int, told: Superseded) -> None:
        if process.member_id == member_id and process.node is not None:
            process.run(process.step, told)

    # --- together again

    def _come_together(self) -> None:
        """The survivors come in again, and the cluster serves."""
        if self._chosen is None:
            return
        self._pass(self._timeouts_us(20))
        # Those who catch up may be slower than clients write.
        self.oracle.has_stopped = True
        give_up_us = self.clock.now_us + _PATIENCE_US
        wanted = {p.name for p in self._survivors if _had_a_log(p, self._had)}
        asked_us = 0
        while not self._is_whole(wanted):
            if self.clock.now_us > give_up_us:
                raise self.checks.violation(f"no progress after the recovery: {self._describe()}")
            if self.clock.now_us >= asked_us:
                asked_us = self.clock.now_us + 100_000
                self._gather()
                self._nudge()
            self.clock.advance()
        leader = self._leader_of_new()
        if leader is not None:
            self._write(leader)

    def _nudge(self) -> None:
        """Connections are dialled again and again."""
        for process in self._survivors:
            for other in self._survivors:
                if process is not other and process.node and other.node:
                    self._connected(process.index, other.index)

    def _leader_of_new(self) -> Process | None:
        leading = [
            p
            for p in self.processes
            if p.node and p.node.role is Role.LEADER and p.node.generation.id
        ]
        return leading[0] if leading else None

    def _gather(self) -> None:
        leader = self._leader_of_new()
        configuration = leader.node.configuration if leader and leader.node else None
        if leader is None or configuration is None or changes.is_joint(configuration):
            return
        for member in generation_of(configuration).awaited:
            for process in self._survivors:
                is_there = process.name == member.name and process.node is not None
                if is_there and _is_fresh(process):
                    added = Member(process.member_id, process.name, process.address)
                    wanted = MembershipChange(add=(added,), joining=(Joining(added.id),))
                    change = Change(self, wanted, 0, forced=False)
                    leader.run(leader.service.change, change)
                    return

    def _is_whole(self, wanted: set[str]) -> bool:
        leader = self._leader_of_new()
        if leader is None or leader.node is None or leader.node.configuration is None:
            return False
        configuration = leader.node.configuration
        names = {member.name for member in configuration.members}
        if names != wanted or len(configuration.voters) < len(wanted):
            return False
        return not changes.is_joint(configuration) and self._agree(leader)

    def _agree(self, leader: Process) -> bool:
        node = leader.node
        if node is None:
            return False
        last = (node.log.last_index, node.log.last_term)
        for process in self._members_of_new(node.configuration):
            other = process.node
            if other is None or (other.log.last_index, other.log.last_term) != last:
                return False
            if other.applied_index != last[0] or process.disk.durable.last_index != last[0]:
                return False
        return True

    def _members_of_new(self, configuration: Configuration | None) -> list[Process]:
        ids = {m.id for m in configuration.members} if configuration else set()
        return [p for p in self.processes if p.member_id in ids]

    def _write(self, leader: Process) -> None:
        before = self.checks.committed.last_index
        self.oracle.write_last(leader)
        give_up_us = self.clock.now_us + _PATIENCE_US
        while self.checks.committed.last_index <= before or not self._agree(leader):
            if self.clock.now_us > give_up_us:
                raise self.checks.violation(f"no write after the recovery: {self._describe()}")
            self.clock.advance()

    def _the_dead_return(self) -> None:
        """With the disks that they had; nothing may change because of them."""
        leader = self._leader_of_new()
        if leader is None or leader.node is None:
            return
        before = leader.node.configuration
        for process in self._returning:
            self._dead.discard(process.index)
            self.clock.after(self._random.randrange(20_000), self._start_living, process)
        self._pass(self._timeouts_us(30))
        for process in self._returning:
            for other in self._survivors:
                self._connected(other.index, process.index)
        self._pass(self._timeouts_us(30))
        leader = self._leader_of_new()
        after = leader.node.configuration if leader and leader.node else None
        if after != before:
            raise self.checks.violation("the dead who came back changed the members")
        for process in self._returning:
            node = process.node
            if node is None or node.role is Role.FRESH:
                continue
            self.seen["dead_returned"] += 1
            if node.role is Role.LEADER or node.generation.id:
                raise self.checks.violation(f"{process.name} is back from the dead")
            if not node.state.superseded:
                raise self.checks.violation(f"{process.name} does not know that it is dead")
        if leader is not None:
            self._write(leader)

    def _check(self) -> None:
        """Everything is there that the survivor had, everywhere."""
        leader = self._leader_of_new()
        if leader is None or leader.node is None:
            return
        committed = self.checks.committed
        for batch in self._had.batches:
            found = committed.batch_at(batch.first_index)
            if batch.first_index > committed.base_index and (
                found is None or found.record != batch.record
            ):
                raise self.checks.violation(
                    f"what the survivor had at index {batch.first_index} is gone"
                )
        digests = set()
        for process in self._members_of_new(leader.node.configuration):
            log = process.disk.durable
            if log.batches != committed.batches_from(log.base_index + 1):
                raise self.checks.violation(f"{process.name} has another log than is committed")
            older = [known for _, known in log.configurations if generation_of(known).id == 0]
            if older and process is not self._chosen:
                raise self.checks.violation(f"{process.name} has a former generation in its log")
            digests.add(process.machine.digest())
        if len(digests) > 1:
            raise self.checks.violation("members of one generation have other states")


def _is_fresh(process: Process) -> bool:
    return process.node is not None and process.node.role is Role.FRESH


def _had_a_log(process: Process, had: LogFile) -> bool:
    """Whether it belonged to the cluster when that was lost: others are none of its survivors."""
    configuration = had.configuration
    return configuration is not None and any(m.name == process.name for m in configuration.members)
