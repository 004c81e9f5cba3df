"""Leases, transactions and watches of real agents, whose leaders are killed."""

from __future__ import annotations

import asyncio
import time

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import Client, RequestFailed, SyncClient
from raft_agent.api.protocol import DeleteKey, PutKey
from tests.e2e.agents import LocalCluster, local_cluster, wait_for

TIMEOUT_S = 30.0


def test_a_lease_outlives_its_leader_by_all_of_its_time_and_then_ends_everywhere() -> None:
    with local_cluster() as cluster:
        leader = cluster.leader()
        with SyncClient(str(cluster.followers()[0].socket_path), TIMEOUT_S) as client:
            lease = client.lease_grant(2).lease
            client.put("leased", b"v", lease=lease)
            leader.kill()
            began_s = time.monotonic()
            assert cluster.leader() is not leader
            client.lease_keepalive(lease)
            leader.start()

            def gone() -> bool | None:
                return True if client.get("leased") is None else None

            wait_for("the lease to end", gone)
            assert time.monotonic() - began_s >= 2.0
            with pytest.raises(RequestFailed, match="no longer") as refused:
                client.lease_keepalive(lease)
            assert refused.value.code is protocol.ErrorCode.LEASE_NOT_FOUND
            cluster.wait_applied(client.put("after", b"").index)
        for agent in cluster:
            answer = agent.ask(protocol.List(1, "", consistency=protocol.Consistency.STALE))
            assert isinstance(answer, protocol.ListResult)
            assert [item.key for item in answer.keys] == ["after"]


def test_a_watch_sees_every_transaction_whole_while_leaders_are_killed() -> None:
    """Pairs of keys are written and deleted together; the watcher turns to whoever is there."""

    async def write(client: Client, number: int, count: int) -> None:
        pair = (f"pair/{number}/a", f"pair/{number}/b")
        for step in range(count):
            value = str(step).encode()
            await client.txn([], [PutKey(key, value) for key in pair])
            if step % 5 == 4:
                await client.txn([], [DeleteKey(key) for key in pair])

    async def watch(client: Client, deletes: int) -> list[list[protocol.KeyEvent]]:
        seen: list[list[protocol.KeyEvent]] = []
        async with client.watch_keys("pair/", prefix=True, from_revision=1) as watching:
            while deletes:
                seen.append(await watching.together())
                deletes -= seen[-1][0].type == "delete"
        return seen

    async def main(cluster: LocalCluster) -> None:
        paths = {agent.name: agent.socket_path for agent in cluster}
        async with Client(paths, timeout_s=TIMEOUT_S) as writer, Client(paths) as watcher:
            watching = asyncio.create_task(watch(watcher, deletes=4 * 20))
            writing = asyncio.gather(*(write(writer, number, 100) for number in range(4)))
            for _ in range(3):
                leader = await asyncio.to_thread(cluster.leader)
                await asyncio.to_thread(leader.kill)
                await asyncio.to_thread(leader.start)
            await writing
            seen = await asyncio.wait_for(watching, TIMEOUT_S)
        revisions = [together[0].revision for together in seen]
        assert revisions == sorted(set(revisions))
        assert all(len(together) == 2 for together in seen)
        for together in seen:
            assert together[0].key[:-1] == together[1].key[:-1]
            assert together[0].value == together[1].value
            assert together[0].revision == together[1].revision
        assert len(seen) == 4 * (100 + 20)

    with local_cluster() as cluster:
        cluster.leader()
        asyncio.run(main(cluster))
