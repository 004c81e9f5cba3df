"""The cluster version at a running node: what it promises, asks for, raises and refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.types import Configuration, Propose, Proposed
from raft_agent.machine.commands import Command, Put, RaiseVersion, encode_commands, join_commands
from raft_agent.machine.machine import Machine
from raft_agent.runtime.proposals import LOST, Proposals
from raft_agent.runtime.versions import VersionKeeper
from raft_agent.storage.store import Store
from raft_agent.transport.handshake import Hello, Refused
from raft_agent.versions import Versions
from tests.unit.consensus.server import Server
from tests.unit.runtime.leading import configuration, first_entry, hello, member
from tests.version2 import VERSIONS, MachineOfVersion2, PutOfVersion2

OTHERS = (2, 3)


class Network:
    """What those say who are connected, and what is sent to them."""

    def __init__(self) -> None:
        self.known: dict[int, Versions] = {}
        self.asked: list[tuple[int, int]] = []
        self.promised: list[tuple[int, int]] = []
        self.said: dict[str, int] = {}

    def known_versions(self) -> dict[int, Versions]:
        return dict(self.known)

    def ask_version(self, to: int, version: int) -> None:
        self.asked.append((to, version))

    def promise_version(self, to: int, version: int) -> None:
        self.promised.append((to, version))

    def set_versions(self, **said: int) -> None:
        self.said = said

    def agent_of(self, member_id: int) -> tuple[str, Versions | None]:
        return "9.9", self.known.get(member_id)


class Node:
    """node-01 of a cluster of three, or a fresh node when `known` is None."""

    def __init__(
        self, data_dir: Path, known: Configuration | None, kind: type[Machine] = MachineOfVersion2
    ) -> None:
        loop = asyncio.get_running_loop()
        log = [first_entry(known)] if known is not None else []
        self.server = Server(1, name="node-01", address=member(1).address, log=log)
        self.store = Store.open(data_dir, versions=kind.versions)
        self.machine = kind()
        self.network = Network()
        self.proposed: list[Propose] = []
        self.told: list[str] = []
        self.proposals = Proposals(loop, self.proposed.append)  # type: ignore[arg-type]
        self.keeper = VersionKeeper(
            node=self.server.node,
            machine=self.machine,
            store=self.store,
            transport=self.network,  # type: ignore[arg-type]
            proposals=self.proposals,
            loop=loop,
            tell=lambda event, **_: self.told.append(event),
        )
        self.proposals.problem = self.keeper.problem

    def promised(self) -> int:
        """What is on disk."""
        self.store.close()
        store = Store.open(self.store._lock.data_dir, versions=VERSIONS)
        store.close()
        return store.recovered.promised_version

    def close(self) -> None:
        self.keeper.close()
        self.store.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def in_loop(tmp_path: Path) -> Callable[..., None]:
    """Runs a test with a node of its own."""

    def go(
        test: Callable[[Node], Coroutine[Any, Any, None]],
        known: Configuration | None = configuration((1, 2, 3)),  # noqa: B008
        kind: type[Machine] = MachineOfVersion2,
    ) -> None:
        async def run() -> None:
            node = Node(tmp_path / "data", known, kind)
            try:
                await test(node)
            finally:
                node.close()

        asyncio.run(run())

    return go


def member_id(number: int) -> int:
    return member(number).id


def test_a_leader_asks_all_members_and_raises_the_version_when_they_have_promised(
    in_loop: Callable[..., None],
) -> None:
    async def test(node: Node) -> None:
        node.keeper.role(True)
        node.network.known = {member_id(number): VERSIONS for number in OTHERS}
        await until(lambda: len(node.network.asked) >= 2)
        assert {asked[0] for asked in node.network.asked} == {member_id(n) for n in OTHERS}
        await until(lambda: "version_promised" in node.told)  # its own
        assert not node.proposed
        node.keeper.answered(member_id(2), 2)
        node.keeper.answered(member_id(3), 2)
        await until(lambda: node.proposed)
        payload = node.proposed[0].payload
        assert payload[8:] == join_commands(0, 1, [encode_commands([RaiseVersion(2)])])[8:]
        assert node.promised() == 2

    in_loop(test)


def test_a_silent_member_keeps_the_version_from_rising(in_loop: Callable[..., None]) -> None:
    async def test(node: Node) -> None:
        node.keeper.role(True)
        node.network.known = {member_id(2): VERSIONS}
        node.keeper._look()
        node.network.known[member_id(3)] = Versions(1, 1)
        node.keeper._look()
        assert not node.network.asked
        assert node.promised() == 1

    in_loop(test)


def test_nobody_but_a_leader_raises_it(in_loop: Callable[..., None]) -> None:
    async def test(node: Node) -> None:
        node.network.known = {member_id(number): VERSIONS for number in OTHERS}
        node.keeper.role(True)
        node.keeper.role(False)
        node.keeper._look()
        assert not node.network.asked

    in_loop(test)


def test_a_promise_is_on_disk_before_it_is_given(in_loop: Callable[..., None]) -> None:
    async def test(node: Node) -> None:
        save, at_answer = node.store.save_promise, []
        node.store.save_promise = lambda version: at_answer.append(  # type: ignore[method-assign]
            (save(version), list(node.network.promised))
        )
        node.keeper.asked(member_id(2), 2)
        assert not node.network.promised
        await until(lambda: node.network.promised)
        assert at_answer == [(None, [])]
        assert node.network.promised == [(member_id(2), 2)]
        assert node.network.said["promised"] == 2
        node.keeper.asked(member_id(2), 2)  # the answer was lost: no other write
        assert len(node.network.promised) == 2
        assert len(at_answer) == 1

    in_loop(test)


def test_whoever_has_come_to_a_version_without_a_promise_notes_it(
    in_loop: Callable[..., None],
) -> None:
    """Who began with a backup, for example."""

    async def test(node: Node) -> None:
        node.machine.version = 2
        node.keeper.applied()
        await until(lambda: "version_promised" in node.told)
        assert node.promised() == 2

    in_loop(test)


def test_what_it_does_not_know_it_does_not_promise_nor_to_a_stranger(
    in_loop: Callable[..., None],
) -> None:
    async def test(node: Node) -> None:
        node.keeper.asked(member_id(2), 3)
        node.keeper.asked(77, 2)
        assert node.promised() == 1
        assert not node.network.promised

    in_loop(test)


def test_a_promise_that_can_not_be_written_is_not_given(in_loop: Callable[..., None]) -> None:
    async def test(node: Node) -> None:
        failed: list[int] = []

        def save(version: int) -> None:
            failed.append(version)
            raise OSError(28, "No space left on device")

        node.store.save_promise = save  # type: ignore[method-assign]
        for _ in range(2):
            node.keeper.asked(member_id(2), 2)
            await until(lambda: failed)
            await asyncio.sleep(0)
            await until(lambda: not node.keeper._promising)
            failed.clear()
        assert not node.network.promised

    in_loop(test)


def of(version: int, promised: int = 1, cluster_id: str = "") -> Hello:
    base = hello(4, cluster_id=cluster_id)
    return Hello(
        1, version, cluster_id, base.member_id, base.name, base.address, "", "", 0, promised, "1.0"
    )


def test_a_fresh_node_promises_what_the_members_have_that_dial_it(
    in_loop: Callable[..., None],
) -> None:
    async def test(node: Node) -> None:
        node.keeper.admit(of(2, promised=2))  # itself in no cluster
        assert node.network.said["promised"] == 1
        node.keeper.admit(of(2, promised=2, cluster_id="c" * 32))
        assert node.network.said["promised"] == 2
        with pytest.raises(Refused, match=r"of version 3, .* knows versions 1 to 2"):
            node.keeper.admit(of(3, promised=3, cluster_id="c" * 32))
        assert node.promised() == 2

    in_loop(test, None)


def test_a_member_admits_whoever_has_promised_more(in_loop: Callable[..., None]) -> None:
    async def test(node: Node) -> None:
        node.keeper.admit(of(3, promised=3, cluster_id="c" * 32))
        assert node.promised() == 1

    in_loop(test)


def test_a_joiner_must_have_promised_what_the_leader_has(in_loop: Callable[..., None]) -> None:
    async def test(node: Node) -> None:
        assert node.keeper.joiner_problem(of(1)) is None
        node.keeper.asked(member_id(2), 2)
        await until(lambda: node.network.promised)
        problem = node.keeper.joiner_problem(of(1))
        assert problem is not None
        assert problem.code == ErrorCode.REFUSED
        assert "runs raft-agent 1.0, which knows version 1, and this cluster needs version 2" in (
            problem.error
        )
        problem = node.keeper.joiner_problem(of(2))
        assert problem is not None
        assert problem.code == ErrorCode.CHANGE_PENDING
        assert node.keeper.joiner_problem(of(2, promised=2)) is None

    in_loop(test)


def test_commands_of_a_version_that_is_not_in_force_do_not_reach_the_core(
    in_loop: Callable[..., None],
) -> None:
    async def test(node: Node) -> None:
        outcomes: list[Any] = []
        later: Command = PutOfVersion2("a", b"1")  # type: ignore[assignment]
        node.network.known = {member_id(2): VERSIONS, member_id(3): Versions(1, 1)}
        node.proposals.add([Put("a", b"1"), later], outcomes.append)
        await until(lambda: outcomes)
        assert outcomes[0].code == ErrorCode.NOT_IN_THIS_VERSION
        assert "version 2" in outcomes[0].error
        assert outcomes[0].error.endswith(": node-03")
        assert not node.proposed
        assert node.proposals.counts.refused == 2
        node.machine.version = 2
        node.keeper.applied()
        assert node.told[0] == "version_raised"
        assert node.network.said["in_force"] == 2
        node.proposals.add([later], outcomes.append)
        await until(lambda: node.proposed)

    in_loop(test)


def test_a_raise_that_came_to_nothing_is_tried_again(
    in_loop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raft_agent.runtime.versions._RAISE_AGAIN_S", 0.0)

    async def test(node: Node) -> None:
        node.keeper.role(True)
        node.network.known = {member_id(number): VERSIONS for number in OTHERS}
        for number in OTHERS:
            node.keeper.answered(member_id(number), 2)
        await until(lambda: len(node.proposed) == 1)
        node.proposals.proposed(Proposed(node.proposed[0].tag, 5, 1))
        node.keeper._look()
        assert len(node.proposed) == 1  # it is on its way
        node.proposals._drop(5, LOST)
        await until(lambda: len(node.proposed) == 2)

    in_loop(test)
