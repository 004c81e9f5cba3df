"""Which disks may be lost, so that the cluster can still go on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from raft_agent.consensus.types import Configuration

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.process import Process


class Survival:
    """A disk that was lost or damaged counts against a configuration for as long as that one, or
    one that leads to it, may be in force."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lost_disks = 0

    def lose(self, _process: Process) -> None:
        """This process is about to lose its disk."""
        if not self._cluster.checks.memberships.in_play():
            self._lost_disks += 1

    def may_lose(self, process: Process) -> bool:
        """Whether this disk may be lost or damaged so that the rest can still go on."""
        intact = self._intact_members(but=process)
        in_play = self._cluster.checks.memberships.in_play()
        if in_play:
            return self._suffice(intact, in_play)
        # Nobody knows yet whom the first entry will name.
        founders = [p for p in self._cluster.processes if not p.is_spare]
        damaged = sum(p.member_id not in intact for p in founders if p is not process)
        return self._lost_disks + damaged < (len(founders) - 1) // 2

    def can_go_on(self, configurations: Iterable[Configuration]) -> bool:
        """Whether in each of these a quorum of voters still has its disks."""
        return self._suffice(self._intact_members(), configurations)

    def is_intact(self, member_id: int) -> bool:
        """Whether the member's disk is there and undamaged."""
        return member_id in self._intact_members()

    def has_no_log(self, process: Process) -> bool:
        """Whether nothing is on this disk. Such a voter votes for nobody, since it can't be told
        from one that has lost what it had; a leader lets it in, if its log has its beginning."""
        return process.disk.durable.last_index == 0

    def _suffice(self, intact: set[int], configurations: Iterable[Configuration]) -> bool:
        return all(
            sum(voter in intact for voter in voters) > len(voters) // 2
            for configuration in configurations
            for voters in (configuration.voters, configuration.voters_outgoing)
            if voters
        )

    def _intact_members(self, but: Process | None = None) -> set[int]:
        return {
            process.member_id
            for process in self._cluster.processes
            if process is not but and not process.disk.is_damaged and not self.has_no_log(process)
        }
