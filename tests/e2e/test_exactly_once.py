"""Clients that send again while leaders are killed: everything happens once, in nobody's doubt."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import Client, SyncClient
from tests.e2e.agents import Agent, LocalCluster, local_cluster, wait_for

WRITERS = 8
TIMEOUT_S = 30.0


class Senders:
    """Send texts of which no two are the same, in a thread, until `stop`."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._sockets = {agent.name: agent.socket_path for agent in cluster}
        self.acknowledged: list[str] = []
        self.errors: list[str] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()

    async def _run(self) -> None:
        async with Client(self._sockets, timeout_s=TIMEOUT_S) as client:
            watching = asyncio.create_task(self._watch())
            await asyncio.gather(*(self._send(client, number) for number in range(WRITERS)))
            await asyncio.wait_for(watching, TIMEOUT_S)

    async def _send(self, client: Client, number: int) -> None:
        count = 0
        while not self._ends.is_set():
            count += 1
            text = f"{number}-{count}"
            try:
                await client.send(text)
                await client.put(f"k{number}", text.encode())
            except Exception as error:
                self.errors.append(f"{text}: {error!r}")
            else:
                self.acknowledged.append(text)
        await client.put("end", b"")

    async def _watch(self) -> None:
        """Every revision of the store in order, over all lost connections."""
        expected = 1
        async with Client(self._sockets, timeout_s=TIMEOUT_S) as client:
            async for event in client.watch_keys("", prefix=True, from_revision=1):
                if event.revision != expected:
                    self.errors.append(f"revision {event.revision} instead of {expected}")
                expected = event.revision + 1
                if event.key == "end":
                    return


def messages_of(agent: Agent, limit: int) -> list[str]:
    answer = agent.ask(protocol.Messages(1, limit), timeout_s=TIMEOUT_S)
    assert isinstance(answer, protocol.MessagesResult)
    return [message.text for message in answer.messages]


@pytest.mark.parametrize("kills", [3, pytest.param(15, marks=pytest.mark.long)])
def test_writes_of_a_session_happen_once_while_leaders_are_killed(kills: int) -> None:
    with local_cluster() as cluster:
        cluster.leader()
        senders = Senders(cluster)
        senders.start()
        try:
            for _ in range(kills):
                before = len(senders.acknowledged)
                wait_for("writes to go on", lambda b=before: len(senders.acknowledged) > b + 50)
                leader = cluster.leader()
                leader.kill()
                leader.start()
        finally:
            senders.stop()
        assert senders.errors == []
        leader = cluster.leader()
        texts = Counter(messages_of(leader, 100_000))
        assert {text for text, count in texts.items() if count > 1} == set()
        assert set(senders.acknowledged) == set(texts)


def test_one_shots_happen_once_while_leaders_are_killed() -> None:
    with local_cluster() as cluster:
        first = cluster.leader()
        asked = cluster.followers()[0]
        killed = threading.Thread(target=lambda: (first.kill(), first.start()))
        with SyncClient(str(asked.socket_path), TIMEOUT_S) as client:
            for number in range(100):
                if number == 30:
                    killed.start()
                client.send(str(number))
        killed.join()
        assert messages_of(cluster.leader(), 1000) == [str(number) for number in range(99, -1, -1)]
