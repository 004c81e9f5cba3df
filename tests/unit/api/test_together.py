"""The writes of one frame, and those of many clients in one turn, go through the log together, and
each has its own answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from raft_agent.api import changes, protocol
from raft_agent.api.caller import Caller
from raft_agent.api.host import Failure, Outcome
from raft_agent.api.limits import Crowd
from raft_agent.api.protocol import Error, ErrorCode
from raft_agent.api.requests import RequestHandlers
from raft_agent.api.rights import Principal
from raft_agent.machine.commands import Command, GrantLease
from raft_agent.tls.identity import Role
from tests.unit.api.raw_client import RawClient, with_node
from tests.unit.api.single_node import SingleNode


class Watched(SingleNode):
    """Notes how many commands were proposed at a time. `is_broken`: it takes none."""

    is_broken = False

    def __init__(self) -> None:
        super().__init__()
        self.proposed: list[int] = []

    def propose(self, commands: Sequence[Command], done: Callable[[Outcome], None]) -> None:
        if self.is_broken:
            raise RuntimeError("broken")
        self.proposed.append(len(commands))
        super().propose(commands, done)


def test_the_writes_of_a_frame_are_proposed_together_and_answered_each(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        assert isinstance(node, Watched)
        replies = await client.ask(
            ["put", 1, "k", b"v"],
            ["put", 2, "k", b"v", 7],
            ["status", 3],
            ["put", 4, "", b"no key"],
            ["delete", 5, "k"],
            ["send", 6, "hi"],
        )
        assert node.proposed == [4]
        codes = {reply[0]: reply[1] and reply[1]["code"] for reply in replies}
        assert codes == {1: None, 2: "conflict", 3: None, 4: "bad_request", 5: None, 6: None}
        indexes = {reply[0]: reply[2]["index"] for reply in replies if reply[0] in (1, 5, 6)}
        assert indexes == {1: 1, 5: 3, 6: 4}

    with_node(tmp_path, check, Watched())


def test_many_or_large_writes_of_a_frame_are_proposed_in_portions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_TOGETHER", 3)
    monkeypatch.setattr(changes, "MAX_TOGETHER_BYTES", 100)

    async def check(client: RawClient, node: SingleNode) -> None:
        assert isinstance(node, Watched)
        await client.ask(*(["put", number, "k", b""] for number in range(7)))
        assert node.proposed == [3, 3, 1]
        node.proposed.clear()
        await client.ask(*(["put", size, "k", bytes(size)] for size in (60, 30, 20, 500, 1)))
        assert node.proposed == [2, 1, 1, 1]

    with_node(tmp_path, check, Watched())


def test_writes_that_a_bug_keeps_from_being_proposed_are_answered(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.is_broken = True  # type: ignore[attr-defined]
        replies = await client.ask(["put", 1, "k", b"v"], ["status", 2], ["put", 3, "k", b"v"])
        codes = [reply[1] and reply[1]["code"] for reply in replies]
        assert codes == ["internal", None, "internal"]
        node.is_broken = False  # type: ignore[attr-defined]
        [done] = await client.ask(["put", 1, "k", b"v"])
        assert done[1] is None

    with_node(tmp_path, check, Watched())


class Asker(Caller):
    """Keeps its answers: the index of each write, or the code of what was in its way."""

    def __init__(self) -> None:
        super().__init__(Principal("somebody", Role.ADMIN))
        self.answers: list[tuple[int, int | ErrorCode]] = []

    def reply(self, request_id: int, result: object, data_bytes: int = 0) -> None:  # noqa: ARG002
        index = result.index if isinstance(result, protocol.WriteResult) else 0
        self.answers.append((request_id, index))

    def fail(self, request_id: int, error: Error) -> None:
        self.answers.append((request_id, error.code))

    def push(self, stream_id: int, item: object, data_bytes: int) -> None:
        raise NotImplementedError

    def push_end(self, stream_id: int, error: Error) -> None:
        raise NotImplementedError

    def forget_pushes(self, stream_id: int) -> None:
        raise NotImplementedError

    def unsent_bytes(self) -> int:
        return 0


def _in_one_turn(node: SingleNode, *frames: list[protocol.Request]) -> list[Asker]:
    """Whoever asked, each one frame, once all are answered."""
    askers = [Asker() for _ in frames]

    async def ask() -> None:
        handlers = RequestHandlers(node, Crowd([]))
        for asker, frame in zip(askers, frames, strict=True):
            handlers.handle_all(asker, frame)
        while any(asker.in_flight for asker in askers):
            await asyncio.sleep(0)

    asyncio.run(ask())
    return askers


def _put(number: int, key: str = "k") -> protocol.Put:
    return protocol.Put(number, key, b"v")


def test_small_writes_of_many_clients_in_one_turn_are_one_batch_in_the_order_they_came() -> None:
    node = Watched()
    askers = _in_one_turn(node, [_put(7)], [_put(7), _put(8)], [_put(9)], [_put(7)])
    assert (node.proposed, node.batches) == ([1, 4], 1)
    assert [asker.answers for asker in askers] == [[(7, 1)], [(7, 2), (8, 3)], [(9, 4)], [(7, 5)]]


def test_enough_writes_of_many_clients_do_not_wait_for_the_end_of_the_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "_ENOUGH", 3)
    node = Watched()
    _in_one_turn(node, *([_put(1)] for _ in range(6)))
    assert node.proposed == [1, 3, 2]


class Choosy(Watched):
    """Refuses leases as a leader does that does not know them, with all that comes with them."""

    def propose(self, commands: Sequence[Command], done: Callable[[Outcome], None]) -> None:
        if any(isinstance(command, GrantLease) for command in commands):
            failure = Failure(ErrorCode.NOT_IN_THIS_VERSION, "leases are not known")
            asyncio.get_running_loop().call_soon(done, failure)
        else:
            super().propose(commands, done)


def test_a_command_that_is_refused_takes_no_other_client_with_it() -> None:
    grant = protocol.LeaseGrant(5, 10_000)
    askers = _in_one_turn(Choosy(), [_put(1)], [_put(2)], [_put(3), grant], [_put(4)])
    refused = (5, ErrorCode.NOT_IN_THIS_VERSION)
    assert [asker.answers for asker in askers] == [[(1, 1)], [(2, 2)], [(3, 3), refused], [(4, 4)]]
