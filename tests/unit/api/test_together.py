"""The writes of one frame go through the log together, and each has its own answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from raft_agent.api import changes
from raft_agent.api.host import Outcome
from raft_agent.machine.commands import Command
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
