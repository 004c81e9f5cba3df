"""What a leader sends to a follower that its log can't bring up (§7 of the paper)."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import AppendEntries, MembershipChange
from tests.unit.consensus.harness import Cluster, member
from tests.unit.consensus.server import HEARTBEAT_US, MAX_TIMEOUT_US, log_of, notes, sends


@pytest.mark.parametrize("compact_to", [3, 4])
def test_a_follower_whose_log_differs_at_the_base_gets_a_snapshot(compact_to: int) -> None:
    """Its last entry stands where the leader's log begins, or behind, and is of an older term."""
    long = log_of(1, 2, 4, 4, 4)
    cluster = Cluster(3, logs={1: long, 2: long, 3: log_of(1, 2, 3, 3)})
    cluster.down = {3}
    cluster.elect(1)
    cluster.run_for(5 * MAX_TIMEOUT_US)  # it is waited for no longer
    cluster.run(1, lambda server: server.take_snapshot(compact_to))
    cluster.restart(3)
    cluster.settle()
    cluster.propose(1, b"after")
    cluster.settle()
    assert cluster.applied(3) == cluster.applied(1)
    assert cluster[3].disk_base == (6, 5)


def test_a_probe_that_was_lost_is_sent_again_and_no_snapshot_in_its_place() -> None:
    """The follower may hold all that it needs; only its answer is overdue."""
    cluster = Cluster(3, logs=dict.fromkeys((1, 2, 3), log_of(*[1] * 8)))
    cluster.down = {3}
    cluster.elect(1)
    for payload in (b"a", b"b"):
        cluster.propose(1, payload)
        cluster.settle()
    cluster.run(1, lambda server: server.take_snapshot(8))
    cluster.down = set()
    cluster.run_for(4 * MAX_TIMEOUT_US)
    assert not [note for note in cluster[3].history if "snapshot" in str(note)]
    assert cluster.applied(3) == cluster.applied(1)
    assert sends(AppendEntries, cluster[1].history, to=3)


def test_a_fresh_learner_gets_its_snapshot_over_a_link_slower_than_heartbeats() -> None:
    """It answers each message with its token; that must not begin the transmission anew."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.run(1, lambda server: server.take_snapshot(2))
    cluster.change(1, MembershipChange(add=(member(4),)))
    cluster.settle()
    cluster.delay_us[4] = HEARTBEAT_US + HEARTBEAT_US // 5
    cluster.add(4)
    cluster.run_for(4 * MAX_TIMEOUT_US)
    assert cluster.node(4).commit_index == cluster.node(1).commit_index
    assert notes(cluster[1].history).count("snapshot_offered") == 1
