"""The checks over a whole node notice what they are there for, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raft_agent.consensus import invariants
from raft_agent.consensus.invariants import BrokenInvariantError
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import Role
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import Server, configuration_of, log_of
from tests.unit.consensus.snapshot_files import snapshot_of


def leader() -> Node:
    """Leads three, has committed and applied something, and has something in flight."""
    cluster = Cluster()
    node = cluster.elect(1)
    cluster.propose(1)
    cluster.settle()
    cluster.propose(1)
    invariants.check(node)
    assert all(progress.inflight for progress in node.progress.values())
    return node


def _apply_beyond_the_commit(node: Node) -> None:
    node.state.applied_index = node.state.commit_index + 1


def _commit_beyond_the_end(node: Node) -> None:
    node.state.commit_index = node.state.log.last_index + 1


def _persist_beyond_the_end(node: Node) -> None:
    node.state.persisted_index = node.state.log.last_index + 1


def _fall_behind_the_log(node: Node) -> None:
    node.state.current_term = node.state.log.last_term - 1


def _compact_without_a_snapshot(node: Node) -> None:
    node.state.log.compact(1)


def _have_a_snapshot_of_what_was_not_applied(node: Node) -> None:
    file = snapshot_of(log_of(1, *[2] * node.applied_index), 1, configuration_of(3))
    node.state.snapshot = file.meta


def _use_a_configuration_that_is_not_there(node: Node) -> None:
    node.state.membership.reset(node.log.last_index + 1, configuration_of(3))


def _lose_the_last_batch(node: Node) -> None:
    node.state.log._batches.pop()


def _lead_without_leadership(node: Node) -> None:
    node.state.leadership = None


def _follow_with_leadership(node: Node) -> None:
    node.state.role = Role.FOLLOWER


def _vote_for_somebody_else(node: Node) -> None:
    node.state.voted_for = 2


def _follow_somebody_else(node: Node) -> None:
    node.state.leader_id = 2


def _send_what_is_acknowledged(node: Node) -> None:
    node.progress[2].match_index = node.progress[2].next_index


def _send_what_is_not_there(node: Node) -> None:
    node.progress[3].next_index = node.state.log.last_index + 2


def _miscount_what_is_in_flight(node: Node) -> None:
    node.progress[3].inflight_bytes -= 1


@pytest.mark.parametrize(
    ("break_it", "rule"),
    [
        (_apply_beyond_the_commit, "applied <= committed <= last"),
        (_commit_beyond_the_end, "applied <= committed <= last"),
        (_persist_beyond_the_end, "what is on disk is in the log"),
        (_fall_behind_the_log, "no entry is of a later term"),
        (_compact_without_a_snapshot, "base <= snapshot <= applied"),
        (_have_a_snapshot_of_what_was_not_applied, "base <= snapshot <= applied"),
        (_use_a_configuration_that_is_not_there, "the configuration in force is in the log"),
        (_lose_the_last_batch, "the resident batches reach the end of the log"),
        (_lead_without_leadership, "leaders, and only they, have a leadership"),
        (_follow_with_leadership, "leaders, and only they, have a leadership"),
        (_vote_for_somebody_else, "a leader voted for itself and knows itself"),
        (_follow_somebody_else, "a leader voted for itself and knows itself"),
        (_send_what_is_acknowledged, "match < next <= last"),
        (_send_what_is_not_there, "match < next <= last"),
        (_miscount_what_is_in_flight, "bytes in flight are counted exactly"),
    ],
)
def test_a_broken_rule_is_named(break_it: Callable[[Node], None], rule: str) -> None:
    node = leader()
    break_it(node)
    with pytest.raises(BrokenInvariantError, match=rule):
        invariants.check(node)


def test_an_empty_memory_is_no_broken_rule() -> None:
    """All may be on disk only."""
    invariants.check(Server(log=log_of(1, 1, 2), resident_from=4).node)


def test_a_broken_invariant_tells_the_facts() -> None:
    with pytest.raises(BrokenInvariantError, match=r"broken invariant: a rule \(term=3, other=4\)"):
        invariants.require(False, "a rule", term=3, other=4)
    invariants.require(True, "a rule", term=3)
