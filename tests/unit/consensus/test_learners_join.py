"""How a new member comes in: with the log's beginning or a snapshot, then by rounds of catching up
until it votes (§4.2.1 of the thesis)."""

from __future__ import annotations

from raft_agent.consensus.leadership import CatchUp
from raft_agent.consensus.membership import first_entry
from raft_agent.consensus.types import (
    AppendLog,
    BootstrapAnswer,
    BootstrapInstall,
    InstallSnapshot,
    Joining,
    MembershipChange,
    MembershipChanged,
    Note,
    Role,
    SnapshotChunk,
    TransferDone,
    TransferLeadership,
)
from tests.unit.consensus.harness import Cluster, configuration, led, member, voters
from tests.unit.consensus.server import (
    HEARTBEAT_US,
    MAX_TIMEOUT_US,
    MIN_TIMEOUT_US,
    Server,
    configuration_of,
    notes,
    of,
    sends,
)

JOIN_4 = MembershipChange(add=(member(4),), joining=(Joining(4),))
LEARN_4 = MembershipChange(add=(member(4),))


def compacted(change: MembershipChange, size: int = 3) -> Cluster:
    """1 leads, and its log begins behind the entry of this change."""
    cluster = led(size)
    cluster.change(1, change)
    cluster.settle()
    cluster.run(1, lambda server: server.take_snapshot(server.node.applied_index))
    cluster.settle()
    return cluster


# --- the way in


def test_a_learner_joins_an_uncompacted_cluster_by_its_first_entry() -> None:
    cluster = led()
    cluster.change(1, LEARN_4)
    cluster.settle()
    cluster.add(4)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    (install,) = sends(BootstrapInstall, cluster[1].history, to=4)
    assert install.joins
    assert install.batch == first_entry(configuration_of(3))
    assert cluster.node(4).role is Role.LEARNER
    assert cluster.node(4).commit_index == cluster.node(1).commit_index
    assert voters(cluster) == (1, 2, 3)


def test_a_learner_joins_a_compacted_cluster_by_a_snapshot_with_its_token() -> None:
    cluster = compacted(LEARN_4)
    cluster.add(4)
    cluster.settle()
    assert not sends(BootstrapInstall, cluster[1].history, to=4)
    tokens = {chunk.token for chunk in sends(SnapshotChunk, cluster[1].history, to=4)} - {0}
    assert len(tokens) == 1
    assert "cluster_joined" in notes(cluster[4].history)
    assert cluster.node(4).role is Role.LEARNER
    assert cluster.node(4).commit_index == cluster.node(1).commit_index
    assert cluster.node(4).current_term == cluster.node(1).current_term


def fresh() -> Server:
    return Server(4, log=[])


def token_of(server: Server, asker: int) -> int:
    (answer,) = sends(BootstrapAnswer, server.receive(asker, SnapshotChunk(2, 1, 1, 0, *FILE)))
    assert answer.fresh
    return answer.token


FILE = (9, 2, 100, 7, 0, b"")


def test_a_snapshot_with_a_wrong_token_is_not_taken() -> None:
    server = fresh()
    token = token_of(server, 1)
    assert token_of(server, 2) != token
    for sender, wrong in ((1, token + 1), (2, token), (3, 0)):
        effects = server.receive(sender, SnapshotChunk(2, 1, 1, wrong, *FILE))
        assert sends(BootstrapAnswer, effects)
        assert "snapshot_arrives" not in notes(effects)
    assert server.node.current_term == 0
    assert "snapshot_arrives" in notes(server.receive(1, SnapshotChunk(2, 1, 1, token, *FILE)))
    assert server.node.current_term == 2


def test_no_first_entry_is_taken_while_a_snapshot_is_being_installed() -> None:
    """Both members may bring the same learner in; nothing may be appended to a log that is about
    to be forgotten."""
    cluster = compacted(LEARN_4)
    cluster.cut = {(1, 4)}
    server = cluster.add(4)
    server.installs = False
    token = token_of(server, 2)
    server.outbox.clear()
    cluster.cut = set()
    cluster.connect(1, 4)
    cluster.settle()
    cluster.run(4, lambda server: server.do_snapshot_work())
    assert isinstance(server.snapshot_work[0], InstallSnapshot)
    install = BootstrapInstall(2, 1, token, first_entry(configuration_of(3)), True)
    assert not of(AppendLog, cluster.run(4, lambda server: server.receive(2, install)))
    cluster.run(4, lambda server: server.do_snapshot_work())
    cluster.settle()
    assert cluster.node(4).commit_index == cluster.node(1).commit_index


def test_a_known_member_with_an_empty_log_is_not_brought_in() -> None:
    cluster = led()
    cluster.change(1, JOIN_4)
    cluster.settle()
    cluster.add(4)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert voters(cluster) == (1, 2, 3, 4)
    del cluster.servers[4]
    effects_before = len(cluster[1].history)
    cluster.add(4)
    cluster.run_for(MAX_TIMEOUT_US)
    assert "log_lost" in notes(cluster[1].history[effects_before:])
    assert cluster.node(4).role is Role.FRESH


def test_a_founding_member_that_this_leader_knows_to_have_had_entries_is_not_brought_in() -> None:
    """Its vote and its acknowledgements count; with an empty log it would vote for anybody."""
    cluster = led()
    cluster.propose(1)
    cluster.settle()
    assert cluster.node(1).progress[3].match_index > 0
    del cluster.servers[3]
    effects_before = len(cluster[1].history)
    cluster.add(3)
    cluster.run_for(MAX_TIMEOUT_US)
    assert "log_lost" in notes(cluster[1].history[effects_before:])
    assert cluster.node(3).role is Role.FRESH


# --- catching up


def test_a_joining_learner_becomes_a_voter_once_it_has_caught_up() -> None:
    cluster = led()
    cluster.change(1, JOIN_4, tag=6)
    cluster.settle()
    assert voters(cluster) == (1, 2, 3)
    assert [d.tag for d in of(MembershipChanged, cluster[1].history)] == [6]
    cluster.add(4)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert voters(cluster) == (1, 2, 3, 4)
    assert cluster.node(4).role is Role.FOLLOWER
    assert cluster.node(1).configuration == cluster.node(4).configuration
    known = configuration(cluster)
    assert known.joining == known.learners == known.voters_outgoing == ()


def test_a_learner_that_a_snapshot_brought_up_to_date_becomes_a_voter_in_an_idle_cluster() -> None:
    """Nothing is left to be sent behind the snapshot, so no append is ever acknowledged."""
    cluster = compacted(JOIN_4)
    cluster.add(4)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert voters(cluster) == (1, 2, 3, 4)


def test_a_voter_that_came_in_by_a_snapshot_stands_for_election() -> None:
    """The term that it took over with the snapshot was on its disk before it had a log."""
    cluster = compacted(JOIN_4)
    cluster.add(4)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    cluster.elect(4)
    state = cluster.node(4).state
    assert state.vote_persisted_seq == state.vote_seq


def test_a_transfer_to_a_voter_that_a_snapshot_brought_up_to_date_is_done() -> None:
    cluster = led()
    cluster.down = {3}
    cluster.propose(1)
    cluster.settle()
    cluster.run(1, lambda server: server.take_snapshot(server.node.applied_index))
    cluster.down = set()
    cluster.step(1, TransferLeadership(9, 3))
    cluster.drop()
    cluster.connect(1, 3)
    cluster.settle()
    assert cluster.leaders == [3]
    assert [done.tag for done in of(TransferDone, cluster[1].history)] == [9]


def under_load(delay_us: int) -> Cluster:
    """A learner joins over a link with this delay, while there is always more to come."""
    cluster = led()
    cluster.change(1, JOIN_4)
    cluster.settle()
    cluster.delay_us[4] = delay_us
    cluster.add(4)
    for number in range(300):
        cluster.propose(1, b"%d" % number)
        cluster.run_for(HEARTBEAT_US // 5)
    return cluster


def test_a_learner_whose_rounds_last_longer_than_an_election_stays_a_learner() -> None:
    cluster = under_load(MIN_TIMEOUT_US // 2 + HEARTBEAT_US // 5)
    assert cluster.node(1).progress[4].match_index > 100
    assert voters(cluster) == (1, 2, 3)
    rounds = [
        note.facts["round"] for note in of(Note, cluster[1].history) if note.kind == "catching_up"
    ]
    assert len(rounds) > 2
    assert rounds == list(range(1, len(rounds) + 1))
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert voters(cluster) == (1, 2, 3, 4), "it has all there is"


def test_a_learner_whose_round_is_as_short_as_an_election_timeout_becomes_a_voter() -> None:
    cluster = under_load(MIN_TIMEOUT_US // 2 - HEARTBEAT_US // 5)
    assert voters(cluster) == (1, 2, 3, 4)


def test_a_learner_that_went_away_has_to_catch_up_again() -> None:
    """It had caught up while leadership was to move; what it has missed since may be much."""
    cluster = led()
    cluster.change(1, JOIN_4)
    cluster.settle()
    cluster.down = {3}
    cluster.propose(1)
    cluster.settle()
    cluster.step(1, TransferLeadership(1, 3))
    cluster.add(4)
    leadership = cluster.node(1).state.leadership
    assert leadership is not None
    leadership.catching_up[4] = CatchUp(1, cluster.now_us)
    leadership.catching_up[4].is_done = True
    cluster.connect(1, 4)
    assert 4 not in leadership.catching_up


# --- where members are


def test_a_member_that_moved_is_followed_even_while_a_learner_does_not_catch_up() -> None:
    cluster = led()
    cluster.change(1, JOIN_4)
    cluster.settle()
    cluster[3].address = "elsewhere:5555"
    cluster.restart(3)
    cluster.settle()
    cluster.run_for(MAX_TIMEOUT_US)
    known = configuration(cluster)
    assert [m.address for m in known.members if m.id == 3] == ["elsewhere:5555"]
    assert known.joining == (Joining(4),)


def test_a_leader_that_moved_says_so_itself() -> None:
    cluster = Cluster(3)
    cluster[1].address = "elsewhere:5555"
    cluster.restart(1)
    cluster.drop()
    cluster.elect(1)
    cluster.run_for(MAX_TIMEOUT_US)
    known = configuration(cluster, 2)
    assert [m.address for m in known.members if m.id == 1] == ["elsewhere:5555"]


def test_an_address_that_another_member_has_is_refused_and_said_once() -> None:
    cluster = led()
    cluster[3].address = "n2:5555"
    cluster.restart(3)
    cluster.run_for(10 * MAX_TIMEOUT_US)
    known = configuration(cluster)
    assert [m.address for m in known.members if m.id == 3] == ["n3:5555"]
    assert notes(cluster[1].history).count("address_refused") == 1
