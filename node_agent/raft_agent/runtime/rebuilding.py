"""`raftctl rebuild`: the disk is mended at the next start, and that one follows at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode, RebuildResult
from raft_agent.consensus.node import Node
from raft_agent.storage.mending import request_mending

Done = Callable[[RebuildResult | Failure], None]


class Rebuilder:
    """`end` has the node start anew."""

    def __init__(
        self,
        node: Node,
        data_dir: Path,
        loop: asyncio.AbstractEventLoop,
        *,
        tell: Callable[..., None],
        end: Callable[[], None],
    ) -> None:
        self._node = node
        self._data_dir = data_dir
        self._loop = loop
        self._tell = tell
        self._end = end

    def rebuild(self, reason: str, done: Done) -> None:
        """`reason`: what is wrong with what is thrown away."""

        def go_on(noted: asyncio.Future[None]) -> None:
            error = noted.exception()
            if error is not None:
                text = f"The data directory can't be written: {error}"
                hint = (
                    "Make room on that disk, or see that the agent may write there, and ask again"
                )
                done(Failure(ErrorCode.STORAGE_FAILED, text, hint))
                return
            self._tell("rebuilding", reason=reason)
            done(RebuildResult(reason))
            self._end()

        log = self._node.log
        noting = self._loop.run_in_executor(
            None, request_mending, self._data_dir, log.last_term, log.last_index
        )
        noting.add_done_callback(go_on)
