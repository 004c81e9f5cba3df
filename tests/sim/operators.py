"""Somebody who changes the membership: joins, replaces, removes, promotes, moves, starts over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from raft_agent.consensus import changes
from raft_agent.consensus.changes import ChangeRefusedError
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import (
    Configuration,
    Joining,
    Member,
    MembershipChange,
    RefusalReason,
    Role,
)
from tests.sim.memberships import outcomes_of

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.process import Process

_MOST_MEMBERS = 8
_MOST_JOINING = 2


class Change:
    """One that was asked for. `index`: where it is said to be done; 0, not as far as is known."""

    def __init__(
        self, cluster: Cluster, wanted: MembershipChange, expected_index: int, *, forced: bool
    ) -> None:
        self._cluster = cluster
        self.wanted = wanted
        self.expected_index = expected_index
        self.forced = forced
        self.index = 0

    def refused(self, reason: RefusalReason) -> None:
        self._cluster.seen[f"change_refused_{reason.value}"] += 1

    def done(self, index: int) -> None:
        self._cluster.seen["membership_changed"] += 1
        self.index = index

    def shows_in(self, configuration: Configuration) -> bool:
        """Whether `configuration` is what this change as a whole was to lead to."""
        wanted = self.wanted
        members = {member.id for member in configuration.members}
        gone = set(wanted.remove)
        return (
            not changes.is_joint(configuration)
            and {member.id for member in wanted.add} - gone <= members
            and not {*members, *configuration.voters, *configuration.learners} & gone
            and gone <= set(configuration.removed)
            and set(wanted.promote) - gone <= set(configuration.voters)
        )


class Operator:
    """Acts at random moments until `end`; asks whoever leads, or thinks so."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._rng = cluster.rng("operator")
        self._options = cluster.options.operator
        self._has_ended = False
        self._leaving = 0  # a leader that is to go once another one leads
        self._moves = 0
        self._changes: list[Change] = []
        self._choose: dict[str, Callable[[Configuration, Process], MembershipChange | None]] = {
            "join": self._join,
            "replace": self._replace,
            "learn": self._learn,
            "promote": self._promote,
            "remove": self._remove,
            "remove_leader": self._remove_leader,
            "mixed": self._mixed,
        }

    def begin(self) -> None:
        if self._options is not None:
            self._later(self._options.interval_us)

    def end(self) -> None:
        self._has_ended = True

    def _later(self, interval_us: int) -> None:
        delay_us = int(self._rng.expovariate(1.0) * interval_us)
        self._cluster.clock.after(delay_us, self._act)

    def _act(self) -> None:
        if self._has_ended or self._options is None:
            return
        self._later(self._options.interval_us)
        leader = self._whom_to_ask()
        configuration = leader.node.configuration if leader and leader.node else None
        if leader is None or configuration is None or not self._options.changes:
            return
        kind = self._rng.choice(self._options.changes)
        if kind == "move":
            self._move()
        elif kind == "recycle":
            self._recycle()
        else:
            choose = self._choose.get(kind, self._mixed)
            wanted = choose(configuration, leader)
            if wanted is not None and self._is_safe(configuration, wanted):
                self._ask(kind, leader, wanted)

    def _whom_to_ask(self) -> Process | None:
        """The leader; now and then anybody. Not who is paused, and would do it much later."""
        leader = self._cluster.leader()
        if leader is None or self._rng.random() < 0.1:
            leader = self._rng.choice(self._cluster.processes)
        return None if leader.node is None or leader.is_paused else leader

    def _ask(self, kind: str, leader: Process, wanted: MembershipChange) -> None:
        cluster = self._cluster
        options = self._options
        node = leader.node
        if node is None or options is None:
            return
        expected_index = 0
        if "expected" in options.changes and self._rng.random() < 0.5:
            expected_index = node.configuration_index - int(self._rng.random() < 0.3)
        forced = "forced" in options.changes and self._rng.random() < 0.3
        forced = forced and all(self._has_log(member) for member in wanted.promote)
        cluster.seen[f"change_{kind}"] += 1
        if cluster.tracer is not None:
            cluster.tracer.fault(f"{kind} by {leader.name}: {wanted}")
        change = Change(cluster, wanted, expected_index, forced=forced)
        self._changes.append(change)
        leader.run(leader.service.change, change)

    def _is_safe(self, configuration: Configuration, wanted: MembershipChange) -> bool:
        """Whether enough voters keep their disks, whatever comes of it. What the core will refuse
        is always safe."""
        try:
            following = changes.change(configuration, wanted)
        except ChangeRefusedError:
            return True
        return len(following.members) <= _MOST_MEMBERS and self._cluster.survival.can_go_on(
            outcomes_of(following)
        )

    def _has_log(self, member_id: int) -> bool:
        """Whether the member has been taken in: as a voter it would not be any more."""
        return any(
            process.member_id == member_id and process.disk.durable.last_index > 0
            for process in self._cluster.processes
        )

    # --- what is wanted

    def _fresh(self, configuration: Configuration) -> Process | None:
        """A process that waits to be taken in."""
        members = {member.id for member in configuration.members}
        waiting = [
            process
            for process in self._cluster.processes
            if process.node is not None
            and process.node.role is Role.FRESH
            and process.member_id not in members
        ]
        return self._rng.choice(waiting) if waiting else None

    def _add(self, configuration: Configuration, *, joins: bool) -> MembershipChange | None:
        """Take in somebody new; whoever had that name before goes."""
        process = self._fresh(configuration)
        if process is None:
            return None
        member = Member(process.member_id, process.name, process.address)
        same = tuple(known.id for known in configuration.members if known.name == process.name)
        joining = (Joining(member.id),) if joins else ()
        return MembershipChange(add=(member,), joining=joining, remove=same)

    def _join(self, configuration: Configuration, _leader: Process) -> MembershipChange | None:
        if len(configuration.joining) >= _MOST_JOINING:
            return None
        return self._add(configuration, joins=True)

    def _learn(self, configuration: Configuration, _leader: Process) -> MembershipChange | None:
        return self._add(configuration, joins=False)

    def _replace(self, configuration: Configuration, _leader: Process) -> MembershipChange | None:
        wanted = self._join(configuration, _leader)
        voters = [voter for voter in configuration.voters if wanted and voter not in wanted.remove]
        if wanted is None or not voters:
            return None
        lost = [voter for voter in voters if not self._cluster.survival.is_intact(voter)]
        replaced = self._rng.choice(lost or voters)
        joining = (Joining(wanted.add[0].id, replaced),)
        return MembershipChange(add=wanted.add, joining=joining, remove=wanted.remove)

    def _promote(self, configuration: Configuration, _leader: Process) -> MembershipChange | None:
        if not configuration.learners:
            return None
        return MembershipChange(promote=(self._rng.choice(configuration.learners),))

    def _remove(self, configuration: Configuration, _leader: Process) -> MembershipChange | None:
        ids = [member.id for member in configuration.members]
        lost = [member for member in ids if not self._cluster.survival.is_intact(member)]
        leaving = self._leaving if self._leaving in ids else 0
        self._leaving = 0
        return MembershipChange(remove=(leaving or self._rng.choice(lost or ids),))

    def _remove_leader(
        self, _configuration: Configuration, leader: Process
    ) -> MembershipChange | None:
        """At once, or as the agent does: it hands over first."""
        if self._rng.random() < 0.5:
            return MembershipChange(remove=(leader.member_id,))
        self._leaving = leader.member_id
        leader.run(leader.service.transfer, 0)
        return None

    def _mixed(self, configuration: Configuration, leader: Process) -> MembershipChange | None:
        """Several things in one change."""
        parts = [
            part
            for choose in (self._join, self._learn, self._promote, self._remove)
            if self._rng.random() < 0.5
            for part in (choose(configuration, leader),)
            if part is not None
        ]
        return MembershipChange(
            add=tuple({member.id: member for part in parts for member in part.add}.values()),
            joining=tuple({entry.id: entry for part in parts for entry in part.joining}.values()),
            promote=tuple(sorted({member for part in parts for member in part.promote})),
            remove=tuple(sorted({member for part in parts for member in part.remove})),
        )

    # --- what is done to processes

    def _move(self) -> None:
        """A node comes up on another address."""
        process = self._rng.choice(self._cluster.processes)
        if process.node is None or process.node.role is Role.FRESH:
            return
        self._moves += 1
        process.address = f"10.0.1.{self._moves}:5555"
        self._cluster.seen["change_move"] += 1
        self._cluster.faults.crash(process, kill=True)

    def _recycle(self) -> None:
        """A machine whose member was removed starts over, with an empty disk."""
        memberships = self._cluster.checks.memberships
        removed = [
            process
            for process in self._cluster.processes
            if process.node is not None and memberships.is_removed(process.member_id)
        ]
        if removed:
            self._cluster.seen["change_recycle"] += 1
            self._cluster.faults.wipe(self._rng.choice(removed))

    # --- in the end

    def has_settled(self, leader: Node) -> bool:
        """Whether nothing of what was asked for is still under way."""
        configuration = leader.configuration
        if configuration is None or changes.is_joint(configuration):
            return False
        if leader.configuration_index > leader.commit_index:
            return False
        addresses = {member.id: member.address for member in configuration.members}
        joining = {entry.id for entry in configuration.joining}
        return all(
            self._knows_its_place(process, configuration)
            and process.member_id not in joining
            and addresses.get(process.member_id, process.address) == process.address
            for process in self._cluster.processes
        )

    def check(self) -> None:
        """What was said to be done was committed as a whole, where it was said to be."""
        checks = self._cluster.checks
        for change in self._changes:
            if not change.index:
                continue
            found = checks.committed.configuration_at(change.index)
            if found is None or found[0] != change.index or not change.shows_in(found[1]):
                raise checks.violation(f"a change is not what is committed at {change.index}")

    def _knows_its_place(self, process: Process, configuration: Configuration) -> bool:
        """Whether a removed node knows it; one that was never taken in can't, nor one that knows
        nobody any more who could tell."""
        node = process.node
        if node is None or process.member_id not in configuration.removed:
            return True
        if node.role is Role.FRESH or node.configuration is None or node.state.was_removed:
            return True
        present = {member.id for member in configuration.members}
        return not any(member.id in present for member in node.configuration.members)
