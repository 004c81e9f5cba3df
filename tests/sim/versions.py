"""Programs of two versions in one cluster: who installs which, and what must hold then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from raft_agent.consensus.types import Configuration, MembershipChange, Propose, Role, RoleChanged
from raft_agent.machine.commands import (
    Command,
    RaiseVersion,
    encode_command,
    encode_commands,
    join_commands,
)
from raft_agent.machine.machine import Machine
from raft_agent.machine.results import BadCommand
from raft_agent.machine.upgrade import Ask, Raise, Upgrade
from raft_agent.versions import Versions
from tests.sim.violation import require
from tests.version2 import MachineOfVersion2, of_version_2

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.process import Process

_decode = msgspec.msgpack.Decoder(Command).decode
_LOOK_EVERY_US = 250_000
_PUT_BACK_AGAIN_US = 300_000


class VersionAsk(NamedTuple):
    version: int


class VersionPromise(NamedTuple):
    version: int


class VersionKeeper:
    """The host's part, as `runtime.versions` is the agent's."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.promised = 1
        self._upgrade: Upgrade | None = None
        self._known: dict[int, Versions] = {}
        self._unwelcome: set[int] = set()

    def begin(self) -> None:
        """The process starts."""
        self.promised = self._process.disk.promised
        self._upgrade = None
        self._known = {}
        self._unwelcome = set()

    def connected(self, peer: Process) -> None:
        """The handshake, in both directions."""
        self._known[peer.member_id] = peer.program.versions
        self._unwelcome.discard(peer.member_id)
        if not self.admits(peer):
            self._unwelcome.add(peer.member_id)

    def lost(self, peer: int) -> None:
        self._known.pop(peer, None)

    def admits(self, peer: Process) -> bool:
        """Whether this node takes anything from a member; a fresh one promises what that has."""
        process = self._process
        node = process.node
        version = peer.versions.promised
        if node is None or node.configuration is not None or version <= self.promised:
            return True
        if version not in process.program.versions:
            process.cluster.seen["joiner_too_old"] += 1
            return False
        process.disk.promised = self.promised = version
        return True

    def is_welcome(self, sender: int) -> bool:
        return sender not in self._unwelcome

    def may_add(self, wanted: MembershipChange) -> bool:
        """Whether all who are to be added have promised what this leader has."""
        added = {member.id for member in wanted.add}
        joiners = [p for p in self._process.cluster.processes if p.member_id in added]
        return all(
            p.node is not None and not p.is_paused and p.versions.admits(self._process)
            for p in joiners
            if p.disk.promised < self.promised
        )

    # --- promises

    def received(self, sender: int, message: VersionAsk | VersionPromise) -> None:
        node = self._process.node
        if node is None:
            return
        if isinstance(message, VersionPromise):
            if self._upgrade is not None:
                self._upgrade.promised(sender, message.version)
        elif node.state.membership.member(sender) is not None:
            self._promise(message.version, sender)

    def _promise(self, version: int, asker: int) -> None:
        process = self._process
        if version <= self.promised:
            self._tell(version, asker)
        elif version in process.program.versions:
            boot = process.boots
            delay_us = process.disk.latency_us()
            process.cluster.clock.after(delay_us, self._written, boot, version, asker)

    def _written(self, boot: int, version: int, asker: int) -> None:
        """In the disk's thread; a process that has ended meanwhile may have written it or not."""
        process = self._process
        disk = process.disk
        if boot != process.boots or process.node is None or disk.is_full or disk.fsync_fails:
            return
        disk.promised = max(disk.promised, version)
        process.run(self._was_written, boot, version, asker)

    def _was_written(self, boot: int, version: int, asker: int) -> None:
        if boot == self._process.boots:
            self.promised = max(self.promised, version)
            self._tell(version, asker)

    def _tell(self, version: int, asker: int) -> None:
        process = self._process
        if asker != process.member_id:
            process.cluster.send(process, asker, VersionPromise(version))
        elif self._upgrade is not None:
            self._upgrade.promised(asker, version)

    # --- the leader

    def role(self, change: RoleChanged) -> None:
        if change.role is not Role.LEADER:
            self._upgrade = None
        elif self._upgrade is None:
            self._upgrade = Upgrade()
            self._later(self._upgrade)

    def _later(self, upgrade: Upgrade) -> None:
        process = self._process
        clock = process.cluster.clock
        clock.after(_LOOK_EVERY_US, process.run, self._look, process.boots, upgrade)

    def _look(self, boot: int, upgrade: Upgrade) -> None:
        process = self._process
        node = process.node
        if boot != process.boots or upgrade is not self._upgrade or node is None:
            return
        self._later(upgrade)
        configuration = node.configuration
        if configuration is None:
            return
        members = [member.id for member in configuration.members]
        known = {**self._known, process.member_id: process.program.versions}
        step = upgrade.next_step(members, known, process.machine.version)
        if isinstance(step, Ask):
            for member in step.members:
                if member == process.member_id:
                    self._promise(step.version, member)
                else:
                    process.cluster.send(process, member, VersionAsk(step.version))
        elif isinstance(step, Raise):
            process.cluster.seen["version_proposed"] += 1
            payload = encode_commands([RaiseVersion(step.version)])
            tag = process.service.nobodys_tag()
            process.step(Propose(tag, 1, join_commands(process.wall_ms(), 1, [payload])))


def command_for(machine: Machine, command: bytes) -> bytes:
    """What a client's command becomes in the log: of version 2, if the version in force has it."""
    if not isinstance(machine, MachineOfVersion2):
        return command
    newer = of_version_2(_decode(command))
    is_in_force = machine.vocabulary.needed([newer]) <= machine.version
    return encode_command(newer) if is_in_force else command


class VersionChecks:
    """What must hold of versions, in all processes together. `in_force`: the latest anywhere."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.in_force = 1
        self._of_process: dict[int, int] = {}

    def started(self, process: Process) -> None:
        self._of_process[process.index] = process.machine.version
        self._follow(process)

    def applied(self, process: Process, results: Any) -> None:
        """A batch, or a snapshot, has become the state."""
        if process.machine.version != self._of_process[process.index]:
            require(
                process.machine.version > self._of_process[process.index],
                "the version in force goes down",
                process,
                version=process.machine.version,
            )
            self._follow(process)
        if results is not None and self._cluster.options.install_us:
            unknown = any(isinstance(result, BadCommand) for result in results)
            require(not unknown, "a member does not know a command that it applies", process)

    def _follow(self, process: Process) -> None:
        version = self._of_process[process.index] = process.machine.version
        require(
            version in process.program.versions,
            "a member goes on with a version that it does not know",
            process,
            version=version,
        )
        if version > self.in_force:
            self.in_force = version
            self._cluster.seen["version_raised"] += 1
            node = process.node
            self._all_know(process, node.configuration if node is not None else None)

    def _all_know(self, process: Process, configuration: Configuration | None) -> None:
        """Whoever is a member where the version rises first has promised, so its program knows it,
        or will not start."""
        members = configuration.members if configuration is not None else ()
        ids = {member.id for member in members}
        for member in self._cluster.processes:
            require(
                member.member_id not in ids or member.disk.promised >= self.in_force,
                "the version rises beyond what a member has promised",
                process,
                version=self.in_force,
                member=member.name,
            )


class Installer:
    """Installs programs at random moments until `end`: later ones, and sometimes the one before."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._rng = cluster.rng("installer")
        self._has_ended = False
        self.finishes = self._rng.random() < 0.5

    def begin(self) -> None:
        if not self._cluster.options.install_us:
            return
        for process in self._cluster.processes:
            if self._rng.random() < 0.3:
                process.program = MachineOfVersion2
        self._later()

    def _later(self) -> None:
        delay_us = int(self._rng.expovariate(1.0) * self._cluster.options.install_us)
        self._cluster.clock.after(delay_us, self._act)

    def _act(self) -> None:
        if self._has_ended:
            return
        self._later()
        process = self._rng.choice(self._cluster.processes)
        if process.node is None:
            return
        # Where it is refused it only keeps a node away for a while.
        often = 0.4 if process.disk.promised == 1 else 0.05
        back = process.program is MachineOfVersion2 and self._rng.random() < often
        self._install(process, Machine if back else MachineOfVersion2)

    def _install(self, process: Process, program: type[Machine]) -> None:
        if process.program is program:
            return
        newest = program.versions.newest
        self._cluster.seen[f"installed_version_{newest}"] += 1
        if self._cluster.tracer is not None:
            self._cluster.tracer.fault(f"{process.name} gets a program of version {newest}")
        process.program = program
        self._cluster.faults.crash(process, kill=True)

    def refused(self, process: Process) -> None:
        """A program does not start on this disk: somebody notices, and installs the later one."""
        self._cluster.seen["start_refused"] += 1
        self._cluster.clock.after(_PUT_BACK_AGAIN_US, self._put_right, process)

    def _put_right(self, process: Process) -> None:
        if process.node is None:
            process.program = MachineOfVersion2
            self._cluster.faults.start(process)

    def end(self) -> None:
        """Before all that is down is started: nobody is left with a program that does not start."""
        self._has_ended = True
        if not self._cluster.options.install_us:
            return
        for process in self._cluster.processes:
            if self.finishes:
                self._install(process, MachineOfVersion2)
            elif process.disk.promised > 1:
                process.program = MachineOfVersion2
            elif self._is_turned_away(process):
                process.program = MachineOfVersion2
                self._cluster.faults.crash(process, kill=True)

    def _is_turned_away(self, process: Process) -> bool:
        """A fresh node has to know what members have promised. It was put back after it was added,
        and says in its log what it needs."""
        is_fresh = self._cluster.survival.has_no_log(process)
        return is_fresh and any(other.disk.promised > 1 for other in self._cluster.processes)

    def has_settled(self, configuration: Configuration, members: list[Process]) -> bool:
        """Whether the version has risen, if it has to: all members have the later program, and none
        of them is one that can never come in."""
        ids = {process.member_id for process in members}
        is_due = (
            self._cluster.options.install_us > 0
            and self.finishes
            and ids == {member.id for member in configuration.members}
        )
        return not is_due or all(process.machine.version == 2 for process in members)
