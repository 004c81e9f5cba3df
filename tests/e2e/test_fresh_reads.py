"""No linearizable read returns what was overwritten before it began, whoever stands still."""

from __future__ import annotations

import asyncio
import signal

import pytest
import uvloop

from raft_agent.api.client import Client
from tests.e2e.agents import Agent, LocalCluster, local_cluster

READERS = 10
READS = 1000
PAUSE_S = 2.0
_KEY = "counter"


class _Counter:
    """`acknowledged`: the largest value of the key that a client was told is stored."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.value = 0
        self.is_over = False

    async def count_up(self, client: Client) -> None:
        while not self.is_over:
            self.value += 1
            await client.put(_KEY, b"%d" % self.value)
            self.acknowledged = self.value


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


async def _round(counter: _Counter, leader: Agent, others: list[Agent]) -> list[str]:
    """Stop the leader in the middle of the reads, a third of which ask that one itself."""
    counter.is_over = False
    sockets = {agent.name: agent.socket_path for agent in others}
    async with asyncio.TaskGroup() as group:
        writer = Client(sockets, timeout_s=20, forward=True)
        counting = group.create_task(counter.count_up(writer))
        readers = [
            Client({agent.name: agent.socket_path}, timeout_s=20)
            for agent in [leader, *others] * (READERS // 3 + 1)
        ][:READERS]
        reading = [
            group.create_task(_read(client, counter, READS // READERS)) for client in readers
        ]
        leader.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(PAUSE_S)  # the length of the pause is what is tested
        finally:
            leader.signal(signal.SIGCONT)
        stale = [text for task in reading for text in await task]
        counter.is_over = True
        await counting
        for client in [writer, *readers]:
            await client.close()
    return stale


def _rounds(cluster: LocalCluster, rounds: int) -> tuple[list[str], int]:
    counter = _Counter()
    stale: list[str] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for _ in range(rounds):
            leader = cluster.leader()
            stale += runner.run(_round(counter, leader, cluster.followers()))
    return stale, counter.acknowledged


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
def test_no_read_is_older_than_what_was_acknowledged_before_it_began(rounds: int) -> None:
    with local_cluster() as cluster:
        stale, acknowledged = _rounds(cluster, rounds)
    assert not stale, stale[:5]
    assert acknowledged > rounds
    print(f"{rounds} pauses of the leader, {READS} reads in each, {acknowledged} writes: none old")
