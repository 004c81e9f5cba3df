"""What the simulator found in the core, each as small as it gets."""

from __future__ import annotations

from raft_agent.consensus import changes
from raft_agent.consensus.batch import BatchKind, encode
from raft_agent.consensus.membership import encode_configuration, first_entry
from raft_agent.consensus.types import (
    Announce,
    Configuration,
    ConfigurationChanged,
    Joining,
    MembershipChange,
    PreVote,
    Received,
    RefusalReason,
    Refused,
    Role,
    Vote,
)
from tests.unit.consensus.harness import Cluster, configuration, member
from tests.unit.consensus.server import MAX_TIMEOUT_US, entry, notes, of, sends, terms_of
from tests.unit.consensus.snapshot_files import SnapshotFile

ADD_4 = MembershipChange(add=(member(4),))


def test_a_removed_voter_whose_log_is_damaged_asks_and_is_told() -> None:
    """It does not stand for election, so nobody is asked for a vote who could tell it."""
    cluster = Cluster(votes={3: Vote(1, 0, 1, 5)})
    cluster.part({1, 2}, {3})
    cluster.elect(1)
    cluster.change(1, MembershipChange(remove=(3,)))
    cluster.settle()
    cluster.heal()
    cluster.time_out(3)
    cluster.settle()
    assert notes(cluster[3].history).count("removed") == 1


def test_a_removed_voter_is_told_although_the_voters_it_knows_do_not_know() -> None:
    """All whom it would ask for votes were removed as well, and have not heard since they started.
    The only one who could tell it was no voter when it was there last."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.add(4)
    cluster.change(1, ADD_4)
    cluster.run_for(4 * MAX_TIMEOUT_US)
    cluster.part({3}, {1, 2, 4})
    for change in (
        MembershipChange(promote=(4,), remove=(3,)),
        MembershipChange(remove=(2,)),
        MembershipChange(remove=(1,)),
    ):
        cluster.change(1, change)
        cluster.settle()
    assert cluster.leaders == [4]
    cluster.heal()
    cluster.part({4}, {1, 2})
    for member_id in (1, 2):
        cluster.restart(member_id)
    cluster.time_out(3)
    cluster.settle()
    assert notes(cluster[3].history).count("removed") == 1


def test_a_learner_that_has_no_log_yet_is_not_promoted() -> None:
    """As a voter it would never get one: a voter without a log may have lost one that counted."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.change(1, ADD_4)
    cluster.settle()
    effects = cluster.change(1, MembershipChange(promote=(4,)), tag=7)
    assert of(Refused, effects) == [Refused(7, RefusalReason.NOT_READY, 0)]


def test_a_learner_that_never_catches_up_does_not_keep_addresses_from_moving() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.change(1, MembershipChange(add=(member(4),), joining=(Joining(4),)))
    cluster.settle()
    term = cluster.node(1).current_term
    cluster.step(1, Received(2, Announce(term, 1, "elsewhere:5555")))
    cluster.settle(lambda packet: packet.to == 3)
    told = of(ConfigurationChanged, cluster[3].history)[-1].configuration
    assert {known.id: known.address for known in told.members}[2] == "elsewhere:5555"


def test_a_member_that_joined_by_a_snapshot_stands_for_election() -> None:
    """It saved the leader's term while it was still fresh, and has to hear that this was done."""
    cluster = Cluster(1)
    cluster.elect(1)
    cluster.run(1, lambda server: server.take_snapshot(2))
    cluster.change(1, MembershipChange(add=(member(4),), joining=(Joining(4),)))
    cluster.settle()
    cluster.add(4)
    cluster.run_for(4 * MAX_TIMEOUT_US)
    known = configuration(cluster, 4)
    assert known.voters == (1, 4)
    cluster.part({1}, {4})
    assert sends(PreVote, cluster.time_out(4), to=1)


def leader_with_a_damaged_snapshot(cluster: Cluster) -> Cluster:
    """Server 1 leads, and server 3, which is down, needs its snapshot."""
    cluster.down = {3}
    cluster.elect(1)
    cluster.run_for(5 * MAX_TIMEOUT_US)  # it is waited for no longer
    cluster.run(1, lambda server: server.take_snapshot(2))
    files = cluster[1].snapshots
    files.kept = [SnapshotFile(file.meta, file.data[::-1]) for file in files.kept]
    return cluster


def test_a_damaged_snapshot_in_one_piece_is_replaced_although_nothing_is_written() -> None:
    """The host takes another one of the same entry: what the state machine holds is not damaged."""
    cluster = leader_with_a_damaged_snapshot(Cluster())
    cluster.restart(3)
    cluster.run_for(20 * MAX_TIMEOUT_US)
    assert "snapshot_refused" in notes(cluster[1].history)
    cluster.run(1, lambda server: server.take_snapshot())
    cluster.run_for(20 * MAX_TIMEOUT_US)
    assert cluster.node(3).commit_index == cluster.node(1).commit_index


def test_a_leader_whose_snapshot_stays_damaged_hands_over_to_one_that_has_another() -> None:
    """No new one can be taken behind an entry that is committed: it takes 3 to commit any."""
    cluster = leader_with_a_damaged_snapshot(Cluster(5))
    cluster.run(2, lambda server: server.take_snapshot(2))
    cluster.down = {4, 5}
    cluster.restart(3)
    cluster.run_for(40 * MAX_TIMEOUT_US)
    assert "snapshot_stays_refused" in notes(cluster[1].history)
    assert cluster.node(2).role is Role.LEADER
    assert cluster.node(3).commit_index == cluster.node(2).state.log.last_index


def test_a_leader_whose_snapshot_is_refused_leads_on_while_another_one_may_come() -> None:
    cluster = leader_with_a_damaged_snapshot(Cluster())
    cluster.restart(3)
    cluster.run_for(10 * MAX_TIMEOUT_US)
    assert notes(cluster[1].history).count("snapshot_refused") > 1
    cluster.run(1, lambda server: server.take_snapshot())
    cluster.run_for(40 * MAX_TIMEOUT_US)
    assert cluster.node(1).role is Role.LEADER
    assert "snapshot_stays_refused" not in notes(cluster[1].history)


def test_a_learner_that_alone_has_a_lost_leaders_entry_brings_it_in() -> None:
    """1 led term 3 and left an entry on 4 alone, then its own copy was damaged. By an older entry
    of 3, 4 is a voter, and 3 needs three of four votes; by its own log 4 is a learner."""
    known = Configuration("c1", tuple(member(i) for i in range(1, 5)), (1, 2, 3), learners=(4,))
    promoted = changes.change(known, MembershipChange(promote=(4,)))
    log = [first_entry(known), entry(2, 1)]
    joint = encode(BatchKind.CONFIGURATION, 3, 2, 1, encode_configuration(promoted))
    cluster = Cluster(
        4,
        logs={1: log, 2: log, 3: [*log, joint], 4: [*log, entry(3, 3)]},
        votes={1: Vote(3, 1, floor_term=3, floor_index=3)},
    )
    cluster.run_for(20 * MAX_TIMEOUT_US)
    assert len(cluster.leaders) == 1
    assert cluster.node(4).role is Role.LEARNER
    for member_id in cluster.servers:
        assert terms_of(cluster.node(member_id))[:3] == [1, 1, 3]
        assert configuration(cluster, member_id) == known
