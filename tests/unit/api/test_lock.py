"""Locks on leases."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from raft_agent.api.client import Client, LockLost
from raft_agent.api.lock import Lock
from raft_agent.api.protocol import PutKey
from raft_agent.machine.commands import ExpireLease
from tests.unit.api.single_node import SingleNode, run, serving


def end_lease(node: SingleNode, lease_id: int) -> None:
    """As a leader does that has heard nothing of it for its time."""
    lease = node.machine.leases.get(lease_id)
    assert lease is not None
    node.apply_commands([ExpireLease(lease_id, lease.renewed_index)])


def test_whoever_comes_first_holds_it_and_later_tokens_are_greater(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        order: list[str] = []
        tokens: list[int] = []
        async with serving(node, tmp_path / "s"), Client(tmp_path / "s") as client:

            async def work(name: str) -> None:
                async with client.lock("job") as lock:
                    order.append(name)
                    tokens.append(lock.token)
                    await asyncio.sleep(0)
                    order.append(name)

            async with client.lock("job") as first:
                works = []
                for name in "abcd":
                    works.append(asyncio.create_task(work(name)))
                    while len(node.machine.list("lock/job/")[0]) <= len(works):
                        await asyncio.sleep(0)
                assert order == []
                tokens.append(first.token)
            await asyncio.gather(*works)
            assert order == list("aabbccdd")
            assert tokens == sorted(set(tokens))
            assert node.machine.list("lock/")[0] == []
            assert len(node.machine.leases) == 0

    run(main())


def test_locks_of_other_names_are_other_locks(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(SingleNode(), tmp_path / "s"),
            Client(tmp_path / "s") as client,
            client.lock("a"),
            client.lock("a/b"),
            client.lock("a%2Fb"),
            client.lock("ä") as last,
        ):
            assert last.token == 4

    run(main())


def test_a_holder_whose_lease_has_ended_is_told_and_its_guard_fails(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        async with serving(node, tmp_path / "s"), Client(tmp_path / "s") as client:
            async with client.lock("job", ttl_s=1) as lock:
                guarded = await client.txn([lock.guard()], [PutKey("k", b"held")])
                assert guarded.succeeded
                end_lease(node, lock._lease)
                async with client.lock("job", ttl_s=1) as other:
                    assert other.token > lock.token
                    stale = await client.txn([lock.guard()], [PutKey("k", b"stale")])
                    assert not stale.succeeded
                await asyncio.wait_for(lock.lost.wait(), 20)
            found = await client.get("k")
            assert found is not None
            assert found.value == b"held"

    run(main())


def test_a_holder_that_reaches_nobody_counts_the_lock_as_lost(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(SingleNode(), tmp_path / "s") as server,
            Client(tmp_path / "s", timeout_s=0.5) as client,
        ):
            lock = client.lock("job", ttl_s=1)
            await lock.acquire()
            await server.close()
            await asyncio.wait_for(lock.lost.wait(), 20)
            assert lock.left_s() == 0
            await lock.release()

    run(main())


def test_who_waits_for_too_long_leaves_the_queue(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        async with serving(node, tmp_path / "s"), Client(tmp_path / "s") as client:
            told: list[str] = []
            async with client.lock("job"):
                waiting = client.lock("job")
                with pytest.raises(TimeoutError):
                    await waiting.acquire(0.1, waits=told.append)
                assert len(node.machine.list("lock/")[0]) == 1
            assert len(told) == 1
            assert "pid" in told[0]

    run(main())


def test_who_loses_the_lease_while_it_waits_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        async with (
            serving(node, tmp_path / "s"),
            Client(tmp_path / "s") as client,
            client.lock("job"),
        ):
            waiting = client.lock("job", ttl_s=1)
            task = asyncio.create_task(waiting.acquire())
            while len(node.machine.list("lock/")[0]) < 2:
                await asyncio.sleep(0)
            end_lease(node, waiting._lease)
            with pytest.raises(LockLost, match="while it waited"):
                await task

    run(main())


def test_a_waiter_passes_over_one_that_leaves_before_it(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        async with serving(node, tmp_path / "s"), Client(tmp_path / "s") as client:
            first = client.lock("job")
            await first.acquire()
            tasks = []
            for count in (2, 3):
                lock = client.lock("job")
                tasks.append((lock, asyncio.create_task(lock.acquire())))
                while len(node.machine.list("lock/")[0]) < count:
                    await asyncio.sleep(0)
            tasks[0][1].cancel()
            await asyncio.gather(tasks[0][1], return_exceptions=True)
            assert not tasks[1][1].done()
            await first.release()
            assert await tasks[1][1] > 0
            await tasks[1][0].release()

    run(main())


async def done(task: asyncio.Task[Any]) -> None:
    """Wait until `task` has ended in any way."""
    await asyncio.wait([task], timeout=20)
    assert task.done()


async def waiting_grant(client: Client, node: SingleNode, lock: Lock, *asked: float) -> Any:
    """The task of an `acquire` whose lease is being granted for as long as the test wants."""
    await client.put("k", b"")
    node.hold_back = True
    task = asyncio.create_task(lock.acquire(*asked))
    while not node._waiting:
        await asyncio.sleep(0)
    return task


def let_go(node: SingleNode) -> None:
    node.hold_back = False
    node.apply_waiting()


def test_the_time_to_wait_covers_the_lease_too(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        async with serving(node, tmp_path / "s"), Client(tmp_path / "s", timeout_s=60) as client:
            lock = client.lock("job")
            task = await waiting_grant(client, node, lock, 0.01)
            await done(task)
            with pytest.raises(TimeoutError):
                task.result()
            let_go(node)
            assert await lock.acquire() > 0

    run(main())


def test_a_lock_that_is_waited_for_is_not_acquired_a_second_time(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        async with serving(node, tmp_path / "s"), Client(tmp_path / "s") as client:
            lock = client.lock("job")
            task = await waiting_grant(client, node, lock)
            second = asyncio.create_task(lock.acquire())
            await asyncio.sleep(0)
            let_go(node)
            await done(second)
            assert isinstance(second.exception(), RuntimeError)
            assert await task == lock.token
            assert len(node.machine.leases) == 1
            await lock.release()
            assert len(node.machine.leases) == 0

    run(main())


def test_a_lock_that_is_released_while_its_lease_is_granted_is_not_held(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        async with serving(node, tmp_path / "s"), Client(tmp_path / "s") as client:
            lock = client.lock("job")
            first = await waiting_grant(client, node, lock)
            await lock.release()
            # Whoever acquires it now is somebody else, and loses nothing by the first one's end.
            second = asyncio.create_task(lock.acquire())
            let_go(node)
            await done(first)
            assert isinstance(first.exception(), LockLost)
            assert await second == lock.token
            assert [lease.id for lease in node.machine.leases] == [lock._lease]
            await lock.release()

    run(main())


def test_a_release_that_is_cancelled_is_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        async with serving(node, tmp_path / "s"), Client(tmp_path / "s") as client:
            lock = client.lock("job")
            await lock.acquire()
            task = asyncio.create_task(lock.release())
            await asyncio.sleep(0)
            task.cancel()
            await done(task)
            assert task.cancelled()
            assert lock.token == 0

    run(main())
