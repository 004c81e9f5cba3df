"""A leader that stood still while another one took its place, and its writes, reads nothing old."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
import uvloop

from raft_agent.api.client import Client
from tests.e2e.agents import Agent, LocalCluster, local_cluster, wait_for

READS = 1000
PAUSE_S = 2.0
TIMEOUT_S = 20.0
_KEY = "counter"


class _Counter:
    """`acknowledged`: the largest value of the key that a client was told is stored."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.is_over = False
        self._value = 0

    async def rise(self, client: Client) -> None:
        self._value += 1
        await client.put(_KEY, b"%d" % self._value)
        self.acknowledged = self._value

    async def go_on(self, client: Client) -> None:
        self.is_over = False
        while not self.is_over:
            await self.rise(client)


async def _read(client: Client, counter: _Counter, reads: int) -> list[str]:
    """Whatever a read returned that was older than what was acknowledged when it began."""
    stale = []
    for _ in range(reads):
        floor = counter.acknowledged
        entry = await client.get(_KEY)
        value = int(entry.value) if entry is not None else 0
        if value < floor:
            stale.append(f"read {value} after {floor} was acknowledged")
    return stale


@contextlib.contextmanager
def _standing_still(agent: Agent) -> Iterator[None]:
    """No thread of `agent` runs any more when this is entered."""
    agent.signal(signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, agent.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        yield
    finally:
        agent.signal(signal.SIGCONT)


def _successor(others: list[Agent]) -> Agent:
    def leading() -> Agent | None:
        statuses = [(agent, agent.status()) for agent in others]
        return next((agent for agent, s in statuses if s is not None and s.role == "leader"), None)

    return wait_for("another leader", leading, TIMEOUT_S)


async def _round(counter: _Counter, leader: Agent, others: list[Agent]) -> list[str]:
    """Stop the leader, have its successor acknowledge a write, and only then ask the one that is
    stopped: the questions lie in its sockets when it runs again. Two readers ask each of the
    others. Writes go on until the last read was answered.
    """
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as clients, asyncio.TaskGroup() as group:

        async def connected(agent: Agent) -> Client:
            client = Client(agent.socket_path, timeout_s=TIMEOUT_S)
            await clients.enter_async_context(client)
            await client.get(_KEY)
            return client

        readers = [await connected(agent) for agent in [leader] * 6 + others * 2]
        with _standing_still(leader):
            resume_at = loop.time() + PAUSE_S
            before = counter.acknowledged
            writer = await connected(await asyncio.to_thread(_successor, others))
            await counter.rise(writer)
            assert counter.acknowledged > before
            writing = group.create_task(counter.go_on(writer))
            reading = [
                group.create_task(_read(client, counter, READS // len(readers)))
                for client in readers
            ]
            await asyncio.sleep(resume_at - loop.time())  # the length of the pause is the test's
        stale = [text for task in reading for text in await task]
        counter.is_over = True
        await writing
    return stale


def _rounds(cluster: LocalCluster, rounds: int) -> tuple[list[str], int]:
    counter = _Counter()
    stale: list[str] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for _ in range(rounds):
            leader = cluster.leader()
            others = [agent for agent in cluster if agent is not leader]
            stale += runner.run(_round(counter, leader, others))
    return stale, counter.acknowledged


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
def test_no_read_is_older_than_what_was_acknowledged_before_it_began(rounds: int) -> None:
    with local_cluster() as cluster:
        stale, acknowledged = _rounds(cluster, rounds)
    assert not stale, stale[:5]
    print(f"{rounds} pauses of the leader, {READS} reads in each, {acknowledged} writes: none old")
