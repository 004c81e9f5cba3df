"""A follower that was away gets a snapshot while the leader serves its clients."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvloop

from raft_agent.api import protocol
from raft_agent.api.client import Client
from tests.e2e.agents import Agent, local_cluster, wait_for
from tests.e2e.load import Load
from tests.e2e.witness import watching

VALUE_BYTES = 1024
_IN_FLIGHT = 2000
_SILENCE_MS = 1500
# A machine that stands still for so long may well have an election: that says nothing of snapshots.
_STALL_MS = 100
_ATTEMPTS = 3
_ELECTIONS = {"pre_vote_started", "election_started", "leader_elected", "leader_lost"}


async def _fill(agent: Agent, first: int, last: int) -> None:
    """Put the keys first … last - 1, many in flight."""
    async with Client(agent.socket_path, timeout_s=60) as client:
        numbers = iter(range(first, last))

        async def put_some() -> None:
            for number in numbers:
                value = b"%d " % number
                await client.put(f"key-{number:07}", value.ljust(VALUE_BYTES, b"."))

        await asyncio.gather(*(put_some() for _ in range(_IN_FLIGHT)))


def _newest_snapshot(agent: Agent) -> tuple[int, int]:
    """(size in bytes, log index) of the newest one that it told of; zeros when there is none."""
    taken = [event.facts for event in agent.events() if event.kind == "snapshot_taken"]
    if not taken:
        return 0, 0
    return int(taken[-1]["size_bytes"]), int(taken[-1]["index"])


@pytest.mark.parametrize(
    "keys",
    [10_000, pytest.param(1_000_000, marks=pytest.mark.long)],
    ids=["10 megabytes", "a gigabyte"],
)
def test_a_follower_gets_a_snapshot_under_load_and_no_election_happens(keys: int) -> None:
    for _ in range(_ATTEMPTS):
        elections, stall_ms = _send_under_load(keys)
        if not elections or stall_ms < _STALL_MS:
            break
    assert not elections, f"the machine itself stood still for at most {stall_ms} ms"


def _send_under_load(keys: int) -> tuple[list[str], int]:
    """The elections while a follower that was away got a snapshot of so many keys, and for how long
    the machine itself stood still meanwhile."""
    with local_cluster(extra="[storage]\nsnapshot_log_mib = 1\n") as cluster:
        absent = cluster.followers()[0]
        absent.kill()
        leader = cluster.leader()
        wait_for("the leader to miss it", lambda: _misses(leader, absent.name))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_fill(leader, 0, keys))
            while _newest_snapshot(leader)[0] < keys * VALUE_BYTES:
                runner.run(_fill(leader, 0, keys // 20))
        leader = cluster.leader()
        (other,) = cluster.followers()
        size, index = _newest_snapshot(leader)
        before = {agent.name: _elections(agent) for agent in (leader, other)}
        load = Load(str(leader.socket_path), 64, "meanwhile")
        began = time.monotonic()

        def bring_back() -> None:
            absent.start()
            wait_for("it to have the snapshot", lambda: _has_applied(absent, index), 300)

        with watching() as machine:
            load.run_until(100, bring_back)
        took_s = time.monotonic() - began
        elections = [
            event
            for agent in (leader, other, absent)
            for event in _elections(agent)[len(before.get(agent.name, [])) :]
        ]
        assert "snapshot_installed" in [event.kind for event in absent.events()]
        entry = absent.ask(protocol.Get(1, f"key-{keys - 1:07}"), timeout_s=20)
        assert isinstance(entry, protocol.KeyValue)
        assert len(entry.value) == VALUE_BYTES
    print(
        f"a snapshot of {size} bytes was taken over in {took_s:.1f} s, while 64 clients had "
        f"{len(load.acks)} writes acknowledged"
    )
    return elections, machine.longest_stall_ms


def _misses(leader: Agent, name: str) -> bool | None:
    """Its log is kept for those who are in contact only."""
    status = leader.status()
    contact_ms = status.progress[name].last_contact_ms if status and status.progress else None
    return True if contact_ms is not None and contact_ms > _SILENCE_MS else None


def _elections(agent: Agent) -> list[str]:
    return [event.kind for event in agent.events() if event.kind in _ELECTIONS]


def _has_applied(agent: Agent, index: int) -> bool | None:
    status = agent.status()
    return True if status is not None and status.last_applied >= index else None
