"""Figures 7 and 8 of the paper as scenarios."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import AppendEntries, AppendReply, Role, Vote
from tests.unit.consensus.harness import Cluster, Packet
from tests.unit.consensus.server import entry, log_of, terms_of

LEADER = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
FOLLOWERS = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}
# §5.4.1: who would vote for the leader of the figure; c's log is longer, d's last term is later.
VOTERS = {"a", "b", "e", "f"}


@pytest.mark.parametrize("name", FOLLOWERS)
def test_figure_7_a_followers_log_becomes_the_leaders(name: str) -> None:
    """§5.3: whatever is missing or too much, the consistency check finds it."""
    terms = FOLLOWERS[name]
    logs = {1: log_of(*LEADER), 2: log_of(*terms), 3: log_of(1)}
    cluster = Cluster(logs=logs, votes={i: Vote(7) for i in (1, 2, 3)})
    leader = cluster.elect(1)
    assert terms_of(leader) == [*LEADER, 8]
    assert terms_of(cluster.node(2)) == [*LEADER, 8]
    assert cluster[2].disk == cluster[1].disk
    assert cluster.node(2).commit_index == 11


def test_figure_7_all_at_once() -> None:
    """The figure's cluster of seven: four votes of six and the own elect the leader for term 8."""
    logs = {1: log_of(*LEADER, size=7)}
    ids = dict(zip(FOLLOWERS, range(2, 8), strict=True))
    logs |= {ids[name]: log_of(*terms, size=7) for name, terms in FOLLOWERS.items()}
    cluster = Cluster(7, logs=logs, votes={i: Vote(7) for i in range(1, 8)})
    cluster.elect(1)
    votes = {name for name in FOLLOWERS if cluster.node(ids[name]).voted_for == 1}
    assert votes == VOTERS
    assert [terms_of(cluster.node(i)) for i in range(1, 8)] == [[*LEADER, 8]] * 7


def test_figure_7_c_and_d_could_be_elected_too() -> None:
    """§5.4.1: a longer log or a later last term wins over all others."""
    logs = {1: log_of(*FOLLOWERS["d"]), 2: log_of(*LEADER), 3: log_of(*FOLLOWERS["c"])}
    cluster = Cluster(logs=logs, votes={i: Vote(7) for i in (1, 2, 3)})
    cluster.elect(1)
    assert terms_of(cluster.node(2)) == [*FOLLOWERS["d"], 8]
    assert terms_of(cluster.node(3)) == [*FOLLOWERS["d"], 8]


# --- Figure 8: five servers, index 2 is where they go apart; S1 … S5 have the ids 1 … 5.


def to_figure_8_c() -> Cluster:
    """(a) S1 replicates an entry of term 2 to S2. (b) S5 is elected in term 3 and writes another at
    the same index. (c) S1 is elected in term 4 and brings the entry of term 2 to S3.

    The no-op that opens a term here is the entry that the figure's leaders write.
    """
    logs = {i: log_of(1, size=5) for i in range(1, 6)}
    logs[1] = logs[2] = log_of(1, 2, size=5)
    logs[5] = log_of(1, 3, size=5)
    votes = {i: Vote(3, 5) for i in (3, 4, 5)} | {i: Vote(3) for i in (1, 2)}
    cluster = Cluster(5, logs=logs, votes=votes)
    cluster.down.add(5)
    cluster.time_out(1)
    cluster.settle(lambda packet: not isinstance(packet.message, AppendEntries))
    assert (cluster.node(1).role, cluster.node(1).current_term) == (Role.LEADER, 4)
    return cluster


def without_term_4(packet: Packet) -> bool:
    """Lets through what carries no entry of term 4, and only between S1, S2 and S3."""
    message = packet.message
    return {packet.sender, packet.to} <= {1, 2, 3} and not (
        isinstance(message, AppendEntries) and any(batch.term == 4 for batch in message.batches)
    )


def test_figure_8_c_an_entry_of_an_old_term_on_a_majority_is_not_committed() -> None:
    """§5.4.2: S1, S2 and S3 hold index 2 of term 2, and nobody takes it for committed."""
    cluster = to_figure_8_c()
    leader = cluster.node(1)
    probes = cluster.drop(lambda packet: isinstance(packet.message, AppendEntries))
    (probe,) = [packet.message for packet in probes if packet.to == 3]
    assert isinstance(probe, AppendEntries)
    # S3 refuses the no-op of term 4, behind an entry it lacks, and so gets index 2.
    cluster.run(3, lambda server: server.receive(1, probe))
    cluster.settle(without_term_4)
    assert terms_of(cluster.node(3)) == [1, 2]
    assert leader.progress[3].match_index == 2
    (to_2,) = [packet.message for packet in probes if packet.to == 2]
    assert isinstance(to_2, AppendEntries)
    acknowledged = AppendReply(4, to_2.request_id, to_2.session, True, 2, 0, 0)
    cluster.run(1, lambda server: server.receive(2, acknowledged))
    assert leader.progress[2].match_index == 2
    assert leader.commit_index == 0
    assert [cluster.node(i).commit_index for i in (2, 3)] == [0, 0]


def test_figure_8_d_such_an_entry_may_still_be_overwritten() -> None:
    """S1 crashes; S5 is elected by S2, S3 and S4, whose last terms are not later, and its entry of
    term 3 takes index 2 everywhere. Nothing that was applied changes."""
    cluster = to_figure_8_c()
    probes = cluster.drop(lambda packet: isinstance(packet.message, AppendEntries))
    (probe,) = [packet.message for packet in probes if packet.to == 3]
    cluster.run(3, lambda server: server.receive(1, probe))
    cluster.settle(without_term_4)
    cluster.drop()
    cluster.down = {1}
    cluster[5].disk_vote = Vote(4)
    cluster.restart(5)
    cluster.elect(5)
    assert [terms_of(cluster.node(i)) for i in (2, 3, 4, 5)] == [[1, 3, 5]] * 4
    cluster.down = set()
    cluster.restart(1)
    cluster.run_for(1_000_000)
    assert terms_of(cluster.node(1))[:3] == [1, 3, 5]


def test_figure_8_e_with_an_entry_of_the_own_term_on_a_majority_it_is_committed() -> None:
    """S1 replicates its entry of term 4 to S2 and S3 before it crashes: index 2 is committed with
    it, and S5 can't win any more."""
    cluster = to_figure_8_c()
    cluster.settle(lambda packet: {packet.sender, packet.to} <= {1, 2, 3})
    assert cluster.node(1).commit_index == 3
    cluster.drop()
    cluster.down = {1}
    cluster[5].disk_vote = Vote(4)
    cluster.restart(5)
    cluster.time_out(5)
    cluster.settle()
    assert cluster.node(5).role is not Role.LEADER
    cluster.run_for(3_000_000)
    assert cluster.leaders
    assert cluster.leaders[0] in (2, 3)
    assert [terms_of(cluster.node(i))[:3] for i in (2, 3, 4, 5)] == [[1, 2, 4]] * 4


def test_a_new_leader_brings_a_follower_behind_by_many_batches_up_in_order() -> None:
    """§5.3: requests in flight arrive in any order and the log is the same."""
    log = [*log_of(1), *[entry(index, 2) for index in range(2, 40)]]
    cluster = Cluster(logs={1: log, 2: log, 3: log_of(1)})
    cluster.time_out(1)
    for _ in range(300):
        if not cluster.wire:
            break
        last = cluster.wire[-1]
        cluster.deliver(lambda packet, last=last: packet is last)
    assert not cluster.wire
    cluster.run_for(1_000_000)
    assert cluster[3].disk == cluster[1].disk
