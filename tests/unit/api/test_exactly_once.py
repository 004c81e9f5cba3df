"""Writes whose answers are lost: sent again, and applied once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from raft_agent.api import async_client
from raft_agent.api.client import (
    AgentNotReachable,
    Client,
    OutcomeUnknown,
    RaftClientError,
    RequestFailed,
    SyncClient,
)
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.api.server import ApiServer
from raft_agent.machine.commands import Command, KeepSession
from tests.unit.api.single_node import SingleNode, run, serving
from tests.unit.cli import served

TIMEOUT_S = 20.0

WRITES: list[Callable[[Any], Any]] = [
    lambda client: client.put("k", b"v"),
    lambda client: client.delete("k"),
    lambda client: client.send("hi"),
]


class Cluster:
    """Nodes with one state, as if all had applied everything. The first one leads."""

    def __init__(self, directory: Path, count: int) -> None:
        self.hosts = [SingleNode(f"node-{number:02}") for number in range(1, count + 1)]
        self.paths = {host.node_name: directory / host.node_name for host in self.hosts}
        self.machine = self.hosts[0].machine
        for host in self.hosts:
            host.machine = self.machine
        self.servers: list[ApiServer] = []
        self.lead(self.hosts[0])

    def lead(self, leader: SingleNode) -> None:
        for host in self.hosts:
            host.leader = leader.node_name

    def cut_connections(self) -> None:
        for server in self.servers:
            for connection in list(server._connections):
                connection.abort()

    def facts(self) -> tuple[int, list[str]]:
        """What a write that was applied twice would change."""
        return self.machine.revision, [item.text for item in self.machine.messages(99)]


@contextlib.asynccontextmanager
async def cluster(directory: Path, count: int = 2) -> AsyncIterator[Cluster]:
    made = Cluster(directory, count)
    async with contextlib.AsyncExitStack() as stack:
        for host in made.hosts:
            server = await stack.enter_async_context(serving(host, made.paths[host.node_name]))
            made.servers.append(server)
        yield made


def held_back(host: SingleNode) -> asyncio.Event:
    """From now on `host` takes commands in and does not apply them; set with the first one."""
    taken = asyncio.Event()
    propose = host.propose

    def hold(commands: Sequence[Command], done: Any) -> None:
        propose(commands, done)
        taken.set()

    host.hold_back = True
    host.propose = hold  # type: ignore[method-assign]
    return taken


def released(host: SingleNode) -> None:
    host.hold_back = False
    del host.propose  # type: ignore[method-assign]


async def taken_in(host: SingleNode, write: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """`write` under way: `host` has its command, and does not apply it."""
    taken = held_back(host)
    writing = asyncio.create_task(write)
    await taken.wait()
    return writing


async def answer_lost(group: Cluster, write: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """`write` under way: the leader has applied it, and the client's connection was cut before."""
    writing = await taken_in(group.hosts[0], write)
    group.cut_connections()
    group.hosts[0].apply_waiting()
    released(group.hosts[0])
    return writing


@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_was_applied_before_its_connection_was_cut_is_not_applied_again(
    tmp_path: Path, write: Callable[[Client], Any]
) -> None:
    async def main() -> None:
        async with (
            cluster(tmp_path) as group,
            Client(group.paths, timeout_s=TIMEOUT_S) as client,
        ):
            await client.put("k", b"old")
            writing = await answer_lost(group, write(client))
            facts, first_index = group.facts(), group.machine.last_applied
            assert (await writing).index == first_index
            assert group.facts() == facts

    run(main())


@pytest.mark.parametrize("write", WRITES)
def test_a_copy_that_comes_late_is_not_applied_again(
    tmp_path: Path, write: Callable[[Client], Any]
) -> None:
    async def main() -> None:
        async with (
            cluster(tmp_path) as group,
            Client(group.paths, timeout_s=TIMEOUT_S) as client,
        ):
            await client.put("k", b"old")
            writing = await taken_in(group.hosts[0], write(client))
            group.lead(group.hosts[1])
            group.cut_connections()
            result = await writing
            facts = group.facts()
            late = [command for command, _ in group.hosts[0]._waiting]
            group.hosts[1].apply_commands(late)
            assert group.facts() == facts
            # Nor once the client has said that it has the answer.
            await client.delete("none")
            group.hosts[1].apply_commands(late)
            assert group.facts() == facts
            assert result.index < group.machine.last_applied

    run(main())


def test_an_agent_that_hangs_does_not_use_up_the_time_of_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            cluster(tmp_path) as group,
            Client(group.paths, timeout_s=3.0) as client,
        ):
            await client.put("k", b"old")
            writing = await taken_in(group.hosts[0], client.put("k", b"new"))
            group.lead(group.hosts[1])
            assert (await writing).revision == 2

    run(main())


def test_without_any_answer_the_outcome_is_unknown_and_later_writes_work(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, 1) as group, Client(group.paths, timeout_s=0.5) as client:
            await client.put("k", b"old")
            held_back(group.hosts[0])
            with pytest.raises(OutcomeUnknown) as lost:
                await client.put("k", b"new")
            assert lost.value.happened == "unknown"
            released(group.hosts[0])
            group.hosts[0]._waiting = []
            assert (await client.put("k", b"newer")).revision == 2

    run(main())


def test_what_the_agent_says_is_unknown_is_asked_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            cluster(tmp_path) as group,
            Client(group.paths, timeout_s=TIMEOUT_S) as client,
        ):
            await client.put("k", b"old")

            def unknown(commands: Sequence[Command], done: Any) -> None:
                group.hosts[0].apply_commands(commands)
                released(group.hosts[0])
                done(Failure(ErrorCode.UNKNOWN_OUTCOME, "no answer"))

            group.hosts[0].propose = unknown  # type: ignore[method-assign]
            assert (await client.put("k", b"new")).revision == 2
            assert group.machine.revision == 2

    run(main())


def test_a_conflict_is_certain_even_when_a_copy_was_lost(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            cluster(tmp_path) as group,
            Client(group.paths, timeout_s=TIMEOUT_S) as client,
        ):
            await client.put("k", b"old")
            writing = await answer_lost(group, client.put("k", b"new", if_revision=7))
            with pytest.raises(RequestFailed) as refused:
                await writing
            assert (refused.value.code, refused.value.happened) == (ErrorCode.CONFLICT, "no")

    run(main())


def test_an_expired_session_is_opened_anew_when_nothing_is_in_doubt(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as group, Client(group.paths) as client:
            await client.put("k", b"1")
            group.hosts[0].time_ms += 120_000
            writes = (client.put("k", b"%d" % number) for number in range(9))
            assert {result.revision for result in await asyncio.gather(*writes)} == set(
                range(2, 11)
            )
            assert len(group.machine._sessions) == 1

    run(main())


def test_a_session_that_expires_over_a_lost_answer_leaves_the_outcome_open(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            cluster(tmp_path) as group,
            Client(group.paths, timeout_s=TIMEOUT_S) as client,
        ):
            await client.put("k", b"old")
            writing = await answer_lost(group, client.put("k", b"new"))
            group.hosts[0].time_ms += 120_000
            with pytest.raises(OutcomeUnknown):
                await writing
            assert (await client.put("k", b"newer")).revision == 3

    run(main())


def test_answers_that_came_are_forgotten_in_the_cluster(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as group, Client(group.paths) as client:
            for _ in range(3):
                await asyncio.gather(*(client.put(f"k{number}", b"") for number in range(200)))
            await client.put("last", b"")
            assert group.machine._sessions._result_count == 1

    run(main())


def test_writes_of_one_client_share_a_session_and_closing_ends_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as group:
            async with Client(group.paths) as client:
                await asyncio.gather(*(client.put(f"k{number}", b"") for number in range(20)))
                await client.get("k1")
                assert len(group.machine._sessions) == 1
            assert len(group.machine._sessions) == 0

    run(main())


def test_who_only_reads_opens_no_session(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as group:
            async with Client(group.paths) as client:
                await client.get("k")
            assert group.machine.last_applied == 0

    run(main())


def test_an_idle_session_is_kept_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_client, "_KEEP_EVERY_S", 0.01)

    async def main() -> None:
        async with cluster(tmp_path) as group, Client(group.paths) as client:
            kept = asyncio.Event()
            host = group.hosts[0]
            propose = host.propose

            def watched(commands: Sequence[Command], done: Any) -> None:
                propose(commands, done)
                if any(isinstance(command, KeepSession) for command in commands):
                    kept.set()

            host.propose = watched  # type: ignore[method-assign]
            await client.put("k", b"")
            for _ in range(3):
                kept.clear()
                async with asyncio.timeout(TIMEOUT_S):
                    await kept.wait()
                host.time_ms += 50_000
            assert (await client.put("k", b"")).revision == 2
            assert len(group.machine._sessions) == 1

    run(main())


def test_all_errors_have_a_common_base_that_says_whether_it_happened() -> None:
    assert {kind.happened for kind in (AgentNotReachable, RequestFailed)} == {"no"}
    for kind in (AgentNotReachable, RequestFailed, OutcomeUnknown):
        assert issubclass(kind, RaftClientError)


# --- the blocking client --------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path) -> Any:
    with served.serving(tmp_path / "s") as node:
        yield node


def cut_at_next_write(agent: served.Served, *, apply: bool, after: Callable[[], None]) -> None:
    """The next write is taken in, and then all connections are cut; `after` runs before that."""
    host = agent.host
    server = agent.server
    assert server is not None

    def cut(commands: Sequence[Command], _done: Any) -> None:
        del host.propose  # type: ignore[method-assign]
        if apply:
            host.apply_commands(commands)
        after()
        for connection in list(server._connections):
            connection.abort()

    agent.call(setattr, host, "propose", cut)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("apply", [True, False])
def test_the_blocking_client_sends_a_write_again_and_it_is_applied_once(
    agent: served.Served, write: Callable[[SyncClient], Any], apply: bool
) -> None:
    machine = agent.host.machine
    with SyncClient(str(agent.path), timeout_s=TIMEOUT_S) as client:
        client.put("k", b"old")
        revision = machine.revision
        cut_at_next_write(agent, apply=apply, after=lambda: None)
        result = write(client)
        assert result.revision == machine.revision <= revision + 1
        assert len(machine.messages(9)) <= 1
        assert machine.last_applied == result.index + apply
        assert (client.get("k") is None) == (machine.get("k") is None)
        assert client.get("none") is None


@pytest.mark.parametrize("time_ms", [0, 1 << 50])
def test_a_clock_that_is_wrong_is_set_by_the_clusters(agent: served.Served, time_ms: int) -> None:
    agent.call(setattr, agent.host, "time_ms", time_ms)
    with SyncClient(str(agent.path), timeout_s=TIMEOUT_S) as client:
        assert client.put("k", b"1").revision == 1
        before = agent.host.machine.last_applied
        assert client.put("k", b"2").revision == 2
        assert agent.host.machine.last_applied == before + 1  # the clock is right now


def test_too_late_for_a_copy_leaves_the_outcome_open(agent: served.Served) -> None:
    host = agent.host

    def time_passes() -> None:
        host.time_ms += 10_000_000

    with SyncClient(str(agent.path), timeout_s=TIMEOUT_S) as client:
        client.put("k", b"old")
        cut_at_next_write(agent, apply=False, after=time_passes)
        with pytest.raises(OutcomeUnknown):
            client.put("k", b"new")
        assert client.put("k", b"newer").revision == 2


def test_the_blocking_client_waits_for_a_leader_but_not_for_ever(agent: served.Served) -> None:
    agent.call(setattr, agent.host, "leader", None)
    with SyncClient(str(agent.path), timeout_s=0.3) as client:
        with pytest.raises(RequestFailed) as refused:
            client.put("k", b"")
        assert refused.value.code is ErrorCode.NO_LEADER
        agent.call(setattr, agent.host, "leader", "node-01")
        assert client.put("k", b"").revision == 1


def test_an_agent_that_is_gone_leaves_the_outcome_open_only_after_a_copy(
    agent: served.Served,
) -> None:
    with SyncClient(str(agent.path), timeout_s=0.3) as client:
        client.put("k", b"")
        agent.stop()
        with pytest.raises(AgentNotReachable):
            client.get("k")
        with pytest.raises(AgentNotReachable):
            client.put("k", b"")
        agent.start()
        assert client.put("k", b"").revision == 2
