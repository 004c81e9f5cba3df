"""A majority's disks are destroyed: one survivor goes on, and the others come in again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from raft_agent.api import protocol
from tests.e2e.agents import Agent, local_cluster, wait_for
from tests.e2e.load import Load


def raftctl(agent: Agent, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raftctl.main", "--socket", str(agent.socket_path)]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def keys_of(agent: Agent, consistency: protocol.Consistency) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    after = ""
    while True:
        answer = agent.ask(protocol.List(1, "", 5000, after, consistency), timeout_s=10)
        assert isinstance(answer, protocol.ListResult)
        found.update((entry.key, entry.value) for entry in answer.keys)
        if not answer.more:
            return found
        after = answer.keys[-1].key


def last_index(agent: Agent) -> int:
    """Of the agent's log, committed or not."""
    answer = agent.ask(protocol.Vitals(1))
    assert isinstance(answer, protocol.VitalsResult)
    return answer.last_index


def destroy(agent: Agent) -> None:
    """The machine is gone, and its disk with it."""
    agent.kill()
    shutil.rmtree(agent.data_dir)


def leaderless(agents: list[Agent]) -> None:
    """Wait until none of them knows a leader, nor has heard one a moment ago."""
    for agent in agents:
        wait_for(
            f"{agent.name} to know no leader",
            lambda a=agent: (
                True
                if (s := a.status()) is not None
                and s.leader is None
                and "A leader is known" not in raftctl(a, "recover", "--dry-run").stdout
                else None
            ),
        )


def voters(agent: Agent) -> set[str] | None:
    status = agent.status()
    return set(status.voters) if status is not None and status.role == "leader" else None


def led_with(agents: Iterable[Agent], names: set[str]) -> None:
    """Wait until one of them leads, and exactly these are voters; the lead may move meanwhile."""
    wait_for(
        f"{', '.join(sorted(names))} to be the voters",
        lambda: True if any(voters(agent) == names for agent in agents) else None,
    )


def test_with_a_majority_the_cluster_refuses_to_recover() -> None:
    with local_cluster() as cluster:
        leader, follower = cluster.leader(), cluster.followers()[0]
        for agent in (leader, follower):
            done = raftctl(agent, "recover", "--accept-data-loss")
            assert done.returncode == 1
            # The second, in the midst of an election.
            assert "A leader is known" in done.stderr or "A majority" in done.stderr
        status = cluster.leader().status()
        assert status is not None
        assert len(status.voters) == 3


def test_the_survivors_of_a_lost_majority_are_one_cluster_again(tmp_path: Path) -> None:
    with local_cluster(nodes=5) as cluster:
        load = Load(str(cluster.leader().socket_path), 16, "a")
        load.run_until(500, lambda: None)
        leader = cluster.leader()
        status = leader.status()
        assert status is not None
        cluster.wait_applied(status.commit_index)
        lost = [leader, *cluster.followers()[:2]]
        survivors = [agent for agent in cluster if agent not in lost]
        kept = tmp_path / "kept"
        for agent in lost:
            agent.kill()
        shutil.copytree(lost[1].data_dir, kept)
        for agent in lost:
            shutil.rmtree(agent.data_dir)
        leaderless(survivors)
        # Whoever has more is named, and nobody else recovers.
        order = sorted(survivors, key=last_index)
        best = json.loads(raftctl(order[0], "-o", "json", "recover", "--dry-run").stdout)["best"]
        chosen = cluster.agents[best]
        for agent in survivors:
            if agent is not chosen and last_index(agent) < last_index(chosen):
                refused = raftctl(agent, "recover", "--accept-data-loss")
                assert refused.returncode == 1
                assert f"At {best}:" in refused.stderr
        expected = keys_of(chosen, protocol.Consistency.STALE)
        done = raftctl(chosen, "recover", "--accept-data-loss")
        assert done.returncode == 0, done.stderr
        assert expected.items() <= keys_of(chosen, protocol.Consistency.LINEARIZABLE).items()
        names = {agent.name for agent in survivors}
        led_with(survivors, names)
        other = next(agent for agent in survivors if agent is not chosen)
        assert any(path.name.startswith("aside-") for path in other.data_dir.iterdir())
        # One of the dead comes back with its disk: it is told so, and changes nothing.
        shutil.copytree(kept, lost[1].data_dir)
        lost[1].start()
        wait_for(
            "the dead one to hear that it is none any more",
            lambda: (
                any(event.kind == "superseded" for event in lost[1].events())
                if lost[1].status()
                else None
            ),
        )
        led_with(survivors, names)
        # With an empty data directory it is joined like anybody else.
        lost[1].kill()
        shutil.rmtree(lost[1].data_dir)
        lost[1].start()
        wait_for("it to answer", lost[1].status)
        joined = raftctl(chosen, "join", lost[1].name, lost[1].address)
        assert joined.returncode == 0, joined.stderr
        led_with([*survivors, lost[1]], {*names, lost[1].name})


def test_a_survivor_that_once_founded_the_cluster_founds_no_other_one() -> None:
    """Its configuration file still says bootstrap, and its data directory is empty once more."""
    with local_cluster(nodes=4, lone="node-01") as cluster:
        founder, chosen, *lost = list(cluster)
        wait_for("the founder to lead", lambda: voters(founder))
        for agent in (chosen, *lost):
            agent.start()
            wait_for(f"{agent.name} to answer", agent.status)
            joined = raftctl(founder, "join", agent.name, agent.address)
            assert joined.returncode == 0, joined.stderr
        before = founder.status()
        assert before is not None
        cluster.wait_applied(before.commit_index)
        moved = raftctl(founder, "leader", "transfer", lost[0].name)
        assert moved.returncode == 0, moved.stderr
        cluster.wait_applied(before.commit_index + 1)
        for agent in lost:
            destroy(agent)
        leaderless([founder, chosen])
        best = chosen if last_index(chosen) >= last_index(founder) else founder
        assert best is chosen, "both have all that the leader had"
        done = raftctl(chosen, "recover", "--accept-data-loss")
        assert done.returncode == 0, done.stderr
        led_with([founder, chosen], {founder.name, chosen.name})
        after = founder.status()
        assert after is not None
        assert after.cluster_id == before.cluster_id
        assert before.generation == ""
        assert after.generation
        assert after.generation in done.stdout


def _lose_a_majority_and_recover(nodes: int, number: int) -> tuple[float, float, int, int]:
    """(seconds from the call of `raftctl recover` to the first write served, seconds until all
    survivors are voters again, keys that the survivor had, survivors that refused)."""
    with local_cluster(nodes=nodes) as cluster:
        leader = cluster.leader()
        lost = [leader, *cluster.followers()[: nodes // 2]]
        survivors = [agent for agent in cluster if agent not in lost]

        load = Load(str(leader.socket_path), 32, f"r{number}")

        def destroy_all() -> None:
            """While writes are under way; the first of several survivors has missed the last."""
            behind = survivors[:-1]
            for agent in behind:
                agent.kill()
            enough = len(load.acks) + 50
            wait_for("more writes", lambda: True if len(load.acks) > enough else None)
            for agent in lost:
                agent.kill()
            for agent in behind:
                agent.start()

        load.run_until(300, destroy_all)
        for agent in lost:
            shutil.rmtree(agent.data_dir)
        leaderless(survivors)
        told = json.loads(raftctl(survivors[0], "-o", "json", "recover", "--dry-run").stdout)
        chosen = cluster.agents[told["best"]]
        expected = {member["name"]: member["index"] for member in told["members"]}
        refusals = 0
        for agent in survivors:
            if expected[agent.name] < expected[chosen.name]:
                refused = raftctl(agent, "recover", "--accept-data-loss")
                assert refused.returncode == 1
                assert f"At {chosen.name}:" in refused.stderr
                refusals += 1
        had = keys_of(chosen, protocol.Consistency.STALE)
        had_index = last_index(chosen)
        began = time.monotonic()
        done = raftctl(chosen, "recover", "--accept-data-loss")
        assert done.returncode == 0, done.stderr
        chosen.ask(protocol.Put(1, "after", b"1"), timeout_s=5)
        served_s = time.monotonic() - began
        has = keys_of(chosen, protocol.Consistency.LINEARIZABLE)
        assert had.items() <= has.items()
        status = chosen.status()
        assert status is not None
        assert status.last_applied > had_index
        acknowledged = {ack.key: ack.value for ack in load.acks if ack.index <= had_index}
        assert acknowledged.items() <= has.items()
        names = {agent.name for agent in survivors}
        led_with(survivors, names)
        whole_s = time.monotonic() - began
        for agent in survivors:
            wait_for(
                f"{agent.name} to have all of it",
                lambda a=agent: (
                    True if has.items() <= keys_of(a, protocol.Consistency.STALE).items() else None
                ),
            )
        return served_s, whole_s, len(has), refusals


@pytest.mark.long
def test_a_majority_of_disks_destroyed_twenty_times() -> None:
    served: list[float] = []
    whole: list[float] = []
    refusals = 0
    for number in range(20):
        nodes = (3, 5)[number % 2]
        served_s, whole_s, keys, refused = _lose_a_majority_and_recover(nodes, number)
        times = f"served after {served_s:.2f} s, whole after {whole_s:.2f} s"
        print(f"{nodes} nodes: {times}, {keys} keys")
        served.append(served_s)
        whole.append(whole_s)
        refusals += refused
    # Of five nodes two survive, one of them with less.
    assert refusals == 10
    print(
        f"served after {sorted(served)[10]:.2f} s in the median, {max(served):.2f} s at most; all "
        f"survivors voters after {sorted(whole)[10]:.2f} s, {max(whole):.2f} s at most; refused "
        f"elsewhere {refusals} times"
    )
    assert len(served) == 20
