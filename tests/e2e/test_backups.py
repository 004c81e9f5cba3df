"""A whole cluster from a backup, on real agents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import RequestFailed, SyncClient
from tests.e2e.agents import local_cluster, wait_for
from tests.e2e.load import Load
from tests.e2e.test_recovery import keys_of, raftctl, voters


def test_three_machines_are_restored_from_a_backup_that_was_taken_under_load(
    tmp_path: Path,
) -> None:
    backup = tmp_path / "backup.raft"
    with local_cluster() as cluster:
        leader, follower = cluster.leader(), cluster.followers()[0]
        with SyncClient(str(leader.socket_path)) as client:
            lease = client.lease_grant(300).lease
            client.put("leased", b"1", lease=lease)
            first = client.put("first", b"1")
        load = Load(str(leader.socket_path), 16, "a")

        def save() -> None:
            done = raftctl(follower, "snapshot", "save", str(backup))
            assert done.returncode == 0, done.stderr

        load.run_until(500, save)
        assert backup.stat().st_mode & 0o777 == 0o600
        told = json.loads(raftctl(follower, "-o", "json", "snapshot", "status", str(backup)).stdout)
        # All that was acknowledged before it was asked for is in it, and the later ones may be.
        assert told["index"] >= 500
        saved = {ack.key: ack.value for ack in load.acks if ack.index <= told["index"]}
        late = max(ack.revision for ack in load.acks)
        former = leader.status()
        assert former is not None
        cluster.kill()
        for agent in cluster:
            shutil.rmtree(agent.data_dir)

        seed, *others = list(cluster)
        config = seed.directory / "raft.toml"
        arguments = ("snapshot", "restore", str(backup), "--data-dir", str(seed.data_dir))
        made = raftctl(seed, "-o", "json", *arguments, "--config", str(config))
        assert made.returncode == 0, made.stderr
        again = raftctl(seed, *arguments, "--config", str(config))
        assert again.returncode == 1
        assert "is not empty" in again.stderr

        cluster.start()
        for agent in others:
            wait_for(f"{agent.name} to answer", agent.status)
            wait_for(f"{seed.name} to lead", lambda: voters(seed))
            joined = raftctl(seed, "join", agent.name, agent.address)
            assert joined.returncode == 0, joined.stderr
        status = seed.status()
        assert status is not None
        assert status.cluster_id == json.loads(made.stdout)["cluster_id"] != former.cluster_id
        assert set(status.voters) == {agent.name for agent in cluster}
        for agent in cluster:
            found = keys_of(agent, protocol.Consistency.LINEARIZABLE)
            assert saved.items() <= found.items()
        with SyncClient(str(others[0].socket_path)) as client:
            kept = client.get("first")
            assert kept is not None
            assert kept.revision == first.revision
            # Nobody takes a new revision for one that the lost cluster gave out.
            assert client.put("after", b"1").revision > late
            assert client.lease_grant(300).lease > late
            assert client.lease_keepalive(lease).ttl_ms == 300_000
            watch = protocol.WatchKeys(1, "", True, late)
            with pytest.raises(RequestFailed) as refused:
                next(client.stream(watch))
            assert refused.value.code is protocol.ErrorCode.COMPACTED
        # Who began with the backup, and who came in by a snapshot of that, hold the same.
        compared = seed.ask(protocol.StateCheck(1))
        assert isinstance(compared, protocol.StateCheckResult)
        assert {member.state for member in compared.members} == {"agrees"}


def test_a_damaged_backup_says_where_and_is_not_restored(tmp_path: Path) -> None:
    backup, data_dir = tmp_path / "backup.raft", tmp_path / "data"
    with local_cluster(nodes=1, lone="node-01") as cluster:
        leader = cluster.leader()
        leader.ask(protocol.Put(1, "key", b"v" * 1000))
        assert raftctl(leader, "snapshot", "save", str(backup)).returncode == 0
        kept = raftctl(leader, "snapshot", "save", str(backup))
        assert kept.returncode == 1
        assert "--force" in kept.stderr
        whole = backup.read_bytes()
        assert raftctl(leader, "snapshot", "save", str(backup), "--force").returncode == 0
        damaged = bytearray(whole)
        damaged[-200] ^= 1
        backup.write_bytes(bytes(damaged))
        shown = raftctl(leader, "snapshot", "status", str(backup))
        assert shown.returncode == 1
        assert ", byte " in shown.stderr
        arguments = ("--data-dir", str(data_dir), "--name", "node-01", "--address", "127.0.0.1:1")
        restored = raftctl(leader, "snapshot", "restore", str(backup), *arguments)
        assert restored.returncode == 1
        assert not data_dir.exists()
        assert sorted(tmp_path.iterdir()) == [backup]
