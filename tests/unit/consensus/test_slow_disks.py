"""Disks that are slower than the timers neither prevent a leader nor fill the memory."""

from __future__ import annotations

import heapq
from itertools import count

import pytest

from raft_agent.consensus.node import Node
from raft_agent.consensus.types import (
    AppendLog,
    Applied,
    Apply,
    Event,
    LogPersisted,
    PreVote,
    PreVoteReply,
    Propose,
    ReadIndex,
    ReadIndexReply,
    Received,
    RefusalReason,
    Refused,
    RequestVote,
    Role,
    SaveVote,
    Send,
    Settings,
    TimerExpired,
    Vote,
    VotePersisted,
    VoteReply,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import Server, image_of, log_of, notes, of, sends

NETWORK_US = 1_000
LOG_WRITE_US = 2_000


class SlowVotes:
    """Three cores with the default timing whose votes take `vote_us` each to be on disk."""

    def __init__(self, vote_us: int, seed: int) -> None:
        self.vote_us = vote_us
        self.now_us = 0
        self.nodes = {
            i: Node(
                member_id=i,
                name=f"n{i}",
                address=f"n{i}:5555",
                peer_names=("n1", "n2", "n3"),
                vote=Vote(1),
                log=image_of(log_of(1)),
                settings=Settings(),
                seed=seed * 10 + i,
                now_us=0,
            )
            for i in (1, 2, 3)
        }
        self._agenda: list[tuple[int, int, int, Event]] = []
        self._order = count()
        self._held: dict[int, list[Send]] = {i: [] for i in self.nodes}
        self._durable = dict.fromkeys(self.nodes, (0, 0))
        self._saving = dict.fromkeys(self.nodes, False)
        self._queued: dict[int, SaveVote | None] = dict.fromkeys(self.nodes)

    def run_until_a_leader_commits(self, limit_us: int) -> int:
        """The time it took; the highest term is left in the nodes."""
        while not any(n.role is Role.LEADER and n.commit_index > 1 for n in self.nodes.values()):
            due_us, number = min((n.next_deadline_us or 0, i) for i, n in self.nodes.items())
            if self._agenda and self._agenda[0][0] <= due_us:
                self.now_us, _, number, event = heapq.heappop(self._agenda)
            else:
                self.now_us, event = max(due_us, self.now_us), TimerExpired()
            assert self.now_us < limit_us, "no leader"
            self._step(number, event)
        return self.now_us

    def _step(self, number: int, event: Event) -> None:
        log_seq, vote_seq = self._durable[number]
        if isinstance(event, LogPersisted):
            self._durable[number] = (event.seq, vote_seq)
        elif isinstance(event, VotePersisted):
            self._durable[number] = (log_seq, event.seq)
            self._saving[number] = False
        effects = self.nodes[number].step(event, self.now_us)
        for effect in effects:
            if isinstance(effect, SaveVote):
                self._queued[number] = effect
            elif isinstance(effect, AppendLog):
                self._later(LOG_WRITE_US, number, LogPersisted(effect.seq))
            elif isinstance(effect, Apply):
                self._later(0, number, Applied(effect.batches[-1].last_index))
            elif isinstance(effect, Send):
                self._held[number].append(effect)
        queued = self._queued[number]
        if queued is not None and not self._saving[number]:
            self._saving[number], self._queued[number] = True, None
            self._later(self.vote_us, number, VotePersisted(queued.seq))
        self._let_go(number)

    def _let_go(self, number: int) -> None:
        log_seq, vote_seq = self._durable[number]
        held, self._held[number] = self._held[number], []
        for send in held:
            if send.after_log <= log_seq and send.after_vote <= vote_seq:
                self._later(NETWORK_US, send.to, Received(number, send.message))
            else:
                self._held[number].append(send)

    def _later(self, delay_us: int, number: int, event: Event) -> None:
        heapq.heappush(self._agenda, (self.now_us + delay_us, next(self._order), number, event))


@pytest.mark.parametrize("vote_ms", [1, 140, 200, 300, 500])
def test_a_leader_is_elected_however_long_a_vote_takes_to_write(vote_ms: int) -> None:
    for seed in range(5):
        cluster = SlowVotes(vote_ms * 1000, seed)
        cluster.run_until_a_leader_commits(limit_us=30_000_000)
        assert max(node.current_term for node in cluster.nodes.values()) <= 10


def test_the_first_two_elections_in_vain_do_not_slow_the_third_down() -> None:
    server = Server()
    state = server.node.state
    longest_us = state.settings.election_timeout_max_us
    state.fruitless_elections = 2
    for _ in range(100):
        state.reset_election_timer()
        assert state.election_due_us - state.now_us <= longest_us
    state.fruitless_elections = 3
    state.reset_election_timer()
    assert state.election_due_us - state.now_us >= 2 * state.settings.election_timeout_min_us


def test_a_leader_that_is_known_makes_up_for_elections_in_vain() -> None:
    cluster = Cluster()
    for server in cluster.servers.values():
        server.node.state.fruitless_elections = 5
    cluster.elect(1)
    cluster.settle()
    assert [node.node.state.fruitless_elections for node in cluster.servers.values()] == [0, 0, 0]


def test_what_a_hanging_disk_has_not_written_counts_as_uncommitted() -> None:
    settings = Settings(max_uncommitted_bytes=10_000)
    cluster = Cluster(settings=settings)
    leader = cluster.elect(1)
    cluster.settle()
    cluster[1].writes = False
    refused: list[Refused] = []
    for tag in range(40):
        refused += of(Refused, cluster.step(1, Propose(tag, 1, bytes(1000))))
        cluster.settle()
    assert leader.commit_index > 2, "the followers commit without the leader's disk"
    assert {refusal.reason for refusal in refused} == {RefusalReason.BUSY}
    cluster.run(1, lambda server: server.write_log())
    assert not of(Refused, cluster.step(1, Propose(99, 1, bytes(1000))))


def test_a_read_index_asked_for_in_an_older_term_is_answered_at_once() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.settle()
    effects = cluster[1].receive(2, ReadIndex(leader.current_term - 1, 7, False))
    (reply,) = sends(ReadIndexReply, effects, to=2)
    assert (reply.term, reply.request_id, reply.index) == (leader.current_term, 7, 0)


def test_a_leader_whose_disk_hangs_steps_down_where_the_others_get_on_without_it() -> None:
    cluster = Cluster()
    node = cluster.elect(1)
    cluster.settle()
    cluster[1].writes = False
    cluster.step(1, Propose(1, 1, b"x"))
    cluster.settle()
    cluster.run_for(11 * node.state.settings.election_timeout_max_us)
    assert node.role is not Role.LEADER
    assert node.state.disk_stalls
    assert cluster.leaders, "one of the others leads"
    assert "disk_stalls" in notes(cluster[1].history)


def test_a_leader_stays_where_nobody_gets_on_without_its_disk() -> None:
    cluster = Cluster()
    node = cluster.elect(1)
    cluster.settle()
    for server in cluster.servers.values():
        server.writes = False
    cluster.step(1, Propose(1, 1, b"x"))
    cluster.settle()
    cluster.run_for(20 * node.state.settings.election_timeout_max_us)
    assert node.role is Role.LEADER


def test_a_pre_candidate_that_votes_for_another_gives_its_own_ballot_up() -> None:
    server = Server()
    server.tick()
    assert server.node.role is Role.PRE_CANDIDATE
    (ballot, *_) = sends(PreVote, server.history)
    granted = sends(VoteReply, server.receive(2, RequestVote(1, 9, 1, 1, False)))
    assert granted[0].granted
    server.receive(3, PreVoteReply(2, ballot.request_id, True))
    assert server.node.role is Role.FOLLOWER
