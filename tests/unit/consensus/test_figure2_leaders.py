"""Figure 2, box "Rules for Servers": leaders."""

from __future__ import annotations

import pytest

from raft_agent.consensus.batch import BatchKind
from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Apply,
    Heartbeat,
    Proposed,
    Role,
    TimerExpired,
)
from tests.unit.consensus.harness import Cluster, Packet
from tests.unit.consensus.server import HEARTBEAT_US, entry, log_of, of, sends, terms_of


def is_append(packet: Packet) -> bool:
    return isinstance(packet.message, AppendEntries)


def test_upon_election_send_append_entries_to_each_server() -> None:
    """Leaders, §5.2 and §8: at once, with a no-op of the new term, before any client has asked."""
    cluster = Cluster(5)
    cluster.time_out(1)
    cluster.settle(lambda packet: not is_append(packet))
    assert sorted(packet.to for packet in cluster.wire) == [2, 3, 4, 5]
    (batch,) = {packet.message.batches[0] for packet in cluster.wire}
    assert (batch.kind, batch.term, batch.first_index) == (BatchKind.NOOP, 2, 2)


def test_heartbeats_repeat_during_idle_periods_and_prevent_elections() -> None:
    """Leaders, §5.2."""
    cluster = Cluster(5)
    cluster.elect(1)
    effects = cluster.time_out(1)
    assert [len(sends(Heartbeat, effects, to=peer)) for peer in (2, 3, 4, 5)] == [1, 1, 1, 1]
    cluster.settle()
    cluster.run_for(5_000_000)
    assert cluster.leaders == [1]
    assert {cluster.node(i).current_term for i in range(1, 6)} == {2}


def test_heartbeats_come_at_their_interval() -> None:
    """§5.2: well below the election timeout."""
    cluster = Cluster()
    leader = cluster.elect(1)
    assert leader.next_deadline_us == cluster.now_us + HEARTBEAT_US
    assert not sends(Heartbeat, cluster.step(1, TimerExpired()))


def test_a_command_is_appended_to_the_local_log_first() -> None:
    """Leaders, §5.3; `Proposed` names the index, and the entry is not yet committed."""
    cluster = Cluster()
    leader = cluster.elect(1)
    effects = cluster.propose(1, b"command", tag=5)
    assert of(Proposed, effects) == [Proposed(5, 3, 2)]
    assert leader.log.last_index == 3
    assert leader.commit_index == 2


def test_respond_after_the_entry_is_applied_to_the_state_machine() -> None:
    """Leaders, §5.3: it is applied once a majority has it."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, b"command")
    assert cluster.applied(1) == []
    cluster.settle()
    assert [cluster.applied(member) for member in (1, 2, 3)] == [[b"command"]] * 3


def test_if_last_log_index_reaches_next_index_send_the_entries_from_there() -> None:
    """Leaders, §5.3."""
    cluster = Cluster()
    leader = cluster.elect(1)
    assert leader.progress[2].next_index == 3
    effects = cluster.propose(1)
    (request,) = sends(AppendEntries, effects, to=2)
    assert [batch.first_index for batch in request.batches] == [3]
    assert (request.prev_index, request.prev_term) == (2, 2)
    assert leader.progress[2].next_index == 4


def test_if_successful_update_next_index_and_match_index() -> None:
    """Leaders, §5.3: to what the follower says it has on disk."""
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.propose(1)
    assert leader.progress[3].match_index == 2
    cluster.settle()
    assert (leader.progress[3].match_index, leader.progress[3].next_index) == (3, 4)


def test_if_it_fails_because_of_log_inconsistency_decrement_next_index_and_retry() -> None:
    """Leaders, §5.3: until the logs agree; then the follower gets all it lacks."""
    cluster = Cluster(logs={2: log_of(1, 2, 2, 2), 3: log_of(1), 1: log_of(1, 3)})
    leader = cluster.elect(1)
    assert terms_of(leader) == [1, 3, 4]
    assert terms_of(cluster.node(2)) == [1, 3, 4]
    assert terms_of(cluster.node(3)) == [1, 3, 4]


def test_a_leader_never_overwrites_or_deletes_entries_in_its_log() -> None:
    """§5.3, Leader Append-Only: however its followers' logs look."""
    cluster = Cluster(logs={1: log_of(1, 2, 3, 4), 2: log_of(1, 2, 3), 3: log_of(1, 2, 2, 2)})
    leader = cluster.elect(1)
    assert terms_of(leader) == [1, 2, 3, 4, 5]
    assert [batch.first_index for batch in cluster[1].disk] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("size", "acknowledged", "committed"),
    [(3, 0, False), (3, 1, True), (4, 1, False), (4, 2, True), (5, 1, False), (5, 2, True)],
)
def test_commit_what_a_majority_of_match_indexes_has_reached(
    size: int, acknowledged: int, committed: bool
) -> None:
    """Leaders, §5.3: the leader's own disk counts as one."""
    cluster = Cluster(size)
    leader = cluster.elect(1)
    cluster.propose(1)
    for peer in range(2, 2 + acknowledged):
        cluster.settle(lambda packet, peer=peer: peer in (packet.to, packet.sender))
    assert leader.commit_index == (3 if committed else 2)


def test_the_leaders_own_copy_counts_only_once_it_is_on_disk() -> None:
    """§5.3 with a slow disk: a majority of other disks is enough, two of five with it are not."""
    cluster = Cluster(5)
    leader = cluster.elect(1)
    cluster[1].writes = False
    cluster.propose(1)
    for peer, committed in ((2, 2), (3, 2), (4, 3)):
        cluster.settle(lambda packet, peer=peer: peer in (packet.to, packet.sender))
        assert leader.commit_index == committed


def test_only_an_entry_of_the_own_term_is_committed_by_counting() -> None:
    """Leaders, §5.3, §5.4: log[N].term == currentTerm; what is older is committed with it."""
    cluster = Cluster(logs={i: log_of(1, 2, 2) for i in (1, 2, 3)})
    cluster.time_out(1)
    cluster.settle(lambda packet: not is_append(packet))
    leader = cluster.node(1)
    session = leader.progress[2].session
    cluster[1].receive(2, AppendReply(3, 1, session, True, 3, 0, 0))
    assert leader.progress[2].match_index == 3
    assert leader.commit_index == 0
    cluster.settle()
    assert leader.commit_index == 4


def test_followers_learn_what_is_committed_from_the_leader() -> None:
    """§5.3: and apply it, in log order."""
    cluster = Cluster()
    cluster.elect(1)
    for number in range(5):
        cluster.propose(1, b"%d" % number)
    cluster.settle()
    assert cluster.node(3).commit_index == 7
    assert cluster.applied(3) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_follower_that_was_down_gets_all_it_missed() -> None:
    """§5.3: requests are retried without end."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.down.add(3)
    for number in range(20):
        cluster.propose(1, b"%d" % number)
        cluster.run_for(HEARTBEAT_US)
    cluster.restart(3)
    cluster.settle()
    assert cluster.node(3).log.last_index == cluster.node(1).log.last_index
    assert cluster.applied(3) == cluster.applied(1)


def test_a_lost_request_is_sent_again() -> None:
    """§5.3, §5.5: after an election timeout without an answer."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1)
    cluster.drop(lambda packet: packet.to == 3)
    cluster.settle()
    assert cluster.node(3).log.last_index == 2
    cluster.run_for(400_000)
    assert cluster.node(3).log.last_index == 3
    assert cluster.leaders == [1]


def test_a_reply_that_claims_more_than_the_leader_has_moves_nothing() -> None:
    """§5.3: no follower's log can agree with entries that do not exist."""
    cluster = Cluster()
    leader = cluster.elect(1)
    session = leader.progress[2].session
    cluster[1].receive(2, AppendReply(2, 1, session, True, 99, 0, 0))
    assert leader.progress[2].match_index == 2
    assert leader.commit_index == 2


def test_entries_of_a_batch_are_committed_and_applied_together() -> None:
    """One proposal of many commands is one batch, and one index each."""
    cluster = Cluster()
    cluster.elect(1)
    cluster[1].propose(b"three", count=3)
    cluster.run(1, lambda server: server.propose(b"one"))
    cluster.settle()
    assert cluster.node(2).log.last_index == 6
    applied = [b for apply in of(Apply, cluster[2].history) for b in apply.batches]
    assert [(batch.first_index, batch.count) for batch in applied[-2:]] == [(3, 3), (6, 1)]


def test_a_leader_of_one_commits_by_itself() -> None:
    """§5.3 with a majority of one: as soon as its disk has the entry, not earlier."""
    cluster = Cluster(1)
    leader = cluster.elect(1)
    assert leader.role is Role.LEADER
    cluster[1].writes = False
    cluster.propose(1, b"alone")
    assert leader.commit_index == 2
    cluster.run(1, lambda server: server.write_log())
    assert leader.commit_index == 3
    assert cluster.applied(1) == [b"alone"]


def test_equal_index_and_term_mean_equal_entries() -> None:
    """§5.3, Log Matching: also after logs that had gone apart were mended."""
    cluster = Cluster(logs={2: [*log_of(1, 2), entry(3, 2, count=4)]})
    cluster.elect(2)
    cluster.propose(2)
    cluster.settle()
    records = {tuple(batch.record for batch in cluster[i].disk) for i in (1, 2, 3)}
    assert len(records) == 1
