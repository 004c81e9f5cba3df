"""What must hold after every event, seen from outside: all logs, disks and promises at once.

The checks know nothing of how the core works. They keep a record of their own of what was appended,
committed, voted and promised, and compare only what an event changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raft_agent.consensus import quorum
from raft_agent.consensus.batch import Batch
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import (
    AppendEntries,
    AppendLog,
    AppendReply,
    BootstrapInstall,
    Heartbeat,
    Message,
    ReadIndexReply,
    RequestVote,
    Role,
    TimeoutNow,
    VoteReply,
)
from tests.sim.disk import Disk, LogFile

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.process import Process


class Violation(AssertionError):  # noqa: N818 - it is no error of the simulator's
    """A rule of Raft, or a promise to a client, was broken."""


class _Watched:
    """What was last seen of one process; gone when it ends."""

    __slots__ = ("applied_index", "commit_index", "led_term", "matched", "role", "term")

    def __init__(self, term: int) -> None:
        self.term = term
        self.commit_index = 0
        self.applied_index = 0
        self.led_term = 0
        self.role = Role.FRESH
        self.matched: dict[int, tuple[int, int]] = {}  # peer: session, match_index


class Checks:
    """One run's."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._watched: dict[int, _Watched] = {}
        self._disks: dict[int, Disk] = {}
        self._leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._terms: dict[int, int] = {}
        # (first index, term) of every batch ever appended: the batch, and the term before it.
        self._appended: dict[tuple[str, int, int], tuple[Batch, int]] = {}
        self._results: dict[int, tuple[Batch, Any]] = {}
        self.cluster_id = ""
        self.committed = LogFile()
        # The term of the leader, or later, in which the entries up to an index were committed.
        self._committed_in: list[tuple[int, int]] = []

    def violation(self, rule: str) -> Violation:
        return Violation(rule)

    def _require(self, holds: bool, rule: str, process: Process, **facts: object) -> None:
        if not holds:
            told = ", ".join(f"{name}={value}" for name, value in facts.items())
            raise Violation(f"{process.name}: {rule} ({told})")

    # --- processes come and go

    def started(self, process: Process, node: Node) -> None:
        self._disks[process.member_id] = process.disk
        self._watched[process.index] = _Watched(node.current_term)
        promised = self._terms.get(process.member_id, 0)
        self._require(
            node.current_term >= promised,
            "the term goes back at a restart",
            process,
            term=node.current_term,
            promised=promised,
        )

    def ended(self, process: Process) -> None:
        del self._watched[process.index]

    # --- after each event

    def stepped(self, process: Process, node: Node) -> None:
        state = node.state
        watched = self._watched[process.index]
        written = process.disk.written
        log = state.log
        if log.last_index != written.last_index or log.last_term != written.last_term:
            self._require(
                False,
                "the core's log is not what it had written",
                process,
                core=(log.last_term, log.last_index),
                disk=(written.last_term, written.last_index),
            )
        if state.current_term != watched.term:
            self._require(state.current_term > watched.term, "the term goes back", process)
            watched.term = state.current_term
        if state.applied_index != watched.applied_index:
            self._require(state.applied_index > watched.applied_index, "applied goes back", process)
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

    def _elected(self, process: Process, node: Node) -> None:
        term = node.current_term
        winner = self._leaders.setdefault(term, process.member_id)
        self._require(
            winner == process.member_id,
            "election safety: two leaders in one term",
            process,
            term=term,
            other=f"{winner:016x}",
        )
        configuration = node.configuration
        if configuration is None:
            raise Violation(f"{process.name}: leads without a configuration")
        self._require(
            self.cluster_id in ("", configuration.cluster_id),
            "two clusters came out of one first start",
            process,
            first=self.cluster_id,
            second=configuration.cluster_id,
        )
        self.cluster_id = configuration.cluster_id
        self._complete(process)

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
        committed = self.committed.batch_at(index)
        own = process.disk.written.batch_at(index)
        self._require(
            own is not None and committed is not None and own.term == committed.term,
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
                self._require(key[1] >= before[1], "a match index goes back", process)
            if key[1] == 0:
                continue
            disk = self._disks.get(peer)
            # A peer that knows of a later term may have cut its log since.
            if disk is None or max(disk.vote.term, disk.durable.last_term) > term:
                continue
            self._require(
                disk.holds(key[1], node.log.term_at(key[1])),
                "a match index is beyond what is on the peer's disk",
                process,
                peer=f"{peer:016x}",
                match_index=key[1],
                durable=disk.durable.last_index,
            )

    def _commit_moved(self, process: Process, node: Node, watched: _Watched) -> None:
        index = node.commit_index
        self._require(
            index > watched.commit_index,
            "the commit index goes back",
            process,
            before=watched.commit_index,
            now=index,
        )
        written = process.disk.written
        if node.role is Role.LEADER:
            self._require(
                node.log.term_at(index) == node.current_term,
                "a leader commits by an entry of an older term",
                process,
                index=index,
            )
        if index > self.committed.last_index:
            self._newly_committed(process, node, index)
        else:
            own, committed = written.batch_at(index), self.committed.batch_at(index)
            self._require(
                own is not None and committed is not None and own.term == committed.term,
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
            own = written.batch_at(last.last_index)
            self._require(
                own is not None and own.term == last.term,
                "committed entries differ",
                process,
                index=last.last_index,
            )
        self.committed.write(0, new)
        self._committed_in.append((self.committed.last_index, node.current_term))
        configuration = node.configuration
        if configuration is None:
            raise Violation(f"{process.name}: commits without a configuration")
        term = new[-1].term
        holders = {
            voter
            for voter in configuration.voters
            if voter in self._disks and self._disks[voter].holds(index, term)
        }
        self._require(
            quorum.has_quorum(configuration, holders),
            "committed, but not on the disks of a majority",
            process,
            index=index,
            holders=len(holders),
        )
        for other in self._cluster.processes:
            seen = self._watched.get(other.index)
            if (
                seen is not None
                and seen.led_term > node.current_term
                and seen.term == seen.led_term
            ):
                self._complete(other)

    # --- effects

    def appending(self, process: Process, effect: AppendLog) -> None:
        """Log matching: one (index, term) is one batch everywhere, with the same one before it."""
        written = process.disk.written
        cut = effect.truncate_from
        if cut:
            self._cluster.seen["log_cut"] += 1
            self._require(
                cut > self._watched[process.index].commit_index,
                "a committed entry is cut",
                process,
                from_index=cut,
            )
            if cut <= self.committed.last_index:
                lost = written.batch_at(cut)
                committed = self.committed.batch_at(cut)
                self._require(
                    lost is None or committed is None or lost.term != committed.term,
                    "an entry is cut that is committed elsewhere",
                    process,
                    from_index=cut,
                )
        last_index = cut - 1 if cut else written.last_index
        before = written.batch_at(last_index)
        term_before = before.term if before is not None else 0
        for batch in effect.batches:
            self._require(
                batch.first_index == last_index + 1 and batch.term >= term_before,
                "a log with a gap, or terms that fall",
                process,
                index=batch.first_index,
                after=last_index,
            )
            key = (process.disk.cluster_id, batch.first_index, batch.term)
            known, known_before = self._appended.setdefault(key, (batch, term_before))
            self._require(
                (known is batch or known.record == batch.record) and known_before == term_before,
                "log matching: two different entries have the same index and term",
                process,
                index=batch.first_index,
                term=batch.term,
            )
            last_index, term_before = batch.last_index, batch.term

    def applied(self, process: Process, batch: Batch, results: Any) -> None:
        """State machine safety: the same batch at the same index everywhere, same results."""
        self._require(
            batch.last_index <= self.committed.last_index
            or (process.node is not None and batch.last_index <= process.node.commit_index),
            "applied before it was committed",
            process,
            index=batch.first_index,
        )
        known, known_results = self._results.setdefault(batch.first_index, (batch, results))
        self._require(
            (known is batch or known.record == batch.record) and known_results == results,
            "state machine safety: two nodes applied different entries",
            process,
            index=batch.first_index,
        )

    # --- promises

    def departing(self, process: Process, message: Message, to: int, cuts_since: int) -> None:
        """What a message promises must be on this node's disk by the time it leaves.

        `cuts_since`: how often the log was cut since the message was made. What was cut by a later
        leader was on the disk, or would have been, and can't be looked up any more.
        """
        disk = process.disk
        durable = disk.durable
        match message:
            case AppendEntries() | Heartbeat() | RequestVote() | TimeoutNow():
                self._term_is_durable(process, message)
            case ReadIndexReply(index=index) if index:
                self._term_is_durable(process, message)
            case VoteReply(term=term, granted=True):
                self._vote_is_durable(process, term, to)
            case AppendReply(success=True, match_index=match_index):
                self._term_is_durable(process, message)
                self._require(
                    cuts_since > 0 or match_index <= durable.last_index,
                    "acknowledged before it was on disk",
                    process,
                    match_index=match_index,
                    durable=durable.last_index,
                )
                promised = self._terms.get(process.member_id, 0)
                self._terms[process.member_id] = max(promised, message.term)
            case BootstrapInstall():
                self._require(
                    durable.last_index > 0, "installs a first entry that is not on disk", process
                )
        if isinstance(message, RequestVote):
            self._vote_is_durable(process, message.term, process.member_id)

    def _term_is_durable(self, process: Process, message: Message) -> None:
        disk = process.disk
        # A node starts again with the term of its last entry, if that is later than the vote's.
        self._require(
            message.term <= max(disk.vote.term, disk.durable.last_term),
            "a message of a term that is not on disk",
            process,
            message=type(message).__name__,
            term=message.term,
            durable=disk.vote.term,
        )

    def _vote_is_durable(self, process: Process, term: int, candidate: int) -> None:
        vote = process.disk.vote
        self._require(
            vote.term > term or (vote.term == term and vote.voted_for == candidate),
            "a vote left before it was on disk",
            process,
            term=term,
            candidate=f"{candidate:016x}",
            on_disk=(vote.term, f"{vote.voted_for:016x}"),
        )
        known = self._votes.setdefault((process.member_id, term), candidate)
        self._require(
            known == candidate,
            "two votes in one term",
            process,
            term=term,
            first=f"{known:016x}",
            second=f"{candidate:016x}",
        )
        promised = self._terms.get(process.member_id, 0)
        self._terms[process.member_id] = max(promised, term)
