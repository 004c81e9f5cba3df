"""A bit turns in one member's memory, log or snapshot: it is found, told, served by nobody, and
mended by `raftctl rebuild`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import RequestFailed
from raft_agent.api.protocol import ErrorCode
from tests.e2e.agents import UNREACHABLE, Agent, LocalCluster, local_cluster, wait_for
from tests.e2e.test_recovery import destroy, leaderless

INTERVAL_MS = 300
EXTRA = f"[timing]\nstate_check_interval_ms = {INTERVAL_MS}\n"


def raftctl(agent: Agent, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raftctl.main", "--socket", str(agent.socket_path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def flipping_cluster(nodes: int = 3, *, extra: str = "") -> object:
    return local_cluster(nodes, extra=EXTRA + extra, start=False)


def begin(cluster: LocalCluster) -> None:
    for agent in cluster:
        agent.options = ("--enable-fault-injection",)
    cluster.start()


def put(agent: Agent, key: str, value: bytes) -> None:
    def done() -> bool | None:
        try:
            agent.ask(protocol.Put(1, key, value, forward=True))
        except UNREACHABLE:
            return None
        return True

    wait_for(f"a write of {key}", done)


def get(agent: Agent, key: str) -> bytes:
    answer = agent.ask(protocol.Get(1, key))
    assert isinstance(answer, protocol.KeyValue)
    return answer.value


def refusal(agent: Agent, request: protocol.Request) -> ErrorCode | None:
    try:
        agent.ask(request)
    except RequestFailed as error:
        return error.code
    except UNREACHABLE:
        return None
    return None


def until_refused(agent: Agent, code: ErrorCode) -> None:
    wait_for(
        f"{agent.name} to refuse with {code}",
        lambda: True if refusal(agent, protocol.Get(1, "k")) is code else None,
    )


def test_a_bit_that_turns_in_a_followers_memory_is_found_and_rebuilt() -> None:
    with flipping_cluster() as cluster:
        begin(cluster)
        put(cluster.leader(), "k", b"right")
        victim = cluster.followers()[0]
        wait_for("the key", lambda: True if get(victim, "k") == b"right" else None)
        victim.ask(protocol.FaultFlip(1, "k"))
        until_refused(victim, ErrorCode.STATE_DIFFERS)
        stale = protocol.Get(1, "k", protocol.Consistency.STALE)
        assert refusal(victim, stale) is ErrorCode.STATE_DIFFERS
        assert refusal(victim, protocol.Put(1, "k", b"x", forward=True)) is ErrorCode.STATE_DIFFERS
        status = victim.status()
        assert status is not None
        assert "rebuild" in status.note
        told = {event.kind for event in victim.events()}
        assert "state_differs" in told
        wait_for("the leader to know", lambda: True if health_of(victim) == "differs" else None)
        examined = raftctl(cluster.leader(), "doctor", "--cluster")
        assert examined.returncode == 1
        assert f"{victim.name} has a state that is known to be wrong" in examined.stdout
        done = raftctl(victim, "rebuild")
        assert done.returncode == 0, done.stderr
        assert get(victim, "k") == b"right"
        wait_for("all to agree", lambda: True if agreeing(victim) == 3 else None)


def test_a_leader_whose_memory_goes_wrong_steps_down() -> None:
    with flipping_cluster() as cluster:
        begin(cluster)
        leader = cluster.leader()
        put(leader, "k", b"right")
        leader.ask(protocol.FaultFlip(1, "k"))
        until_refused(leader, ErrorCode.STATE_DIFFERS)
        others = [agent for agent in cluster if agent is not leader]
        heir = wait_for(
            "another leader",
            lambda: next((a for a in others if (s := a.status()) and s.role == "leader"), None),
        )
        assert get(heir, "k") == b"right"
        put(heir, "k", b"newer")
        done = raftctl(leader, "rebuild")
        assert done.returncode == 0, done.stderr
        assert get(leader, "k") == b"newer"


def test_without_a_majority_of_equal_states_nobody_acknowledges() -> None:
    with flipping_cluster() as cluster:
        begin(cluster)
        put(cluster.leader(), "k", b"right")
        away = cluster.followers()[0]
        away.kill()
        leader = cluster.leader()
        leader.ask(protocol.FaultFlip(1, "k"))
        until_refused(leader, ErrorCode.STATES_DISPUTED)
        failed = raftctl(leader, "propose", "put", "k", "x")
        assert failed.returncode == 1
        assert "equal states" in failed.stderr
        away.start()
        until_refused(leader, ErrorCode.STATE_DIFFERS)
        others = [agent for agent in cluster if agent is not leader]
        put(others[0], "after", b"1")
        assert get(others[0], "k") == b"right"


def health_of(agent: Agent) -> str:
    """As the leader sees it."""
    health = json.loads(raftctl(agent, "-o", "json", "health").stdout)
    return str({member["name"]: member["state"] for member in health["members"]}[agent.name])


def agreeing(agent: Agent) -> int:
    """How many members have the majority's state."""
    lines = raftctl(agent, "doctor", "--cluster").stdout.splitlines()
    return sum("has the state" in line and "not the majority's" not in line for line in lines)


def flip_byte(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes((byte ^ 4,)))
        file.flush()
        os.fsync(file.fileno())


def log_offset_of(agent: Agent, text: bytes) -> tuple[Path, int]:
    for path in sorted((agent.data_dir / "log").glob("*.seg")):
        at = path.read_bytes().find(text)
        if at >= 0:
            return path, at
    raise AssertionError(f"{text!r} is not in the log of {agent.name}")


def test_a_bit_that_turns_in_the_log_is_found_and_mended() -> None:
    with flipping_cluster() as cluster:
        begin(cluster)
        for number in range(50):
            put(cluster.leader(), f"k{number}", b"value-%d" % number)
        put(cluster.leader(), "k", b"right")
        victim = cluster.followers()[0]
        wait_for("the key", lambda: True if get(victim, "k") == b"right" else None)
        flip_byte(*log_offset_of(victim, b"value-7"))
        wait_for(
            "the damage to be found",
            lambda: True if (s := victim.status()) and "damaged" in s.note else None,
        )
        assert refusal(victim, protocol.Get(1, "k")) is ErrorCode.STORAGE_FAILED
        done = raftctl(victim, "rebuild")
        assert done.returncode == 0, done.stderr
        assert get(victim, "k7") == b"value-7"
        put(cluster.leader(), "k", b"newer")
        wait_for("the newest", lambda: True if get(victim, "k") == b"newer" else None)


def test_a_log_that_went_bad_while_nobody_ran_is_mended_at_the_next_start() -> None:
    with flipping_cluster() as cluster:
        begin(cluster)
        for number in range(50):
            put(cluster.leader(), f"k{number}", b"value-%d" % number)
        victim = cluster.followers()[0]
        wait_for("the key", lambda: True if get(victim, "k49") == b"value-49" else None)
        victim.kill()
        flip_byte(*log_offset_of(victim, b"value-7"))
        victim.start()
        assert victim.process is not None
        assert victim.process.wait(20) == 1
        assert "rebuild" in victim.log_text()
        done = raftctl(victim, "rebuild", "--data-dir", str(victim.data_dir))
        assert done.returncode == 0, done.stderr
        victim.start()
        wait_for("it to be back", lambda: True if victim.status() is not None else None)
        cluster.wait_applied(cluster.leader().status().commit_index)  # type: ignore[union-attr]
        assert get(victim, "k7") == b"value-7"


def test_the_only_voter_goes_on_with_what_is_in_front_of_its_logs_damage_once_that_is_forced() -> (
    None
):
    with local_cluster(1, lone="node-01") as cluster:
        (agent,) = cluster
        for number in range(9):
            put(cluster.leader(), f"k{number}", b"value-%d" % number)
        agent.kill()
        flip_byte(*log_offset_of(agent, b"value-4"))
        request = ("rebuild", "--data-dir", str(agent.data_dir))
        refused = raftctl(agent, *request)
        assert refused.returncode == 1
        assert "only voter" in refused.stderr
        assert "snapshot restore" in refused.stderr
        assert raftctl(agent, *request, "--force").returncode == 0
        agent.start()
        wait_for("it to be back", lambda: True if agent.status() is not None else None)
        ill = raftctl(agent, "health")
        assert ill.returncode == 6
        assert "no other voter can refill it" in ill.stdout

        def has_recovered() -> bool | None:
            # Until it is sure that it has not heard of a leader just before its start.
            done = raftctl(agent, "recover", "--accept-data-loss")
            return True if done.returncode == 0 else None

        wait_for("it to go on with what is left", has_recovered)
        assert get(agent, "k3") == b"value-3"
        assert refusal(agent, protocol.Get(1, "k4")) is ErrorCode.KEY_NOT_FOUND
        put(agent, "k4", b"again")


def test_a_bit_that_turns_in_a_snapshot_is_found_and_another_one_is_taken() -> None:
    with flipping_cluster(extra="[storage]\nsnapshot_entries = 40\n") as cluster:
        begin(cluster)
        for number in range(200):
            put(cluster.leader(), f"k{number % 10}", b"value-%d" % number)
        victim = cluster.followers()[0]
        directory = victim.data_dir / "snapshots"
        newest = wait_for(
            "a snapshot", lambda: max((p for p in directory.glob("*.snap")), default=None)
        )
        flip_byte(newest, newest.stat().st_size // 2)
        wait_for(
            "the damage to be found",
            lambda: next((e for e in victim.events() if e.kind == "snapshot_spoilt"), None),
        )
        wait_for(
            "another snapshot",
            lambda: True if max(directory.glob("*.snap")) > newest else None,
        )
        assert get(victim, "k9") == b"value-199"


def test_only_an_agent_for_tests_spoils_its_state() -> None:
    with local_cluster(1, lone="node-01") as cluster:
        agent = cluster.leader()
        put(agent, "k", b"right")
        assert refusal(agent, protocol.FaultFlip(1, "k")) is ErrorCode.REFUSED
        assert get(agent, "k") == b"right"


@pytest.mark.parametrize("nodes", [1, 3])
def test_what_is_not_known_to_be_wrong_is_rebuilt_only_by_force(nodes: int) -> None:
    with local_cluster(nodes, lone="node-01" if nodes == 1 else "") as cluster:
        agent = cluster.leader()
        put(agent, "k", b"right")
        refused = raftctl(agent, "rebuild")
        assert refused.returncode == 1
        assert "--force" in refused.stderr
        done = raftctl(agent, "rebuild", "--force")
        assert done.returncode == 0, done.stderr
        wait_for("a leader", lambda: True if agent.status() and agent.status().leader else None)  # type: ignore[union-attr]
        assert get(agent, "k") == b"right"


def test_a_survivor_whose_state_is_wrong_is_rebuilt_before_it_recovers() -> None:
    """From its own disk, since there is no leader any more who could help."""
    with flipping_cluster() as cluster:
        begin(cluster)
        leader = cluster.leader()
        put(leader, "k", b"right")
        survivor, other = cluster.followers()
        wait_for("the key", lambda: True if get(survivor, "k") == b"right" else None)
        survivor.ask(protocol.FaultFlip(1, "k"))
        until_refused(survivor, ErrorCode.STATE_DIFFERS)
        for lost in (leader, other):
            destroy(lost)
        leaderless([survivor])
        shown = raftctl(survivor, "recover", "--dry-run")
        assert shown.returncode == 1
        assert "rebuild --no-wait" in shown.stdout
        assert raftctl(survivor, "recover", "--accept-data-loss").returncode == 1
        assert raftctl(survivor, "rebuild", "--no-wait").returncode == 0
        wait_for(
            "it to be the one to recover at",
            lambda: True if raftctl(survivor, "recover", "--dry-run").returncode == 0 else None,
        )
        done = raftctl(survivor, "recover", "--accept-data-loss")
        assert done.returncode == 0, done.stderr
        assert get(survivor, "k") == b"right"
