"""The three cases of Ongaro's "bug in single-server membership changes" (raft-dev, 2015-07-10).

Two leaders of competing terms each change one server, and neither change is committed when the
other begins. With majorities of single configurations alone, those of both could be disjoint, and
what one leader has committed would be overwritten by the other. Here each case is played as told
there: a leader whose change is not committed is deposed, another one commits a change of its own,
then the first one comes back and tries to win with its own configuration.
"""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    AppendEntries,
    MembershipChange,
    RefusalReason,
    Refused,
    Role,
)
from tests.unit.consensus.harness import Cluster, configuration, member
from tests.unit.consensus.server import MAX_TIMEOUT_US, of

VOTERS = (1, 2, 3, 4)

cases = pytest.mark.parametrize(
    ("first", "second"),
    [
        (MembershipChange(promote=(5,)), MembershipChange(promote=(6,))),
        (MembershipChange(promote=(5,)), MembershipChange(remove=(1,))),
        (MembershipChange(remove=(2,)), MembershipChange(remove=(1,))),
    ],
    ids=["add/add", "add/remove", "remove/remove"],
)


def one_change_left_behind(first: MembershipChange) -> Cluster:
    """1 led, and appended its change where at most a new server has it too; the others have not
    heard of it. 5 and 6 are learners that have everything else."""
    cluster = Cluster(len(VOTERS))
    cluster.elect(1)
    cluster.change(1, MembershipChange(add=(member(5), member(6))))
    cluster.settle()
    for new in (5, 6):
        cluster.add(new)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    cluster.part({1, *first.promote}, {2, 3, 4, 5, 6} - {*first.promote})
    cluster.change(1, first, force=True)
    cluster.settle()
    assert cluster.node(1).configuration_index > cluster.node(1).commit_index
    return cluster


def second_leader(cluster: Cluster) -> None:
    """3 is elected by the voters that have not heard of the change."""
    cluster.now_us += MAX_TIMEOUT_US
    cluster.elect(3)


@cases
def test_no_change_is_taken_before_the_new_leader_has_committed_in_its_own_term(
    first: MembershipChange, second: MembershipChange
) -> None:
    """This is the rule that was missing."""
    cluster = one_change_left_behind(first)
    cluster.now_us += MAX_TIMEOUT_US
    cluster.time_out(3)
    cluster.settle(lambda packet: not isinstance(packet.message, AppendEntries))
    assert cluster.node(3).role is Role.LEADER
    (refused,) = of(Refused, cluster.change(3, second, force=True))
    assert refused.reason is RefusalReason.NOT_READY


@cases
def test_the_deposed_leader_can_not_win_with_its_own_configuration(
    first: MembershipChange, second: MembershipChange
) -> None:
    cluster = one_change_left_behind(first)
    second_leader(cluster)
    cluster.change(3, second)
    cluster.propose(3, b"committed")
    cluster.run_for(MAX_TIMEOUT_US)
    (leader,) = [i for i in cluster.leaders if i != 1]
    committed = cluster.applied(leader)
    assert committed == [b"committed"]
    # 1 comes back, and those who could elect it in the configuration that only it has.
    cluster.heal()
    friends = {1, 2, *first.promote}
    cluster.part(friends, {2, 3, 4, 5, 6} - friends)
    cluster.restart(1)
    for _ in range(10):
        cluster.time_out(1)
        cluster.settle(lambda packet: {packet.sender, packet.to} <= friends)
        assert cluster.node(1).role is not Role.LEADER
    cluster.heal()
    cluster.run_for(10 * MAX_TIMEOUT_US)
    (leader,) = cluster.leaders
    assert cluster.applied(leader) == committed


@cases
def test_the_first_change_is_gone_and_the_second_one_stands_everywhere(
    first: MembershipChange, second: MembershipChange
) -> None:
    cluster = one_change_left_behind(first)
    second_leader(cluster)
    cluster.change(3, second)
    cluster.heal()
    cluster.run_for(10 * MAX_TIMEOUT_US)
    (leader,) = cluster.leaders
    known = configuration(cluster, leader)
    assert known.voters == tuple(sorted({*VOTERS, *second.promote} - {*second.remove}))
    assert known.voters_outgoing == ()
    for i in (*known.voters, *known.learners):
        assert cluster.node(i).configuration == known
