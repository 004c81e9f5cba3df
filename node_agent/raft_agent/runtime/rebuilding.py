"""`raftctl rebuild`: the disk is mended at the next start, and that one follows at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode, RebuildResult
from raft_agent.consensus.node import Node
from raft_agent.storage.errors import StorageError
from raft_agent.storage.mending import OnlyVoterError, check_refillable, request_mending

_NOBODY_REFILLS = (
    "Nobody can refill it. Restore a backup: raftctl snapshot restore FILE --data-dir NEW_DIR. "
    "Without one, --force cuts the log in front of the damage; then go on with what is left: "
    "raftctl recover --accept-data-loss"
)

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

    def rebuild(self, reason: str, force: bool, done: Done) -> None:
        """`reason`: what is wrong with what is thrown away; `force`: also when that is the end of
        a log that nobody can refill."""

        def go_on(noted: asyncio.Future[None]) -> None:
            error = noted.exception()
            if isinstance(error, OnlyVoterError):
                text = f"This node is the only voter, and its log is damaged: {error}"
                done(Failure(ErrorCode.REFUSED, text, _NOBODY_REFILLS))
                return
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
            None, _request, self._data_dir, force, log.last_term, log.last_index
        )
        noting.add_done_callback(go_on)


def _request(data_dir: Path, force: bool, last_term: int, last_index: int) -> None:
    """Blocks; raises OnlyVoterError and OSError."""
    if not force:
        # What else is wrong with the files, the next start says.
        with contextlib.suppress(StorageError):
            check_refillable(data_dir)
    request_mending(data_dir, last_term, last_index)
