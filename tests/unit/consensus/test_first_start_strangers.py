"""First start among peers that change, ask oddly, or answer what nobody asked."""

from __future__ import annotations

import pytest

from raft_agent.consensus.batch import BatchKind, encode
from raft_agent.consensus.membership import encode_configuration, first_entry
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import (
    BootstrapAnswer,
    BootstrapAsk,
    BootstrapInstall,
    Heartbeat,
    LogImage,
    PeerConnected,
    Role,
    SaveVote,
    TimerExpired,
    Vote,
)
from tests.unit.consensus.first_start import FOUNDER, SECOND, THIRD, fresh_cluster, is_ask
from tests.unit.consensus.server import (
    MAX_TIMEOUT_US,
    MIN_TIMEOUT_US,
    SETTINGS,
    Server,
    configuration_of,
    of,
    sends,
)

NAMES = ("n1", "n2", "n3")
# How many askers a fresh node remembers.
MAX_TOKENS = 64


def fresh(name: str, *, vote: Vote | None = None) -> Server:
    return Server(int(name[1:]), log=[], name=name, peer_names=NAMES, vote=vote)


def answer_of(server: Server, sender: int) -> BootstrapAnswer:
    """What a fresh node says when a member's message reaches it."""
    (answer,) = sends(BootstrapAnswer, server.receive(sender, Heartbeat(1, 0, 1, 0)), to=sender)
    return answer


def yes(name: str, token: int = 7) -> BootstrapAnswer:
    return BootstrapAnswer(0, 1, name, f"{name}:5555", NAMES, True, token, "")


def test_the_founder_asks_again_only_whoever_has_not_answered() -> None:
    server = fresh("n1")
    server.step(PeerConnected(2, "n2"))
    server.step(PeerConnected(3, "n3"))
    server.receive(2, yes("n2"))
    effects = server.tick()
    assert not sends(BootstrapAsk, effects, to=2)
    assert len(sends(BootstrapAsk, effects, to=3)) == 1


def test_the_founder_asks_nobody_whom_it_does_not_list() -> None:
    server = fresh("n1")
    for name in ("n4", "n1"):
        assert not sends(BootstrapAsk, server.step(PeerConnected(9, name)))
    server.receive(9, yes("n4"))
    server.receive(9, yes("n1"))
    server.step(PeerConnected(2, "n2"))
    server.receive(2, yes("n2"))
    assert server.node.role is Role.FRESH


def test_a_peer_that_comes_back_as_somebody_else_has_to_answer_anew() -> None:
    """Its disk was lost, and nobody was told that the old connection was gone."""
    server = fresh("n1")
    server.step(PeerConnected(2, "n2"))
    server.receive(2, yes("n2"))
    server.step(PeerConnected(20, "n2"))
    server.step(PeerConnected(3, "n3"))
    server.receive(3, yes("n3"))
    assert server.node.role is Role.FRESH
    server.receive(20, yes("n2"))
    assert server.node.configuration is not None
    assert server.node.configuration.voters == (1, 3, 20)


def test_a_problem_with_one_makes_the_founder_ask_all_again() -> None:
    server = fresh("n1")
    server.step(PeerConnected(2, "n2"))
    server.step(PeerConnected(3, "n3"))
    server.receive(2, yes("n2"))
    server.receive(3, BootstrapAnswer(1, 1, "n3", "n3:5555", NAMES, False, 0, "other"))
    assert len(sends(BootstrapAsk, server.tick(), to=2)) == 1
    server.receive(3, yes("n3"))
    assert server.node.role is Role.FRESH
    server.receive(2, yes("n2"))
    assert server.node.role is Role.FOLLOWER


def test_a_node_with_another_name_counts_no_answers() -> None:
    """It never asked; founding is for the smallest name."""
    server = fresh("n2")
    server.step(PeerConnected(1, "n1"))
    server.step(PeerConnected(3, "n3"))
    server.receive(1, yes("n1"))
    server.receive(3, yes("n3"))
    assert server.node.role is Role.FRESH


def test_two_members_can_bring_a_fresh_node_in_at_the_same_time() -> None:
    """The second one's question does not make the first one's token void."""
    server = fresh("n3")
    first, second = answer_of(server, 1), answer_of(server, 2)
    assert first.token != second.token
    batch = first_entry(configuration_of(3))
    server.receive(1, BootstrapInstall(1, 1, first.token, batch, False))
    assert server.node.role is Role.FOLLOWER


@pytest.mark.parametrize("others", [MAX_TOKENS - 1, MAX_TOKENS])
def test_a_fresh_node_remembers_so_many_askers_and_no_more(others: int) -> None:
    """Strangers can't make its memory grow; whoever is forgotten asks again."""
    server = fresh("n3")
    token = answer_of(server, 1).token
    for stranger in range(100, 100 + others):
        answer_of(server, stranger)
    batch = first_entry(configuration_of(3))
    server.receive(1, BootstrapInstall(1, 1, token, batch, False))
    assert (server.node.role is Role.FOLLOWER) == (others < MAX_TOKENS)


@pytest.mark.parametrize(("kind", "index"), [(BatchKind.COMMANDS, 1), (BatchKind.CONFIGURATION, 2)])
def test_only_a_configuration_at_index_1_is_a_first_entry(kind: BatchKind, index: int) -> None:
    server = fresh("n3")
    token = answer_of(server, 1).token
    batch = encode(kind, index, 1, 1, encode_configuration(configuration_of(3)))
    server.receive(1, BootstrapInstall(1, 1, token, batch, False))
    assert server.node.role is Role.FRESH
    assert not server.disk


def test_a_member_brings_in_only_who_says_that_it_is_fresh() -> None:
    server = Server(1)
    assert not sends(
        BootstrapInstall,
        server.receive(2, BootstrapAnswer(1, 1, "n2", "n2:5555", NAMES, False, 0, "c1")),
    )
    (install,) = sends(BootstrapInstall, server.receive(2, yes("n2", token=99)))
    assert install.token == 99
    assert install.batch == first_entry(configuration_of(3))


def test_a_member_brings_in_nobody_who_is_not_in_the_first_entry() -> None:
    assert not sends(BootstrapInstall, Server(1).receive(9, yes("n9")))


def test_an_adopter_brings_others_in_once_its_own_disk_has_the_first_entry() -> None:
    """If it lost the entry in a crash it could be opened by another one, and two clusters be."""
    server = fresh("n3")
    token = answer_of(server, 1).token
    server.writes = False
    batch = first_entry(configuration_of(3))
    server.receive(1, BootstrapInstall(1, 1, token, batch, False))
    server.receive(2, yes("n2"))
    assert not [send for send in server.outbox if isinstance(send.message, BootstrapInstall)]
    server.write_log()
    assert [send.to for send in server.outbox if isinstance(send.message, BootstrapInstall)] == [2]


@pytest.mark.parametrize("term", [1, 3])
def test_a_term_that_the_disk_knows_stays_when_a_first_entry_is_adopted(term: int) -> None:
    server = fresh("n3", vote=Vote(term, 0))
    token = answer_of(server, 1).token
    effects = server.receive(
        1, BootstrapInstall(1, 1, token, first_entry(configuration_of(3)), False)
    )
    assert server.node.role is Role.FOLLOWER
    assert server.node.current_term == term
    assert not of(SaveVote, effects)


def test_whoever_adopts_a_first_entry_has_voted_for_nobody_and_waits_a_whole_timeout() -> None:
    server = fresh("n3")
    token = answer_of(server, 1).token
    server.now_us = 10 * MAX_TIMEOUT_US
    effects = server.receive(
        1, BootstrapInstall(1, 1, token, first_entry(configuration_of(3)), False)
    )
    assert [(save.term, save.voted_for) for save in of(SaveVote, effects)] == [(1, 0)]
    due_us = server.node.next_deadline_us
    assert due_us is not None
    assert due_us >= server.now_us + MIN_TIMEOUT_US


def test_a_node_founds_a_cluster_of_its_own_only_when_told_to() -> None:
    node = Node(
        member_id=1,
        name="n1",
        address="n1:5555",
        peer_names=(),
        vote=Vote(),
        log=LogImage(),
        settings=SETTINGS,
        seed=1,
        now_us=0,
    )
    assert node.next_deadline_us is None


def test_a_question_is_answered_under_its_own_number() -> None:
    cluster = fresh_cluster()
    cluster.connect_all()
    asks = {packet.to: packet.message.request_id for packet in cluster.wire if is_ask(packet)}
    assert set(asks) == {SECOND, THIRD}
    for member_id, request_id in asks.items():
        message = next(p.message for p in cluster.wire if p.to == member_id and is_ask(p))
        (answer,) = sends(BootstrapAnswer, cluster[member_id].receive(FOUNDER, message))
        assert answer.request_id == request_id
    assert answer_of(fresh("n3"), 1).request_id == 0


def test_a_timer_moves_only_the_one_that_founds() -> None:
    """A host may be late with one that was set before a restart."""
    server = fresh("n2")
    server.step(PeerConnected(1, "n1"))
    server.step(PeerConnected(3, "n3"))
    assert not server.step(TimerExpired())
