"""Networks that are neither up nor down, and processes that stop for a while."""

from __future__ import annotations

from raft_agent.consensus.types import Heartbeat, PreVote, RequestVote, Role, TimerExpired, Vote
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import HEARTBEAT_US, log_of, notes

SECOND_US = 1_000_000


def elections(cluster: Cluster) -> int:
    """How often anybody has raised its term to stand."""
    return sum(
        notes(server.history).count("election_started") for server in cluster.servers.values()
    )


def commits(cluster: Cluster, leader: int, payload: bytes) -> bool:
    cluster.propose(leader, payload)
    cluster.run_for(4 * HEARTBEAT_US)
    return payload in cluster.applied(leader)


# --- Cloudflare, November 2020: a switch that let some pairs talk and others not


def test_cloudflare_2020_a_partial_partition_neither_unseats_the_leader_nor_stops_writes() -> None:
    """1 leads and no longer reaches 2, while 3 reaches both. 2's elections were what took the real
    cluster down; here 3, which hears its leader, refuses the pre-votes."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.part([1], [2])
    before = elections(cluster)
    for number in range(20):
        assert commits(cluster, 1, b"%d" % number)
    assert elections(cluster) == before
    assert cluster.leaders == [1]
    assert {cluster.node(i).current_term for i in (1, 2, 3)} == {2}
    cluster.heal()
    cluster.run_for(SECOND_US)
    assert cluster.leaders == [1]
    assert cluster.applied(2) == cluster.applied(1)


def test_a_partial_partition_in_five_where_only_one_reaches_a_majority_elects_that_one() -> None:
    """All links are gone but those of 3, as in a star: 3 is the only one who can lead, and the
    leader that hears two of five no more steps down for it."""
    cluster = Cluster(5)
    cluster.elect(1)
    cluster.part([1], [2], [4], [5])
    cluster.run_for(5 * SECOND_US)
    assert cluster.leaders == [3]
    assert commits(cluster, 3, b"star")
    term = cluster.node(3).current_term
    cluster.run_for(5 * SECOND_US)
    assert cluster.leaders == [3]
    assert cluster.node(3).current_term == term


def test_a_chain_of_three_keeps_its_leader_at_one_end() -> None:
    """2 reaches both others, and 1 leads: 3 hears nobody who leads, and disturbs nobody."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.part([1], [3])
    cluster.run_for(10 * SECOND_US)
    assert cluster.leaders == [1]
    assert cluster.node(1).current_term == 2


# --- one-way links


def test_a_follower_that_can_send_but_not_hear_disturbs_nobody() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut |= {(1, 3), (2, 3)}
    before = elections(cluster)
    cluster.run_for(5 * SECOND_US)
    assert elections(cluster) == before
    assert cluster.leaders == [1]
    assert commits(cluster, 1, b"x")


def test_a_follower_that_can_hear_but_not_send_stays_quiet() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut |= {(3, 1), (3, 2)}
    cluster.run_for(5 * SECOND_US)
    assert cluster.leaders == [1]
    assert cluster.node(3).role is Role.FOLLOWER
    assert commits(cluster, 1, b"x")


def test_a_leader_that_can_send_but_not_hear_steps_down_and_another_takes_over() -> None:
    """Its heartbeats alone would keep the others from standing for ever; check-quorum ends that."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut |= {(2, 1), (3, 1)}
    cluster.run_for(2 * SECOND_US)
    (leader,) = cluster.leaders
    assert leader in (2, 3)
    term = cluster.node(leader).current_term
    assert commits(cluster, leader, b"x")
    cluster.run_for(5 * SECOND_US)
    assert cluster.leaders == [leader]
    assert cluster.node(leader).current_term == term
    cluster.heal()
    cluster.run_for(SECOND_US)
    assert cluster.leaders == [leader]
    assert cluster.node(1).current_term == term


def test_a_leader_that_can_hear_but_not_send_loses_its_followers() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut |= {(1, 2), (1, 3)}
    cluster.run_for(2 * SECOND_US)
    assert len(cluster.leaders) == 1
    assert cluster.leaders[0] in (2, 3)
    assert cluster.node(1).role is not Role.LEADER


# --- rejoining


def test_a_node_that_was_cut_off_comes_back_in_the_term_it_left_in() -> None:
    """§9.6 of the thesis: pre-votes that nobody grants raise no term."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.part([1, 2], [3])
    cluster.run_for(30 * SECOND_US)
    assert cluster.node(3).current_term == 2
    cluster.heal()
    cluster.run_for(SECOND_US)
    assert cluster.leaders == [1]
    assert {cluster.node(i).current_term for i in (1, 2, 3)} == {2}


def test_a_rejoining_node_with_an_inflated_term_costs_one_election_at_most() -> None:
    """However its term came about: the others take it over, and all go on with a leader who has
    every entry; the node itself, which lacks some, can't win."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.down.add(3)
    assert commits(cluster, 1, b"while away")
    before = elections(cluster)
    cluster[3].disk_vote = Vote(50)
    cluster.restart(3)
    cluster.run_for(3 * SECOND_US)
    assert elections(cluster) - before <= 3
    (leader,) = cluster.leaders
    assert leader in (1, 2)
    term = cluster.node(leader).current_term
    assert term > 50
    assert commits(cluster, leader, b"afterwards")
    assert cluster.applied(3) == [b"while away", b"afterwards"]
    cluster.run_for(5 * SECOND_US)
    assert cluster.node(leader).current_term == term


def test_an_inflated_request_for_votes_does_not_reach_the_term_of_those_with_a_leader() -> None:
    """§4.2.3: it is dropped, not only refused."""
    cluster = Cluster()
    cluster.elect(1)
    for member_id in (1, 2):
        cluster.run(member_id, lambda server: server.receive(3, RequestVote(50, 1, 99, 49, False)))
    cluster.drop()
    cluster.run_for(SECOND_US)
    assert cluster.leaders == [1]
    assert cluster.node(1).current_term == 2


# --- pauses


def test_a_leader_paused_for_two_seconds_finds_another_and_steps_down() -> None:
    """It must not answer anything in the meantime, nor unseat the new one when it wakes."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.paused.add(1)
    cluster.run_for(2 * SECOND_US)
    (new,) = [i for i in cluster.leaders if i != 1]
    term = cluster.node(new).current_term
    cluster.propose(new, b"without 1")
    cluster.paused.clear()
    cluster.propose(1, b"lost")
    cluster.step(1, TimerExpired())  # its timer is long due, and comes before the packets
    cluster.deliver(lambda packet: packet.to == 1)
    assert cluster.node(1).role is Role.FOLLOWER
    cluster.run_for(SECOND_US)
    assert cluster.leaders == [new]
    assert cluster.node(new).current_term == term
    assert cluster.applied(1) == [b"without 1"]


def test_a_paused_leader_that_reads_its_packets_first_steps_down_as_well() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.paused.add(1)
    cluster.run_for(2 * SECOND_US)
    cluster.paused.clear()
    cluster.deliver(lambda packet: packet.to == 1)
    assert cluster.node(1).role is Role.FOLLOWER
    assert len(cluster.leaders) == 1


def test_a_paused_leaders_own_proposal_does_not_survive_the_new_one() -> None:
    """What it takes in before it notices is not acknowledged, and cut afterwards."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.paused.add(1)
    cluster.run_for(2 * SECOND_US)
    (new,) = [i for i in cluster.leaders if i != 1]
    cluster.propose(1, b"lost")
    cluster.paused.clear()
    cluster.run_for(2 * SECOND_US)
    assert cluster.leaders == [new]
    assert cluster.applied(1) == []
    assert cluster[1].disk == cluster[new].disk


def test_a_follower_paused_for_two_seconds_comes_back_quietly() -> None:
    """Its timer is due when it wakes; its pre-votes are refused."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.paused.add(3)
    cluster.run_for(2 * SECOND_US)
    waiting = [packet for packet in cluster.wire if isinstance(packet.message, Heartbeat)]
    assert waiting
    cluster.step(3, TimerExpired())
    assert [packet for packet in cluster.wire if isinstance(packet.message, PreVote)]
    cluster.paused.clear()
    cluster.run_for(SECOND_US)
    assert cluster.leaders == [1]
    assert cluster.node(1).current_term == 2


def test_a_minority_elects_nobody_and_a_majority_goes_on() -> None:
    cluster = Cluster(5)
    cluster.elect(1)
    cluster.part([1, 2], [3, 4, 5])
    cluster.run_for(3 * SECOND_US)
    (leader,) = cluster.leaders
    assert leader in (3, 4, 5)
    assert commits(cluster, leader, b"majority")
    cluster.heal()
    cluster.run_for(2 * SECOND_US)
    assert len(cluster.leaders) == 1
    assert [cluster.applied(i) for i in range(1, 6)] == [[b"majority"]] * 5


def test_a_cluster_that_lost_its_quorum_recovers_by_itself() -> None:
    cluster = Cluster(logs={i: log_of(1) for i in (1, 2, 3)})
    cluster.elect(1)
    cluster.part([1], [2], [3])
    cluster.run_for(3 * SECOND_US)
    assert cluster.leaders == []
    cluster.heal()
    cluster.run_for(3 * SECOND_US)
    assert len(cluster.leaders) == 1
    assert commits(cluster, cluster.leaders[0], b"again")
