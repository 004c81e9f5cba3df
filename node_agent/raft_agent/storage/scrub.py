"""Reads the log and the snapshots again from time to time, slowly, in a thread of its own.

A bit that turns on the medium is otherwise found when somebody needs it: at the next start, or when
a member is behind. Until then a second member may go bad in the same place.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial

from raft_agent import platform
from raft_agent.storage.errors import StorageError
from raft_agent.storage.files import shortage
from raft_agent.storage.index import LogIndex
from raft_agent.storage.reader import read_batches
from raft_agent.storage.snapshots import SnapshotStore

_PIECE_BYTES = 1 << 20
_BYTES_PER_S = 8 << 20
# Reading takes one part in so many of the time, however much there is to read.
_SHARE = 10


class Scrubber:
    """`interval_s`: from the end of one round to the next, or longer. `on_log_damaged` comes at
    most once and ends the rounds, `on_snapshot_damaged` (index, what is wrong) once for each; both
    are called through `post`."""

    def __init__(
        self,
        index: LogIndex,
        snapshots: SnapshotStore,
        *,
        interval_s: float,
        post: Callable[[Callable[[], None]], None],
        on_log_damaged: Callable[[StorageError], None],
        on_snapshot_damaged: Callable[[int, str], None],
    ) -> None:
        self._index = index
        self._snapshots = snapshots
        self._interval_s = interval_s
        self._post = post
        self._on_log_damaged = on_log_damaged
        self._on_snapshot_damaged = on_snapshot_damaged
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raft-scrub", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        pause_s = self._interval_s
        while not self._stopped.wait(pause_s):
            began_s = time.monotonic()
            self._read_snapshots()
            try:
                self._read_log()
            except StorageError as error:
                # What can't be opened now says nothing of what it holds: the next round reads it.
                if not shortage(error):
                    self._post(partial(self._on_log_damaged, error))
                    return
            took_s = time.monotonic() - began_s
            pause_s = max(self._interval_s, (_SHARE - 1) * took_s)

    def _read_log(self) -> None:
        from_index, path = self._index.first_index, ""
        while not self._stopped.is_set():
            place = self._index.find(from_index)
            if place is None:
                return
            if place.path != path:
                path = place.path
                _forget_cached(path)
            batches = read_batches(self._index, from_index, _PIECE_BYTES)
            if not batches:
                return
            from_index = batches[-1].last_index + 1
            self._rest(sum(len(batch.record) for batch in batches))

    def _read_snapshots(self) -> None:
        for index, path in self._snapshots.sound_files():
            _forget_cached(path)
            unrested = 0
            try:
                for block in self._snapshots.blocks(index):
                    unrested += len(block)
                    if unrested >= _PIECE_BYTES:
                        self._rest(unrested)
                        unrested = 0
                    if self._stopped.is_set():
                        return
            except StorageError as error:
                if not shortage(error) and self._snapshots.doubt(index):
                    self._post(partial(self._on_snapshot_damaged, index, str(error)))

    def _rest(self, size_bytes: int) -> None:
        self._stopped.wait(size_bytes / _BYTES_PER_S)


def _forget_cached(path: str) -> None:
    """Have what follows read from the medium."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return  # whoever reads it says so
    try:
        platform.forget_cached(fd)
    finally:
        os.close(fd)
