"""Who belongs to the cluster, as the logs say it: what may come of it, and what must not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft_agent.consensus import changes, quorum
from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.consensus.changes import ChangeRefusedError
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import Configuration, Role
from tests.sim.logfile import LogFile, configuration_in
from tests.sim.promises import Promises
from tests.sim.violation import Violation, require

if TYPE_CHECKING:
    from tests.sim.process import Process


class Memberships:
    """All configurations of a run. `committed` is the log of which it is known that it is."""

    def __init__(self, committed: LogFile, promises: Promises) -> None:
        self._committed = committed
        self._promises = promises
        self._appended: dict[tuple[int, int], Configuration] = {}
        # What a process was, and in which term, when it first knew to be removed.
        self._settled: dict[int, tuple[Role, int]] = {}

    def appended(self, process: Process, batch: Batch) -> None:
        """A configuration follows one that is committed, and its leader knows what is."""
        if batch.kind != BatchKind.CONFIGURATION:
            return
        self._appended[batch.first_index, batch.term] = configuration_in(bytes(batch.payload))
        node = process.node
        if node is None or node.role is not Role.LEADER:
            return
        before = process.disk.written.configuration_index
        require(
            before <= node.commit_index,
            "a configuration follows one that is not committed",
            process,
            index=batch.first_index,
            before=before,
            committed=node.commit_index,
        )
        require(
            node.log.term_at(node.commit_index) == node.current_term,
            "a configuration is changed before its leader has committed anything",
            process,
            index=batch.first_index,
            committed=node.commit_index,
        )

    def is_removed(self, member_id: int) -> bool:
        """Whether it is committed that this member is none any more."""
        configuration = self._committed.configuration
        return configuration is not None and member_id in configuration.removed

    def since(self, index: int, term: int) -> list[Configuration]:
        """Those that a leader of `term` may have appended behind the entry `index`."""
        return [known for at, known in self._appended.items() if at[0] > index and at[1] == term]

    def in_play(self) -> list[Configuration]:
        """The latest committed one, all that may still take its place, and what a leader may make
        of them without being asked."""
        since = self._committed.configuration_index
        found = [known for (index, _), known in self._appended.items() if index > since]
        if self._committed.configuration is not None:
            found.append(self._committed.configuration)
        return [following for known in found for following in outcomes_of(known)]

    def elected(self, process: Process, node: Node) -> None:
        """A leader has the votes of a quorum of the configuration in its log."""
        configuration = process.disk.written.configuration
        if configuration is None:
            raise Violation(f"{process.name}: leads without a configuration")
        term = node.current_term
        me = process.member_id
        vote = process.disk.vote
        voters = {*configuration.voters, *configuration.voters_outgoing}
        granted = {voter for voter in voters if self._promises.vote_of(voter, term) == me}
        if (vote.term, vote.voted_for) == (term, me):
            granted.add(me)
        require(
            quorum.has_quorum(configuration, granted),
            "elected without the votes of a quorum",
            process,
            term=term,
            granted=len(granted),
        )

    def stepped(self, process: Process, node: Node) -> None:
        """The log's latest configuration is in force; who knows to be removed is quiet."""
        written = process.disk.written
        if node.configuration_index != written.configuration_index:
            require(
                False,
                "the configuration in force is not the log's latest",
                process,
                in_force=node.configuration_index,
                latest=written.configuration_index,
            )
        if node.state.was_removed:
            now = (node.role, node.current_term)
            known = self._settled.setdefault(process.index, now)
            stands = node.role in (Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER)
            require(
                not stands or now == known,
                "a member that knows that it was removed stands for election",
                process,
                term=node.current_term,
            )

    def ended(self, process: Process) -> None:
        self._settled.pop(process.index, None)


def outcomes_of(configuration: Configuration) -> list[Configuration]:
    """This configuration, and those that come of it by promotions when all who are to join do."""
    found = [configuration]
    settled = configuration
    if changes.is_joint(settled):
        settled = changes.leave_joint(settled)
        found.append(settled)
    for entry in settled.joining:
        try:
            joint = changes.change(settled, changes.promotion(settled, entry))
        except ChangeRefusedError:
            continue
        found += outcomes_of(joint)
    return found
