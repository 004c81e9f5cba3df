"""What messages promise must be on the sender's disk by the time they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    BootstrapInstall,
    Heartbeat,
    Message,
    ReadIndexReply,
    RequestVote,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
)
from tests.sim.violation import require

if TYPE_CHECKING:
    from tests.sim.process import Process


class Promises:
    """All that was promised in a run: terms by member, votes by member and term."""

    def __init__(self) -> None:
        self._votes: dict[tuple[int, int], int] = {}
        self._terms: dict[int, int] = {}

    def term_of(self, member_id: int) -> int:
        """The latest term that this member has promised to somebody."""
        return self._terms.get(member_id, 0)

    def vote_of(self, member_id: int, term: int) -> int:
        """For whom this member's vote of `term` has left; 0 when none has."""
        return self._votes.get((member_id, term), 0)

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
                require(
                    cuts_since > 0 or match_index <= durable.last_index,
                    "acknowledged before it was on disk",
                    process,
                    match_index=match_index,
                    durable=durable.last_index,
                )
                promised = self._terms.get(process.member_id, 0)
                self._terms[process.member_id] = max(promised, message.term)
            case SnapshotReply(done=True, index=index):
                self._term_is_durable(process, message)
                require(
                    cuts_since > 0 or index <= durable.last_index,
                    "a snapshot is said to be there before it was on disk",
                    process,
                    index=index,
                    durable=durable.last_index,
                )
            case BootstrapInstall():
                require(
                    durable.last_index > 0, "installs a first entry that is not on disk", process
                )
        if isinstance(message, RequestVote):
            self._vote_is_durable(process, message.term, process.member_id)

    def _term_is_durable(self, process: Process, message: Message) -> None:
        disk = process.disk
        # A node starts again with the term of its last entry, if that is later than the vote's.
        require(
            message.term <= max(disk.vote.term, disk.durable.last_term),
            "a message of a term that is not on disk",
            process,
            message=type(message).__name__,
            term=message.term,
            durable=disk.vote.term,
        )

    def _vote_is_durable(self, process: Process, term: int, candidate: int) -> None:
        vote = process.disk.vote
        require(
            vote.term > term or (vote.term == term and vote.voted_for == candidate),
            "a vote left before it was on disk",
            process,
            term=term,
            candidate=f"{candidate:016x}",
            on_disk=(vote.term, f"{vote.voted_for:016x}"),
        )
        known = self._votes.setdefault((process.member_id, term), candidate)
        require(
            known == candidate,
            "two votes in one term",
            process,
            term=term,
            first=f"{known:016x}",
            second=f"{candidate:016x}",
        )
        promised = self._terms.get(process.member_id, 0)
        self._terms[process.member_id] = max(promised, term)
