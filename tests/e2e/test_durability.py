"""What is acknowledged survives: kills of everybody at once, and the order of writes and fsyncs."""

from __future__ import annotations

import os

import pytest

from raft_agent.api import protocol
from tests.e2e.agents import Agent, LocalCluster, local_cluster
from tests.e2e.load import Ack, Load

CLIENTS = 64


def _keys(agent: Agent, consistency: protocol.Consistency) -> dict[str, protocol.KeyValue]:
    found: dict[str, protocol.KeyValue] = {}
    after = ""
    while True:
        answer = agent.ask(protocol.List(1, "", 5000, after, consistency), timeout_s=10)
        assert isinstance(answer, protocol.ListResult)
        found.update((entry.key, entry) for entry in answer.keys)
        if not answer.more:
            return found
        after = answer.keys[-1].key


def _check_nothing_lost(cluster: LocalCluster, acks: list[Ack]) -> None:
    leader = cluster.leader()
    expected = _keys(leader, protocol.Consistency.LINEARIZABLE)
    for ack in acks:
        entry = expected.get(ack.key)
        assert entry is not None, f"{ack.key} was acknowledged at index {ack.index} and is gone"
        assert (entry.value, entry.revision) == (ack.value, ack.revision)
    status = leader.status()
    assert status is not None
    cluster.wait_applied(status.commit_index)
    for agent in cluster:
        assert _keys(agent, protocol.Consistency.STALE) == expected, f"{agent.name} differs"


@pytest.mark.parametrize(
    "rounds", [3, pytest.param(50, marks=pytest.mark.long)], ids=["3 rounds", "50 rounds"]
)
def test_acknowledged_writes_survive_sigkill_of_all_agents_at_once(rounds: int) -> None:
    acks: list[Ack] = []
    with local_cluster() as cluster:
        for number in range(rounds):
            load = Load(str(cluster.leader().socket_path), CLIENTS, f"r{number}")
            load.run_until(2000, cluster.kill)
            acks += load.acks
            cluster.start()
        _check_nothing_lost(cluster, acks)
    # A busy machine may elect a leader in the middle of a round, which ends that round's load.
    assert len(acks) >= 500 * rounds
    print(f"{len(acks)} acknowledged writes survived {rounds} kills of all agents")


def test_a_restarted_follower_catches_up_with_what_it_missed() -> None:
    with local_cluster() as cluster:
        follower = cluster.followers()[0]
        follower.kill()
        load = Load(str(cluster.leader().socket_path), CLIENTS, "missed")
        load.run_until(5000, lambda: None)
        follower.start()
        _check_nothing_lost(cluster, load.acks)


def test_sigterm_hands_leadership_over_and_ends_cleanly() -> None:
    with local_cluster() as cluster:
        leader = cluster.leader()
        term = leader.status().term  # type: ignore[union-attr]
        assert leader.stop() == 0
        successor = cluster.leader()
        status = successor.status()
        assert status is not None
        assert status.term == term + 1
        kinds = [event.kind for event in successor.events()]
        assert "leader_lost" not in kinds, "leadership was handed over, not found missing"
        assert not leader.socket_path.exists()


def test_a_second_agent_on_the_same_data_is_refused() -> None:
    with local_cluster(1, extra="[cluster]\nbootstrap = true") as cluster:
        agent = cluster.leader()
        second = Agent(
            "second",
            agent.directory / "second",
            (agent.directory / "raft.toml").read_text().replace("ipc.sock", "second.sock"),
            (),
        )
        second.start()
        assert second.process is not None
        assert second.process.wait(20) == 1
        assert str(os.path.realpath(agent.data_dir)) in second.log_text()
        assert str(agent.pid) in second.log_text()
