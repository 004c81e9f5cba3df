"""What must hold after every event, seen from outside: all logs, disks and promises at once.

The checks know nothing of how the core works. They keep a record of their own of what was appended,
committed, voted and promised, and compare only what an event changed.
"""

from __future__ import annotations

from bisect import bisect_left
from copy import copy
from typing import TYPE_CHECKING, Any

from raft_agent.consensus import quorum
from raft_agent.consensus.batch import Batch
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import AppendLog, Configuration, Role, SnapshotMeta
from tests.sim.disk import Disk
from tests.sim.logfile import LogFile
from tests.sim.memberships import Memberships
from tests.sim.promises import Promises
from tests.sim.violation import Violation, require

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.process import Process


class _Watched:
    """What was last seen of one process; gone when it ends."""

    __slots__ = (
        "applied_index",
        "commit_index",
        "configuration",
        "current_as_of_us",
        "led_term",
        "matched",
        "term",
    )

    def __init__(self, term: int) -> None:
        self.term = term
        self.commit_index = 0
        self.applied_index = 0
        self.current_as_of_us = 0
        self.led_term = 0
        self.configuration: Configuration | None = None
        self.matched: dict[int, tuple[int, int]] = {}  # peer: session, match_index


class Checks:
    """One run's."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._watched: dict[int, _Watched] = {}
        self._disks: dict[int, Disk] = {}
        self._leaders: dict[int, int] = {}
        self.promises = Promises()
        # (first index, term) of every batch ever appended: the batch, and the term before it.
        self._appended: dict[tuple[str, int, int], tuple[Batch, int]] = {}
        self._results: dict[int, tuple[Batch, Any]] = {}
        self._states: dict[int, str] = {}
        self._digests: dict[int, int] = {}
        self.cluster_id = ""
        self.committed = LogFile()
        self.memberships = Memberships(self.committed, self.promises)
        # The term of the leader, or later, in which the entries up to an index were committed.
        self._committed_in: list[tuple[int, int]] = []
        # When it was first known to anybody that the entries up to an index were committed.
        self.known_at: list[tuple[int, int]] = []

    def begin_anew(self, committed: LogFile, process: Process) -> Checks:
        """Those of a later generation, which begins with what `process` has: with the promises that
        were given, and nothing else of what was known before."""
        later = Checks(self._cluster)
        later.promises = self.promises
        later.cluster_id = self.cluster_id
        later.committed = committed
        later.memberships = Memberships(committed, self.promises)
        later._watched[process.index] = copy(self._watched[process.index])
        later._disks[process.member_id] = process.disk
        return later

    def violation(self, rule: str) -> Violation:
        return Violation(rule)

    # --- processes come and go

    def started(self, process: Process, node: Node) -> None:
        self._disks[process.member_id] = process.disk
        watched = self._watched[process.index] = _Watched(node.current_term)
        watched.commit_index = watched.applied_index = node.commit_index
        self._base_is_committed(process)
        promised = self.promises.term_of(process.member_id)
        require(
            node.current_term >= promised,
            "the term goes back at a restart",
            process,
            term=node.current_term,
            promised=promised,
        )

    def _base_is_committed(self, process: Process) -> None:
        """What a log has lost is what was committed."""
        log = process.disk.written
        require(
            log.base_term == self.committed.term_at(log.base_index),
            "a log begins behind what is not committed",
            process,
            index=log.base_index,
            term=log.base_term,
        )

    def took_over(self, process: Process, snapshot: SnapshotMeta) -> None:
        """A leader's snapshot has taken the place of this process's log and state."""
        watched = self._watched[process.index]
        require(
            snapshot.index > watched.commit_index,
            "a snapshot takes back what was committed",
            process,
            index=snapshot.index,
        )
        self._base_is_committed(process)

    def compacting(self, process: Process, upto_index: int) -> None:
        """What the log loses is in both snapshots."""
        older = process.disk.shelf.older_index
        require(
            upto_index <= older,
            "the log is compacted beyond the older snapshot",
            process,
            upto_index=upto_index,
            older=older,
        )

    def has_state(self, process: Process, index: int, digest: str) -> None:
        """The state after an entry is the same wherever it was looked at."""
        known = self._states.setdefault(index, digest)
        require(known == digest, "two nodes have other states", process, index=index)

    def has_digest(self, process: Process, index: int, digest: int) -> None:
        """What members compare is the same for the same state."""
        known = self._digests.setdefault(index, digest)
        require(known == digest, "equal states have other digests", process, index=index)

    def agreed(self, process: Process, index: int, digest: int) -> None:
        """The core takes this process's state for right."""
        known = self._digests.get(index, digest)
        require(known == digest, "a wrong state is taken for right", process, index=index)

    def ended(self, process: Process) -> None:
        del self._watched[process.index]
        self.memberships.ended(process)

    # --- after each event

    def stepped(self, process: Process, node: Node) -> None:
        state = node.state
        watched = self._watched[process.index]
        written = process.disk.written
        log = state.log
        if log.last_index != written.last_index or log.last_term != written.last_term:
            require(
                False,
                "the core's log is not what it had written",
                process,
                core=(log.last_term, log.last_index),
                disk=(written.last_term, written.last_index),
            )
        self.memberships.stepped(process, node)
        if state.current_term != watched.term:
            require(state.current_term > watched.term, "the term goes back", process)
            watched.term = state.current_term
        if state.applied_index != watched.applied_index:
            require(state.applied_index > watched.applied_index, "applied goes back", process)
            watched.applied_index = state.applied_index
        if state.role is Role.LEADER:
            if watched.led_term != state.current_term:
                watched.led_term = state.current_term
                watched.matched = {}
                self._elected(process, node)
            self._match_indexes(process, node, watched)
        if state.commit_index != watched.commit_index:
            self._commit_moved(process, node, watched)
            watched.commit_index = state.commit_index
        if state.current_as_of_us != watched.current_as_of_us:
            self._is_current(process, node, watched)
            watched.current_as_of_us = state.current_as_of_us
        watched.configuration = written.configuration

    def _is_current(self, process: Process, node: Node, watched: _Watched) -> None:
        """Nobody says that it has all up to a moment when somebody had more before that."""
        as_of_us = node.state.current_as_of_us
        require(as_of_us > watched.current_as_of_us, "a node becomes less current", process)
        place = bisect_left(self.known_at, as_of_us, key=lambda at: process.clock.at_us(at[0]))
        index = self.known_at[place - 1][1] if place else 0
        require(
            node.applied_index >= index,
            "a node takes itself for more current than it is",
            process,
            applied=node.applied_index,
            committed=index,
        )

    def _elected(self, process: Process, node: Node) -> None:
        term = node.current_term
        winner = self._leaders.setdefault(term, process.member_id)
        require(
            winner == process.member_id,
            "election safety: two leaders in one term",
            process,
            term=term,
            other=f"{winner:016x}",
        )
        configuration = node.configuration
        if configuration is None:
            raise Violation(f"{process.name}: leads without a configuration")
        require(
            self.cluster_id in ("", configuration.cluster_id),
            "two clusters came out of one first start",
            process,
            first=self.cluster_id,
            second=configuration.cluster_id,
        )
        self.cluster_id = configuration.cluster_id
        self.memberships.elected(process, node)
        self._no_lease_but(process, term)
        self._complete(process)

    def _no_lease_but(self, process: Process, term: int) -> None:
        """Nobody is elected while an earlier leader may still answer reads by its lease."""
        for other in self._cluster.processes:
            node = other.node
            if node is not None and node.current_term < term:
                require(
                    not node.has_lease(other.clock.now_us()),
                    "elected while an earlier leader has a lease",
                    process,
                    term=term,
                    earlier=node.current_term,
                )

    def _complete(self, process: Process) -> None:
        """Leader completeness: everything committed in an earlier term is in a leader's log."""
        watched = self._watched[process.index]
        index = 0
        for committed_index, term in reversed(self._committed_in):
            if term < watched.led_term:
                index = committed_index
                break
        if index == 0:
            return
        written = process.disk.written
        committed = self.committed.term_at(index)
        require(
            index <= written.base_index or written.term_at(index) == committed,
            "leader completeness: a leader lacks a committed entry",
            process,
            leader_of=watched.led_term,
            index=index,
        )

    def _match_indexes(self, process: Process, node: Node, watched: _Watched) -> None:
        term = node.current_term
        for peer, progress in node.progress.items():
            key = (progress.session, progress.match_index)
            before = watched.matched.get(peer)
            if before == key:
                continue
            watched.matched[peer] = key
            if before is not None and before[0] == key[0]:
                require(key[1] >= before[1], "a match index goes back", process)
            if key[1] <= node.log.base_index:
                continue
            disk = self._disks.get(peer)
            # A peer that knows of a later term may have cut its log since.
            if disk is None or max(disk.vote.term, disk.durable.last_term) > term:
                continue
            require(
                disk.holds(key[1], node.log.term_at(key[1])),
                "a match index is beyond what is on the peer's disk",
                process,
                peer=f"{peer:016x}",
                match_index=key[1],
                durable=disk.durable.last_index,
            )

    def _commit_moved(self, process: Process, node: Node, watched: _Watched) -> None:
        index = node.commit_index
        require(
            index > watched.commit_index,
            "the commit index goes back",
            process,
            before=watched.commit_index,
            now=index,
        )
        written = process.disk.written
        if node.role is Role.LEADER:
            require(
                node.log.term_at(index) == node.current_term,
                "a leader commits by an entry of an older term",
                process,
                index=index,
            )
        if index > self.committed.last_index:
            self._newly_committed(process, node, index)
        else:
            require(
                written.term_at(index) == self.committed.term_at(index),
                "committed entries differ",
                process,
                index=index,
            )

    def _newly_committed(self, process: Process, node: Node, index: int) -> None:
        written = process.disk.written
        batches = written.batches_from(self.committed.last_index + 1)
        new = [batch for batch in batches if batch.first_index <= index]
        if self.committed.batches:
            last = self.committed.batches[-1]
            require(
                written.term_at(last.last_index) == last.term,
                "committed entries differ",
                process,
                index=last.last_index,
            )
        self.committed.write(0, new)
        self._committed_in.append((self.committed.last_index, node.current_term))
        self.known_at.append((self._cluster.clock.now_us, index))
        self._on_disks(process, node, index, new[-1].term)
        for other in self._cluster.processes:
            seen = self._watched.get(other.index)
            if (
                seen is not None
                and seen.led_term > node.current_term
                and seen.term == seen.led_term
            ):
                self._complete(other)

    def _on_disks(self, process: Process, node: Node, index: int, term: int) -> None:
        """What is committed is on the disks of a quorum. The leader goes by the latest in its log
        before it appends what the commit gives rise to. A follower may be the first to say it, when
        the leader has crashed while it told: its own configuration, or one that the leader may have
        had."""
        if node.role is Role.LEADER:
            before = self._watched[process.index].configuration
            counting = [before] if before is not None else []
        else:
            written = process.disk.written
            counting = [known for _, known in written.configurations[-1:]]
            counting += self.memberships.since(written.configuration_index, node.current_term)
        holders = {member for member, disk in self._disks.items() if disk.holds(index, term)}
        require(
            any(quorum.has_quorum(configuration, holders) for configuration in counting),
            "committed, but not on the disks of a majority",
            process,
            index=index,
            holders=len(holders),
        )

    # --- effects

    def appending(self, process: Process, effect: AppendLog) -> None:
        """Log matching: one (index, term) is one batch everywhere, with the same one before it."""
        written = process.disk.written
        cut = effect.truncate_from
        if cut:
            self._cluster.seen["log_cut"] += 1
            require(
                cut > self._watched[process.index].commit_index,
                "a committed entry is cut",
                process,
                from_index=cut,
            )
            if cut <= self.committed.last_index:
                lost = written.batch_at(cut)
                committed = self.committed.batch_at(cut)
                require(
                    lost is None or committed is None or lost.term != committed.term,
                    "an entry is cut that is committed elsewhere",
                    process,
                    from_index=cut,
                )
        last_index = cut - 1 if cut else written.last_index
        before = written.batch_at(last_index)
        term_before = before.term if before is not None else written.term_at(last_index)
        for batch in effect.batches:
            require(
                batch.first_index == last_index + 1 and batch.term >= term_before,
                "a log with a gap, or terms that fall",
                process,
                index=batch.first_index,
                after=last_index,
            )
            self.memberships.appended(process, batch)
            key = (process.disk.cluster_id, batch.first_index, batch.term)
            known, known_before = self._appended.setdefault(key, (batch, term_before))
            require(
                (known is batch or known.record == batch.record) and known_before == term_before,
                "log matching: two different entries have the same index and term",
                process,
                index=batch.first_index,
                term=batch.term,
            )
            last_index, term_before = batch.last_index, batch.term

    def applied(self, process: Process, batch: Batch, results: Any) -> None:
        """State machine safety: the same batch at the same index everywhere, same results."""
        require(
            batch.last_index <= self.committed.last_index
            or (process.node is not None and batch.last_index <= process.node.commit_index),
            "applied before it was committed",
            process,
            index=batch.first_index,
        )
        known, known_results = self._results.setdefault(batch.first_index, (batch, results))
        require(
            (known is batch or known.record == batch.record) and known_results == results,
            "state machine safety: two nodes applied different entries",
            process,
            index=batch.first_index,
        )
