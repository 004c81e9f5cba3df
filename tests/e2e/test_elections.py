"""Elections on real processes: a dead leader is replaced, a paused follower disturbs nobody."""

from __future__ import annotations

import signal
import statistics
import time

import pytest

from raft_agent.api import protocol
from tests.e2e.agents import Agent, LocalCluster, local_cluster, wait_for
from tests.e2e.load import Load


def _try_put(agent: Agent, key: str) -> bool | None:
    try:
        agent.ask(protocol.Put(1, key, b"after", -1, forward=True), timeout_s=1)
    except Exception:
        return None
    return True


def _time_to_serve(cluster: LocalCluster, number: int) -> float:
    """Seconds from SIGKILL of the leader to the first write that is served."""
    leader = cluster.leader()
    survivors = cluster.followers()
    leader.signal(signal.SIGKILL)
    started = time.monotonic()
    wait_for("a write to be served", lambda: _try_put(survivors[0], f"kill-{number}"))
    took = time.monotonic() - started
    leader.kill()
    leader.start()
    return took


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_a_killed_leader_is_replaced_and_writes_go_on(kills: int) -> None:
    with local_cluster() as cluster:
        took = [_time_to_serve(cluster, number) for number in range(kills)]
    print(
        f"leader killed {kills} times: a write was served after {statistics.median(took):.3f} s "
        f"(median), {min(took):.3f} to {max(took):.3f} s"
    )


_NEEDLESS = {"pre_vote_started", "election_started"}


def _elections_in_pauses(pauses: int, *, naive: bool) -> int:
    environment = {"RAFT_TEST_EXCUSES": "none"} if naive else {}
    with local_cluster(environment=environment) as cluster:
        leader = cluster.leader()
        followers = cluster.followers()
        before = {
            agent.name: sum(event.kind in _NEEDLESS for event in agent.events())
            for agent in cluster
        }

        def pause_and_go_on() -> None:
            for number in range(pauses):
                follower = followers[number % len(followers)]
                follower.signal(signal.SIGSTOP)
                time.sleep(0.4)  # the length of the pause is what is tested
                follower.signal(signal.SIGCONT)
                wait_for("the follower to answer", follower.status)

        Load(str(leader.socket_path), 16, "pauses").run_until(100, pause_and_go_on)
        after = {
            agent.name: sum(event.kind in _NEEDLESS for event in agent.events())
            for agent in cluster
        }
    return sum(after.values()) - sum(before.values())


@pytest.mark.parametrize("pauses", [10, pytest.param(100, marks=pytest.mark.long)])
def test_a_follower_that_was_paused_starts_no_election(pauses: int) -> None:
    assert _elections_in_pauses(pauses, naive=False) == 0


def test_with_naive_timers_the_same_pauses_start_elections() -> None:
    assert _elections_in_pauses(10, naive=True) > 0
