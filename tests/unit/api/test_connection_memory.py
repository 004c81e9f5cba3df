"""The agent runs without full garbage collections: what is gone must go by its references."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import pytest

from raft_agent.api import connection
from tests.unit.api.single_node import SingleNode, run, serving


def test_a_connection_that_ended_is_not_kept_by_its_own_references(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[asyncio.Event] = []
    made: list[weakref.ref[connection.ClientConnection]] = []

    class Watched(connection.ClientConnection):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            ended[0].set()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.append(weakref.ref(self))

    monkeypatch.setattr("raft_agent.api.server.ClientConnection", Watched)

    async def main() -> None:
        ended.append(asyncio.Event())
        path = tmp_path / "s"
        async with serving(SingleNode(), path):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.close()
            await writer.wait_closed()
            await asyncio.wait_for(ended[0].wait(), 5)
            del reader, writer
            # The loop lets go of its own handles a turn later.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [reference() for reference in made] == [None]

    gc.collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()
