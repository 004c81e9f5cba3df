"""A Raft cluster as the operator meets it: who is a member, who leads, what is refused. It knows
nothing of logs; agents that run and have a volume keep what they promised.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from raft_operator.agents import AgentsError


class BrokenRuleError(AssertionError):
    """The operator has done what it must never do."""


@dataclass
class Volume:
    """What an agent keeps: its id is born with it. `cluster`: "" until it has a log."""

    id: str
    cluster: str = ""
    knows_removed: bool = False


@dataclass
class Process:
    """An agent that runs."""

    name: str
    address: str
    volume: Volume


@dataclass
class Entry:
    """A member in the configuration."""

    id: str
    name: str
    address: str
    role: str
    state: str = ""


@dataclass
class Raft:
    """All agents by address, and the one cluster that they may belong to."""

    processes: dict[str, Process] = field(default_factory=dict)
    cluster: str = ""
    members: dict[str, Entry] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    configuration: int = 0
    leader: str = ""
    term: int = 0
    volumes: int = 0
    founded: int = 0

    def make_volume(self) -> Volume:
        self.volumes += 1
        return Volume(f"{self.volumes:016x}")

    def start(self, process: Process, *, founds: bool) -> None:
        self.processes[process.address] = process
        if founds and not process.volume.cluster:
            self.founded += 1
            if self.founded > 1:
                raise BrokenRuleError(f"{process.name} founds a second cluster")
            self.cluster = process.volume.cluster = "c0ffee"
            entry = Entry(process.volume.id, process.name, process.address, "voter")
            self.members = {entry.id: entry}
            self.configuration = 1
        self.settle()

    def stop(self, address: str) -> None:
        self.processes.pop(address, None)
        self.settle()

    # --- what the members come to among themselves

    def running(self, member_id: str) -> Process | None:
        """The agent of this member, when it runs at the address that the others dial."""
        for process in self.processes.values():
            if process.volume.id == member_id and process.volume.cluster:
                return process
        return None

    def voters(self) -> list[Entry]:
        return [entry for entry in self.members.values() if entry.role == "voter"]

    def healthy_voters(self) -> int:
        return sum(self.running(entry.id) is not None for entry in self.voters())

    def has_quorum(self) -> bool:
        return bool(self.members) and self.healthy_voters() > len(self.voters()) // 2

    def settle(self) -> None:
        """Elections, and what follows from having a leader."""
        if not self.has_quorum():
            self.leader = ""
            return
        entry = self.members.get(self.leader)
        if entry is None or entry.role != "voter" or self.running(self.leader) is None:
            self.leader = next(v.id for v in self.voters() if self.running(v.id) is not None)
            self.term += 1
        for process in self.processes.values():
            volume = process.volume
            if volume.id in self.removed and volume.cluster:
                volume.knows_removed = True
            member = self.members.get(volume.id)
            if member is not None:
                volume.cluster = self.cluster
                member.address = process.address  # agents announce where they are

    def catch_up(self) -> None:
        """Learners that run become voters."""
        self.settle()
        for entry in self.members.values():
            if self.leader and entry.state == "joining" and self.running(entry.id) is not None:
                entry.role, entry.state = "voter", ""
                self.configuration += 1

    # --- requests

    def _lead(self, if_configuration: int) -> None:
        self.settle()
        if not self.leader:
            raise AgentsError("no quorum")
        if if_configuration not in (0, self.configuration):
            raise AgentsError("the configuration has moved on")

    def join(self, name: str, address: str, if_configuration: int) -> None:
        self._lead(if_configuration)
        process = self.processes.get(address)
        if process is None or process.name != name:
            raise AgentsError(f"{name} does not answer at {address}")
        volume = process.volume
        if volume.id in self.members:
            return
        if volume.id in self.removed or volume.cluster:
            raise AgentsError(f"{name} was removed, or has a log")
        if any(entry.name == name for entry in self.members.values()):
            raise AgentsError(f"there is a member {name} already")
        self.members[volume.id] = Entry(volume.id, name, address, "learner", "joining")
        self.configuration += 1
        self.settle()

    def leave(self, name: str, if_configuration: int) -> None:
        self._lead(if_configuration)
        entry = next((e for e in self.members.values() if e.name == name), None)
        if entry is None:
            raise AgentsError(f"there is no member {name}")
        rest = [voter for voter in self.voters() if voter is not entry]
        healthy = sum(self.running(voter.id) is not None for voter in rest)
        if not rest or healthy <= len(rest) // 2:
            raise BrokenRuleError(f"removing {name} takes the quorum")
        del self.members[entry.id]
        self.removed.add(entry.id)
        self.configuration += 1
        self.settle()

    def hand_over(self, to: str) -> None:
        self._lead(0)
        entry = next((e for e in self.voters() if e.name == to), None)
        if entry is None or self.running(entry.id) is None:
            raise AgentsError(f"{to} can't lead")
        self.leader = entry.id
        self.term += 1

    def confirm(self, if_configuration: int) -> None:
        self._lead(if_configuration)
