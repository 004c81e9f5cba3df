"""Commits announced at once, pipelining and its limits, fast back-off, sessions."""

from __future__ import annotations

import pytest

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.progress import ReplicationState
from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Heartbeat,
    PeerConnected,
    Proposed,
    RefusalReason,
    Refused,
    Settings,
    Vote,
)
from tests.unit.consensus.harness import Cluster, Packet, led
from tests.unit.consensus.server import MAX_TIMEOUT_US, entry, log_of, of, sends, terms_of

# --- commits are announced at once


def test_a_commit_is_announced_at_once_to_those_who_hold_the_entry() -> None:
    cluster = led(5)
    before_us = cluster.now_us
    cluster.propose(1, b"x")
    cluster.settle()
    assert cluster.now_us == before_us
    assert [cluster.applied(i) for i in range(1, 6)] == [[b"x"]] * 5


def test_an_announcement_wants_no_reply_and_is_not_repeated() -> None:
    cluster = led()
    cluster.propose(1)
    cluster.settle()
    told = [m for m in sends(Heartbeat, cluster[1].history, to=2) if m.request_id == 0]
    assert [m.commit_index for m in told] == [2, 3]


def test_a_commit_that_an_append_carries_is_not_announced_again() -> None:
    """Under load commits travel with the entries."""
    cluster = led()
    cluster.propose(1)
    cluster.deliver()
    cluster.deliver()
    cluster.drop()
    effects = cluster.propose(1)
    (request,) = sends(AppendEntries, effects, to=2)
    assert request.commit_index == 3
    assert not sends(Heartbeat, effects, to=2)


def test_nobody_is_told_of_a_commit_beyond_what_it_holds() -> None:
    """What lies behind a follower's match_index may be another leader's."""
    cluster = Cluster(logs={1: log_of(1, 1, 1), 2: log_of(1, 1, 1), 3: log_of(1)})
    cluster.time_out(1)
    cluster.settle(lambda packet: 3 not in (packet.to, packet.sender))
    assert cluster.node(1).commit_index == 4
    for message in sends(Heartbeat, cluster.time_out(1), to=3):
        assert message.commit_index == 0


# --- pipelining and its limits


def test_entries_are_sent_without_waiting_for_the_ones_before() -> None:
    cluster = led()
    for _ in range(10):
        cluster.propose(1)
    sent = [packet.message for packet in cluster.wire if packet.to == 2]
    assert [message.prev_index for message in sent] == list(range(2, 12))


def test_no_more_messages_are_in_flight_than_allowed() -> None:
    cluster = led(settings=Settings(max_inflight_messages=4))
    for _ in range(10):
        cluster.propose(1)
    assert len([packet for packet in cluster.wire if packet.to == 2]) == 4
    assert len(cluster.node(1).progress[2].inflight) == 4
    cluster.settle()
    assert cluster.node(2).commit_index == 12


def test_what_waited_goes_out_with_the_first_acknowledgement_in_few_messages() -> None:
    cluster = led(settings=Settings(max_inflight_messages=2))
    for _ in range(50):
        cluster.propose(1)
    before = len(sends(AppendEntries, cluster[1].history, to=2))
    cluster.settle()
    assert len(sends(AppendEntries, cluster[1].history, to=2)) == before + 1


def test_no_more_bytes_are_in_flight_than_allowed_but_for_one_message() -> None:
    settings = Settings(max_inflight_bytes=10_000, max_append_bytes=3_000)
    cluster = led(settings=settings)
    for _ in range(50):
        cluster.propose(1, b"x" * 1000)
    progress = cluster.node(1).progress[2]
    assert 10_000 <= progress.inflight_bytes < 13_000
    most = 0
    while cluster.deliver():
        most = max(most, progress.inflight_bytes)
    assert most < 13_000
    assert cluster.node(2).commit_index == 52


def test_a_message_is_not_larger_than_allowed_unless_it_is_one_batch() -> None:
    settings = Settings(max_append_bytes=3_000, max_inflight_messages=1)
    cluster = led(settings=settings)
    for size in (10, 1000, 1000, 1000, 1000, 9000, 10, 10):
        cluster.propose(1, b"x" * size)
    cluster.settle()
    for message in sends(AppendEntries, cluster[1].history):
        size = sum(len(batch.record) for batch in message.batches)
        assert size <= 3_000 or len(message.batches) == 1
    assert cluster.node(3).commit_index == 10


def test_a_slow_peer_does_not_slow_the_others() -> None:
    cluster = led(5, settings=Settings(max_inflight_messages=2))
    cluster.paused = {5}
    for _ in range(20):
        cluster.propose(1)
        cluster.settle()
    assert [cluster.node(i).commit_index for i in (1, 2, 3, 4)] == [22] * 4
    assert len(cluster.node(1).progress[5].inflight) == 2
    cluster.paused = set()
    cluster.settle()
    assert cluster.node(5).commit_index == 22


def test_too_many_uncommitted_bytes_are_refused_as_busy() -> None:
    cluster = led(settings=Settings(max_uncommitted_bytes=10_000))
    answers: list[Proposed | Refused] = []
    for tag in range(20):
        effects = cluster.propose(1, b"x" * 1000, tag=tag)
        answers += [*of(Proposed, effects), *of(Refused, effects)]
    assert [type(answer) for answer in answers[:9]] == [Proposed] * 9
    assert answers[9:] == [Refused(tag, RefusalReason.BUSY, 0) for tag in range(9, 20)]
    assert cluster.node(1).log.last_index == 11
    cluster.settle()
    assert of(Proposed, cluster.propose(1, b"x" * 1000))


def test_one_proposal_larger_than_the_limit_is_taken_when_nothing_else_waits() -> None:
    cluster = led(settings=Settings(max_uncommitted_bytes=1_000))
    assert of(Proposed, cluster.propose(1, b"x" * 5_000))
    assert of(Refused, cluster.propose(1, b"x"))
    cluster.settle()
    assert of(Proposed, cluster.propose(1, b"x"))


def test_a_peer_that_does_not_answer_is_probed_with_one_message_at_a_time() -> None:
    cluster = led()
    cluster.down.add(3)
    for _ in range(5):
        cluster.propose(1)
    cluster.settle()
    cluster.run_for(10 * MAX_TIMEOUT_US)
    seen = len(sends(AppendEntries, cluster[1].history, to=3))
    for _ in range(20):
        cluster.propose(1)
        cluster.settle()
    assert len(sends(AppendEntries, cluster[1].history, to=3)) == seen
    cluster.run_for(10 * MAX_TIMEOUT_US)
    assert len(sends(AppendEntries, cluster[1].history, to=3)) <= seen + 11


# --- fast back-off (§5.3, last paragraphs)


def round_trips(leader: list[Batch], follower: list[Batch]) -> int:
    """AppendEntries that the leader sends until it knows where the logs agree."""
    cluster = Cluster(
        logs={1: leader, 2: follower, 3: leader}, votes={i: Vote(90) for i in (1, 2, 3)}
    )
    cluster.time_out(1)
    cluster.settle(lambda packet: not _between_1_and_2(packet))
    trips = 0
    while cluster.node(1).progress.get(2) is None or cluster.node(1).progress[2].match_index == 0:
        trips += 1
        assert trips < 100
        cluster.deliver()
        cluster.deliver()
    cluster.settle()
    assert cluster[2].disk == cluster[1].disk
    return trips


def _between_1_and_2(packet: Packet) -> bool:
    return {packet.sender, packet.to} == {1, 2} and isinstance(
        packet.message, AppendEntries | AppendReply
    )


def test_a_follower_that_lacks_a_thousand_entries_is_found_in_two_round_trips() -> None:
    leader = [*log_of(1), *[entry(index, 2) for index in range(2, 1002)]]
    assert round_trips(leader, log_of(1)) <= 2


def test_a_follower_with_a_thousand_foreign_entries_is_found_in_two_round_trips() -> None:
    """All of one term: one refusal skips them."""
    leader = log_of(1, 3)
    follower = [*log_of(1), *[entry(index, 2) for index in range(2, 1002)]]
    assert round_trips(leader, follower) <= 2


@pytest.mark.parametrize("run", [1, 7, 40])
@pytest.mark.parametrize("terms", [1, 4, 10])
def test_back_off_takes_no_more_round_trips_than_there_are_terms_to_skip(
    terms: int, run: int
) -> None:
    """The logs' terms are disjoint: both sides skip one in each round trip."""
    odd = [1] + [3 + 2 * (i // run) for i in range(terms * run)]
    even = [1] + [2 + 2 * (i // run) for i in range(terms * run)]
    odd.append(max(odd) + 2)
    assert round_trips(log_of(*odd), log_of(*even)) <= terms + 2


def test_back_off_ends_before_a_batch_and_not_inside_it() -> None:
    """Logs are sent and cut at the batch's boundaries only."""
    leader = [*log_of(1), entry(2, 3, count=10), entry(12, 5)]
    for follower in ([entry(2, 2, count=4)], [entry(2, 4), entry(3, 4)], [entry(2, 4, count=20)]):
        assert round_trips(leader, [*log_of(1), *follower]) <= 3


# --- sessions


def test_a_reply_from_before_a_reconnect_cannot_move_match_index() -> None:
    """The peer may have come back with less than it had acknowledged."""
    cluster = led()
    leader = cluster.node(1)
    cluster.propose(1)
    cluster.deliver(lambda packet: packet.to == 2)
    late = cluster.drop(lambda packet: packet.sender == 2)
    assert late
    cluster.step(1, PeerConnected(2, "n2"))
    assert leader.progress[2].match_index == 0
    cluster.drop()
    cluster.wire += late
    cluster.settle()
    assert leader.progress[2].match_index == 0
    assert leader.commit_index == 2


def test_every_connection_begins_a_session_of_its_own() -> None:
    cluster = led()
    seen = {cluster.node(1).progress[peer].session for peer in (2, 3)}
    for _ in range(3):
        cluster.connect(1, 2)
        seen.add(cluster.node(1).progress[2].session)
    assert len(seen) == 5


def test_a_second_term_in_office_begins_new_sessions() -> None:
    cluster = led()
    before = {progress.session for progress in cluster.node(1).progress.values()}
    cluster.elect(2)
    cluster.elect(1)
    after = {progress.session for progress in cluster.node(1).progress.values()}
    assert not before & after


def test_a_reply_to_an_earlier_term_of_the_same_leader_is_ignored() -> None:
    cluster = led()
    cluster.propose(1)
    cluster.deliver(lambda packet: packet.to == 2)
    late = cluster.drop(lambda packet: packet.sender == 2)
    cluster.drop()
    cluster.elect(2)
    cluster.elect(1)
    before = cluster.node(1).progress[2].match_index
    cluster.wire += late
    cluster.settle()
    assert cluster.node(1).progress[2].match_index == before


def test_a_reply_from_before_the_leaders_restart_is_ignored() -> None:
    """Sessions are numbered from one again after a restart, but the term is a later one."""
    cluster = led()
    cluster.propose(1)
    cluster.deliver(lambda packet: packet.to == 2)
    late = cluster.drop(lambda packet: packet.sender == 2)
    cluster.drop()
    cluster.restart(1)
    cluster.drop()
    cluster.time_out(1)
    cluster.settle(lambda packet: not isinstance(packet.message, AppendEntries))
    assert cluster.node(1).progress[2].match_index == 0
    requests = cluster.drop()
    cluster.wire += late
    cluster.settle()
    assert cluster.node(1).progress[2].match_index == 0
    cluster.wire += requests
    cluster.settle()
    assert cluster.node(1).progress[2].match_index == cluster.node(1).log.last_index


def test_a_reconnect_sends_again_what_was_lost() -> None:
    cluster = led()
    cluster.propose(1, b"x")
    cluster.drop(lambda packet: packet.to == 3)
    cluster.settle()
    cluster.connect(1, 3)
    cluster.settle()
    assert cluster.applied(3) == [b"x"]


def test_a_late_refusal_does_not_send_the_leader_back() -> None:
    """It speaks of a probe that has been answered since."""
    cluster = Cluster(logs={1: log_of(1, 2, 2), 2: log_of(1), 3: log_of(1, 2, 2)})
    cluster.time_out(1)
    cluster.settle(lambda packet: not isinstance(packet.message, AppendReply))
    refusals = [packet for packet in cluster.wire if packet.sender == 2]
    assert refusals
    cluster.settle()
    progress = cluster.node(1).progress[2]
    assert progress.match_index == 4
    for refusal in refusals:
        late = refusal.message
        effects = cluster.run(1, lambda server, late=late: server.receive(2, late))
        assert not sends(AppendEntries, effects)
    assert progress.state is ReplicationState.REPLICATE
    assert (progress.match_index, progress.next_index) == (4, 5)
    assert terms_of(cluster.node(2)) == [1, 2, 2, 3]


def test_a_message_delivered_twice_and_late_does_no_harm() -> None:
    cluster = led()
    everything: list[Packet] = []
    for number in range(10):
        cluster.propose(1, b"%d" % number)
        everything += cluster.wire
        while cluster.deliver():
            everything += cluster.wire
    cluster.wire += reversed(everything)
    cluster.settle()
    assert cluster.leaders == [1]
    assert cluster.applied(2) == [b"%d" % number for number in range(10)]
    assert cluster[2].disk == cluster[1].disk
