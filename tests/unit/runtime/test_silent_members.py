"""A new node that asks to be added by itself, and the members that it asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from raft_agent.api import protocol
from raft_agent.runtime import joining
from raft_agent.runtime.joining import Applicant
from raft_agent.transport.transport import PeerTarget


class Network:
    """Members by address; `answers` has what each says to a request, None while it hangs."""

    def __init__(self, *addresses: str) -> None:
        self.ids = {address: number for number, address in enumerate(addresses, 1)}
        self.asked: asyncio.Queue[tuple[int, protocol.Request]] = asyncio.Queue()
        self.hanging: set[int] = set()

    def set_peers(self, targets: Sequence[PeerTarget]) -> None:
        assert {target.address for target in targets} == set(self.ids)

    def peer_at(self, address: str) -> int:
        return self.ids[address]

    def forward(self, to: int, body: bytes, on_reply: Callable[[bytes | None, bool], None]) -> None:
        self.asked.put_nowait((to, protocol.REQUEST_DECODER.decode(body)))
        if to not in self.hanging:
            on_reply(protocol.ENCODER.encode((1, None, protocol.ChallengeResult(b"n"))), True)


def test_a_member_that_hangs_does_not_keep_a_new_node_from_asking_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joining, "_PATIENCE_S", 0.01)

    async def main() -> None:
        network: Any = Network("a:1", "b:1")
        network.hanging.add(1)
        applicant = Applicant(
            token="t",
            name="node-04",
            address="c:1",
            targets=("a:1", "b:1"),
            transport=network,
            is_fresh=lambda: True,
            tell=lambda _kind, **_facts: None,
        )
        applicant.start()
        try:
            async with asyncio.timeout(10):
                assert (await network.asked.get())[0] == 1
                assert (await network.asked.get())[0] == 2
        finally:
            applicant.stop()

    with asyncio.Runner() as runner:
        runner.run(main())
