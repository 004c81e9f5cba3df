"""First start: fresh nodes that list each other become one cluster, founded once."""

from __future__ import annotations

import pytest

from raft_agent.consensus.batch import BatchKind, encode
from raft_agent.consensus.membership import encode_configuration, first_entry
from raft_agent.consensus.types import (
    BootstrapAnswer,
    BootstrapInstall,
    Configuration,
    Member,
    PeerLost,
    Propose,
    Read,
    RefusalReason,
    Refused,
    Role,
    TimerExpired,
    TransferLeadership,
)
from tests.unit.consensus.first_start import (
    FOUNDER,
    SECOND,
    THIRD,
    cluster_ids,
    found_effects,
    founders,
    fresh_cluster,
    is_answer,
    is_ask,
    is_install,
    roles,
)
from tests.unit.consensus.harness import Cluster, configuration
from tests.unit.consensus.server import Server, notes, of, sends


@pytest.mark.parametrize("size", [2, 3, 5, 7])
def test_fresh_nodes_become_one_cluster_with_everybody_in_it(size: int) -> None:
    cluster = fresh_cluster(size)
    cluster.connect_all()
    cluster.run_for(3_000_000)
    assert len(cluster_ids(cluster)) == 1
    known = configuration(cluster)
    assert known.voters == tuple(range(1, size + 1))
    assert [(m.id, m.name, m.address) for m in known.members] == [
        (i, f"n{size + 1 - i}", f"n{size + 1 - i}:5555") for i in range(1, size + 1)
    ]
    assert len(cluster.leaders) == 1


def test_only_the_node_with_the_smallest_name_founds() -> None:
    cluster = fresh_cluster()
    cluster.connect_all()
    assert {packet.sender for packet in cluster.wire if is_ask(packet)} == {FOUNDER}
    cluster.settle()
    assert founders(cluster) == [FOUNDER]
    assert roles(cluster) == [Role.FOLLOWER] * 3


def test_the_others_wait_without_a_timer() -> None:
    cluster = fresh_cluster()
    assert cluster.node(SECOND).next_deadline_us is None
    assert cluster.node(FOUNDER).next_deadline_us is not None


def test_nothing_is_founded_before_all_have_answered() -> None:
    cluster = fresh_cluster()
    cluster.connect(FOUNDER, SECOND)
    cluster.run_for(5_000_000)
    assert roles(cluster) == [Role.FRESH] * 3
    cluster.connect(FOUNDER, THIRD)
    cluster.settle()
    assert roles(cluster) == [Role.FOLLOWER] * 3


def test_an_unanswered_question_is_asked_again() -> None:
    cluster = fresh_cluster()
    cluster.connect_all()
    cluster.drop(is_ask)
    cluster.run_for(1_000_000)
    assert Role.FRESH not in roles(cluster)


def test_an_answer_of_a_peer_that_was_lost_since_does_not_count() -> None:
    cluster = fresh_cluster()
    cluster.connect(FOUNDER, SECOND)
    cluster.settle()
    cluster.run(FOUNDER, lambda server: server.step(PeerLost(SECOND)))
    cluster.connect(FOUNDER, THIRD)
    cluster.run_for(1_000_000)
    assert cluster.node(FOUNDER).role is Role.FRESH


def test_the_others_hear_of_the_cluster_only_once_the_first_entry_is_on_the_founders_disk() -> None:
    cluster = fresh_cluster()
    cluster[FOUNDER].writes = False
    cluster.connect_all()
    cluster.settle()
    assert cluster.node(FOUNDER).role is Role.FOLLOWER
    assert roles(cluster).count(Role.FRESH) == 2
    assert not [packet for packet in cluster.wire if is_install(packet)]
    cluster.run(FOUNDER, lambda server: server.write_log())
    cluster.settle()
    assert roles(cluster) == [Role.FOLLOWER] * 3


def test_the_storage_is_told_of_the_cluster_before_the_first_entry() -> None:
    cluster = fresh_cluster()
    cluster.connect_all()
    cluster.settle()
    for server in cluster.servers.values():
        kinds = [type(effect).__name__ for effect in server.history]
        assert kinds.index("FoundCluster") < kinds.index("AppendLog")
        (found,) = found_effects(server)
        assert {found.cluster_id} == cluster_ids(cluster)


def test_two_first_starts_make_two_cluster_ids() -> None:
    ids = set()
    for start in range(3):
        cluster = fresh_cluster()
        for server in cluster.servers.values():
            server.starts += 10 * start
            server.start()
        cluster.connect_all()
        cluster.settle()
        ids |= cluster_ids(cluster)
    assert len(ids) == 3


def test_mismatched_name_lists_are_told_and_nothing_is_founded() -> None:
    cluster = fresh_cluster(listed={THIRD: ("n1", "n2", "n3", "n4")})
    cluster.connect_all()
    cluster.run_for(3_000_000)
    assert roles(cluster) == [Role.FRESH] * 3
    told = [effect for effect in cluster[FOUNDER].history if "bootstrap_waits" in notes([effect])]
    assert len(told) == 1
    assert "n3 lists other members in its configuration: n1, n2, n3, n4" in str(told[0])


def test_a_node_that_waits_to_be_joined_is_no_founding_member() -> None:
    """It lists nobody, so its list is another one."""
    cluster = fresh_cluster(listed={THIRD: ()})
    cluster.connect_all()
    cluster.run_for(3_000_000)
    assert roles(cluster) == [Role.FRESH] * 3


def test_a_founder_waits_to_be_joined_when_one_of_the_others_belongs_to_a_cluster() -> None:
    cluster = fresh_cluster()
    alone = Configuration("c1", (Member(THIRD, "n3", "n3:5555"),), (THIRD,))
    cluster.servers[THIRD] = Server(
        THIRD, log=[first_entry(alone)], name="n3", peer_names=("n1", "n2", "n3")
    )
    for pair in ((FOUNDER, SECOND), (FOUNDER, THIRD)):
        cluster.connect(*pair)
    cluster.settle()
    cluster.step(FOUNDER, TimerExpired())
    cluster.settle()
    assert cluster.node(FOUNDER).role is Role.FRESH
    assert cluster.node(SECOND).role is Role.FRESH
    assert "belongs to the cluster c1 already" in str(cluster[FOUNDER].history)


def test_a_question_from_another_id_makes_the_tokens_before_it_void() -> None:
    """The other one may be the asker's later self, which knows nothing of what it once wrote."""
    cluster = fresh_cluster(2)
    cluster.connect(1, 2)
    (ask,) = cluster.drop(is_ask)
    (first,) = sends(BootstrapAnswer, cluster[1].receive(2, ask.message))
    (install,) = sends(BootstrapInstall, cluster[2].receive(1, first))
    cluster[1].receive(20, ask.message)
    cluster[1].receive(2, install)
    assert cluster.node(1).role is Role.FRESH
    (second,) = sends(BootstrapAnswer, cluster[1].receive(2, ask.message))
    assert second.token != first.token
    cluster[1].receive(2, BootstrapInstall(1, 1, second.token, install.batch, False))
    assert cluster.node(1).role is Role.FOLLOWER


def test_the_same_asker_gets_the_same_token_again() -> None:
    """An answer still on its way must not void the one that the asker uses just now."""
    cluster = fresh_cluster(2)
    cluster.connect(1, 2)
    (ask,) = cluster.drop(is_ask)
    (first,) = sends(BootstrapAnswer, cluster[1].receive(2, ask.message))
    (install,) = sends(BootstrapInstall, cluster[2].receive(1, first))
    (again,) = sends(BootstrapAnswer, cluster[1].receive(2, ask.message))
    assert again.token == first.token
    cluster[1].receive(2, install)
    assert cluster.node(1).role is Role.FOLLOWER


def test_a_token_opens_a_fresh_node_only_for_the_one_it_was_given_to() -> None:
    cluster = fresh_cluster(2)
    cluster.connect(1, 2)
    (ask,) = cluster.drop(is_ask)
    (answer,) = sends(BootstrapAnswer, cluster[1].receive(2, ask.message))
    (install,) = sends(BootstrapInstall, cluster[2].receive(1, answer))
    cluster[1].receive(7, install)
    assert cluster.node(1).role is Role.FRESH


def test_a_token_of_zero_opens_nobody() -> None:
    cluster = fresh_cluster(2)
    cluster.connect_all()
    cluster.settle(lambda packet: not is_install(packet))
    (packet,) = cluster.drop(is_install)
    install = packet.message
    never_asked = Server(1, log=[], name="n2", peer_names=("n1", "n2"))
    never_asked.receive(2, BootstrapInstall(1, 1, 0, install.batch, False))
    assert never_asked.node.role is Role.FRESH


def test_a_first_entry_without_this_nodes_id_is_not_adopted() -> None:
    cluster = fresh_cluster(2)
    cluster.connect_all()
    (ask,) = [packet.message for packet in cluster.wire if is_ask(packet)]
    cluster.settle(lambda packet: not is_install(packet))
    (packet,) = cluster.drop(is_install)
    stranger = Server(7, log=[], name="n2", peer_names=("n1", "n2"))
    (answer,) = sends(BootstrapAnswer, stranger.receive(2, ask))
    stranger.receive(2, BootstrapInstall(1, 1, answer.token, packet.message.batch, False))
    assert stranger.node.role is Role.FRESH


@pytest.mark.parametrize(
    "payload",
    [b"no configuration", encode_configuration(Configuration("c", (), (1,)))[:-3]],
    ids=["foreign", "cut short"],
)
def test_a_first_entry_that_can_not_be_read_is_not_adopted(payload: bytes) -> None:
    """Anybody on the network may send one; it must not end the process."""
    cluster = fresh_cluster(2)
    cluster.connect(1, 2)
    (ask,) = cluster.drop(is_ask)
    (answer,) = sends(BootstrapAnswer, cluster[1].receive(2, ask.message))
    batch = encode(BatchKind.CONFIGURATION, 1, 1, 1, payload)
    cluster[1].receive(2, BootstrapInstall(1, 1, answer.token, batch, False))
    assert cluster.node(1).role is Role.FRESH


def test_a_stranger_with_the_founders_own_name_does_not_count_as_one_of_the_others() -> None:
    """Two machines with the same node_id: a cluster that lacks one of its members must not be."""
    cluster = fresh_cluster()
    cluster.servers[9] = Server(9, log=[], name="n1", peer_names=("n1", "n2", "n3"))
    cluster.connect(FOUNDER, 9)
    cluster.connect(FOUNDER, SECOND)
    cluster.settle()
    assert cluster.node(FOUNDER).role is Role.FRESH


def test_bootstrap_alone_makes_a_cluster_of_one() -> None:
    server = Server(1, log=[], bootstrap=True)
    assert server.node.role is Role.FRESH
    server.tick()
    configuration = server.node.configuration
    assert configuration is not None
    assert configuration.voters == (1,)
    server.tick()
    assert server.node.role is Role.LEADER


def test_bootstrap_alone_heeds_no_peer_names() -> None:
    server = Server(1, log=[], bootstrap=True, peer_names=("a", "n1"))
    server.tick()
    assert server.node.configuration is not None
    assert server.node.configuration.voters == (1,)


def test_a_node_with_neither_peers_nor_bootstrap_stays_fresh() -> None:
    cluster = fresh_cluster(2, listed={1: (), 2: ()})
    cluster.connect_all()
    cluster.run_for(2_000_000)
    assert roles(cluster) == [Role.FRESH] * 2
    assert cluster.node(1).next_deadline_us is None
    assert cluster[1].disk == []


def test_a_fresh_node_refuses_requests_and_says_why() -> None:
    server = Server(1, log=[])
    for tag, event in enumerate((Propose(0, 1, b"x"), Read(1), TransferLeadership(2, 0))):
        assert of(Refused, server.step(event)) == [Refused(tag, RefusalReason.FRESH, 0)]


def test_a_fresh_node_neither_votes_nor_takes_entries() -> None:
    """It answers with its token, so that a member can bring it in."""
    cluster = Cluster()
    cluster.elect(1)
    requests = [effect.message for effect in cluster[1].history if hasattr(effect, "message")]
    fresh = Server(3, log=[], peer_names=("n1", "n2", "n3"))
    for request in requests:
        (answer,) = sends(BootstrapAnswer, fresh.receive(1, request))
        assert answer.fresh
        assert answer.token != 0
    assert fresh.node.role is Role.FRESH
    assert fresh.node.current_term == 0
    assert not [packet for packet in cluster.wire if is_answer(packet)]
