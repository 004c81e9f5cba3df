"""What real agents tell over HTTP."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from raft_agent.api import protocol
from tests.e2e.agents import LocalCluster, free_ports, local_cluster, wait_for

PORTS: dict[str, int] = {}


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with local_cluster(start=False) as made:
        PORTS.update(zip(made.agents, free_ports(3), strict=True))
        for agent in made:
            agent.environment["RAFT_SERVER_HTTP_ADDR"] = f"127.0.0.1:{PORTS[agent.name]}"
        made.start()
        yield made


def get(name: str, path: str) -> tuple[int, str]:
    """(status, body); (0, "") while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", PORTS[name], timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except ConnectionError:
        return 0, ""
    finally:
        connection.close()


def metric(name: str, wanted: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    found = [
        sample.value
        for family in text_string_to_metric_families(get(name, "/metrics")[1])
        for sample in family.samples
        if sample.name == wanted and labels.items() <= sample.labels.items()
    ]
    assert found, wanted
    return sum(found)


def test_metrics_tell_what_the_cluster_did(cluster: LocalCluster) -> None:
    leader = cluster.leader()
    follower = cluster.followers()[0]
    before = metric(leader.name, "raft_proposals_total", outcome="applied")
    for number in range(20):
        result = leader.ask(protocol.Put(1, f"key-{number}", b"value"))
    assert isinstance(result, protocol.WriteResult)
    assert metric(leader.name, "raft_proposals_total", outcome="applied") == before + 20
    assert metric(leader.name, "raft_commit_duration_seconds_count") == before + 20
    assert metric(leader.name, "raft_role", role="leader") == 1
    assert metric(follower.name, "raft_role", role="leader") == 0
    assert metric(leader.name, "raft_keys") == 20
    assert metric(leader.name, "raft_connected_voters") == 3
    cluster.wait_applied(result.index)
    for agent in cluster:
        assert metric(agent.name, "raft_applied_index") >= result.index
        assert metric(agent.name, "raft_log_fsync_duration_seconds_count") > 0
        assert metric(agent.name, "raft_term") == metric(leader.name, "raft_term")
    wait_for(
        "no follower to lag",
        lambda: metric(leader.name, "raft_peer_lag_entries") == 0 or None,
    )
    assert metric(leader.name, "raft_peer_round_trip_seconds_count", peer=follower.name) > 0
    wait_for(
        "the loop's lag", lambda: metric(leader.name, "raft_event_loop_lag_seconds_count") or None
    )


def test_ready_is_who_knows_a_leader_and_alive_is_who_answers(cluster: LocalCluster) -> None:
    leader = cluster.leader()
    first, second = cluster.followers()
    assert get(leader.name, "/readyz") == (200, "ready\n")
    first.kill()
    second.kill()

    def gave_up() -> str | None:
        status, text = get(leader.name, "/readyz")
        return text if status == 503 else None

    assert wait_for("the reason", gave_up).startswith("not ready: no leader is known")
    assert get(leader.name, "/healthz") == (200, "alive\n")
    assert metric(leader.name, "raft_ready") == 0


def test_a_node_that_belongs_to_no_cluster_is_alive_and_says_what_it_waits_for() -> None:
    with local_cluster(2, lone="node-01", start=False) as cluster:
        waiting = cluster.agents["node-02"]
        PORTS["node-02"] = free_ports(1)[0]
        waiting.environment["RAFT_SERVER_HTTP_ADDR"] = f"127.0.0.1:{PORTS['node-02']}"
        waiting.start()
        wait_for("an answer", lambda: get("node-02", "/healthz")[0] or None)
        status, text = get("node-02", "/readyz")
        assert status == 503
        assert "raftctl join node-02" in text
        assert metric("node-02", "raft_leader_known") == 0


def test_an_address_that_is_taken_ends_the_agent_with_what_to_do(cluster: LocalCluster) -> None:
    first, second, _ = cluster
    cluster.leader()
    second.kill()
    second.environment["RAFT_SERVER_HTTP_ADDR"] = f"127.0.0.1:{PORTS[first.name]}"
    second.start()
    assert second.process is not None
    assert second.process.wait(20) == 1
    second.kill()
    assert "can't serve HTTP on" in second.log_text()
    assert "set server.http_addr" in second.log_text()
