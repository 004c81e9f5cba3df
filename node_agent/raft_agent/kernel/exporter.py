"""The thread that keeps exported maps as the log says.

It takes what the event loop hands over in order: what is exported, what the maps hold from the
beginning, then changes batch by batch, and how current the node is. So what it has written is
always what the log says up to one index, and the status names that index. When a map can't be had
or written the others go on, nothing is fresh any more, and it is tried again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec

from raft_agent.kernel.export_layout import ExportState, Status, pin_name
from raft_agent.kernel.exported import ExportedMap, ExportError, StatusMap, forget_others
from raft_agent.kernel.libbpf import KernelUnavailable
from raft_agent.machine.exports import MapChange, Shape

log = logging.getLogger("raft.kernel")

# Somebody else's writes are found within this time, and what failed is tried again.
MEND_S = 10.0


class Declare(msgspec.Struct, frozen=True):
    """These are exported, and what they hold is about to come anew."""

    shapes: tuple[Shape, ...]


class Fill(msgspec.Struct, frozen=True):
    """Part of what the map holds."""

    map: str
    entries: list[tuple[bytes, bytes]]


class Change(msgspec.Struct, frozen=True):
    """What has changed up to `index`. The first one behind a Declare and all of its Fills has
    `is_filled`: what the maps hold is complete with it."""

    changes: list[MapChange]
    index: int
    is_filled: bool = False


class Beat(msgspec.Struct, frozen=True):
    """How things stand once everything that was handed over before is in the maps. `index`: the
    last entry that is applied."""

    index: int
    term: int
    leader_id: int
    role: int
    fresh_until_ns: int


class Ask(msgspec.Struct, frozen=True):
    """What the kernel has in this map; `answer` is called in the thread."""

    map: str
    answer: Callable[[list[tuple[bytes, bytes]] | str], None]


class _Stop(msgspec.Struct, frozen=True):
    pass


Job: TypeAlias = Declare | Fill | Change | Beat | Ask | _Stop


class Exporter:
    """`tell(kind, **facts)` is called in the thread when something happens; `written(index,
    changes)` when these changes are in the maps.
    """

    def __init__(
        self,
        directory: Path,
        tell: Callable[..., None],
        written: Callable[[int, list[MapChange]], None],
    ) -> None:
        self._directory = directory
        self._tell = tell
        self._written = written
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="raft-exports", daemon=True)
        self._maps: dict[str, ExportedMap] = {}
        self._status_map = StatusMap(directory)
        self._status = Status()
        self._fresh_until_ns = 0
        self._filling = True
        self._early: list[MapChange] = []
        self._mend_at = 0.0
        self.problems: dict[str, str] = {}
        """What is wrong, by map ("" for all of them); replaced whole, so any thread may read it."""

    def start(self) -> None:
        self._thread.start()

    def put(self, job: Job) -> None:
        """From the event loop."""
        self._jobs.put(job)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return self._jobs.qsize()

    def stop(self) -> None:
        """End the thread once it has done what it was given; the maps stay. Blocks."""
        if self._thread.is_alive():
            self._jobs.put(_Stop())
            self._thread.join()

    @property
    def status(self) -> Status:
        return self._status

    # --- the thread

    def _run(self) -> None:
        while True:
            wait_s = max(self._mend_at - time.monotonic(), 0.0) if self._mend_at else None
            try:
                job = self._jobs.get(timeout=wait_s)
            except queue.Empty:
                self._mend(is_new=False)
                continue
            if isinstance(job, _Stop):
                self._close()
                return
            try:
                self._do(job)
            except Exception as error:
                # The cluster is as correct without it.
                log.exception("exported maps are given up")
                self._fail("", f"gave up, see the log ({error}); please report it")

    def _do(self, job: Job) -> None:
        if isinstance(job, Change):
            self._change(job)
        elif isinstance(job, Beat):
            self._beat(job)
        elif isinstance(job, Fill):
            found = self._maps.get(job.map)
            if found is not None:
                found.wanted.update(job.entries)
        elif isinstance(job, Declare):
            self._declare(job)
        elif isinstance(job, Ask):
            self._answer(job)

    def _declare(self, job: Declare) -> None:
        self._filling = True
        self._mend_at = 0.0
        for found in self._maps.values():
            found.close()
        self._maps = {shape.export.map: ExportedMap(self._directory, shape) for shape in job.shapes}
        self._put_status(state=ExportState.FILLING)

    def _change(self, job: Change) -> None:
        if job.is_filled:
            self._filling = False
            for change in job.changes:
                self._note(change)
            self._status = msgspec.structs.replace(self._status, applied_index=job.index)
            self._mend(is_new=True)
            self._written(job.index, [])
            return
        if self._filling:
            for change in job.changes:
                self._note(change)
            return
        if job.changes:
            self._put_status(writing_index=job.index)
            self._write(job.changes)
        self._put_status(applied_index=job.index, writing_index=job.index)
        if job.changes:
            self._written(job.index, job.changes)

    def _note(self, change: MapChange) -> None:
        """Nothing is written while not all is known that a map should hold."""
        found = self._maps.get(change.map)
        if found is None:
            return
        if change.value is None:
            found.wanted.pop(change.key, None)
        else:
            found.wanted[change.key] = change.value

    def _write(self, changes: list[MapChange]) -> None:
        by_map: dict[str, list[MapChange]] = {}
        for change in changes:
            by_map.setdefault(change.map, []).append(change)
        for name, of_map in by_map.items():
            found = self._maps.get(name)
            if found is None:
                continue
            try:
                found.write(of_map)
            except OSError as error:
                self._fail(name, str(error))

    def _beat(self, job: Beat) -> None:
        self._fresh_until_ns = job.fresh_until_ns
        told = {"term": job.term, "leader_id": job.leader_id, "role": job.role}
        if not self._filling:
            told |= {"applied_index": job.index, "writing_index": job.index}
        self._put_status(**told)

    def _put_status(self, **changes: int) -> None:
        """Freshness is for maps that are complete and right."""
        is_right = not self._filling and not self.problems
        if not self._filling and "state" not in changes:
            changes["state"] = ExportState.DEGRADED if self.problems else ExportState.READY
        changes["fresh_until_ns"] = self._fresh_until_ns if is_right else 0
        status = msgspec.structs.replace(self._status, **changes)
        if status == self._status:
            return
        self._status = status
        try:
            self._status_map.write(status)
        except OSError as error:
            self._fail("", str(error))

    # --- what keeps them right

    def _mend(self, *, is_new: bool) -> None:
        """Compare the kernel's maps with what they should be, and make the difference good."""
        self._mend_at = time.monotonic() + MEND_S
        problems: dict[str, str] = {}
        try:
            self._directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._status_map.ensure()
            forget_others(self._directory, {pin_name(one.shape) for one in self._maps.values()})
        except (OSError, ExportError, KernelUnavailable) as error:
            problems[""] = self._in_words(error)
        for name, found in self._maps.items():
            try:
                differed = found.mend()
            except (OSError, ExportError, KernelUnavailable) as error:
                problems[name] = self._in_words(error)
                continue
            if differed and not is_new and name not in self.problems:
                self._tell("export_repaired", map=name, entries=differed)
        self._say(problems)
        self._put_status(writing_index=self._status.applied_index)

    def _in_words(self, error: Exception) -> str:
        if isinstance(error, PermissionError):
            return (
                f"{error.strerror or error}: it takes CAP_BPF and a pin_dir on a BPF file system "
                f"that this user may write to ({self._directory})"
            )
        return str(error)

    def _fail(self, name: str, reason: str) -> None:
        self._say({**self.problems, name: reason})
        self._mend_at = min(self._mend_at or float("inf"), time.monotonic() + MEND_S)

    def _say(self, problems: dict[str, str]) -> None:
        before, self.problems = self.problems, problems
        for name, reason in problems.items():
            if before.get(name) != reason:
                self._tell("export_degraded", map=name or "all", reason=reason)
        for name in before.keys() - problems.keys():
            self._tell("export_mended", map=name or "all")

    def _answer(self, job: Ask) -> None:
        found = self._maps.get(job.map)
        if found is None:
            job.answer(f"no map {job.map} is exported at this node")
            return
        try:
            job.answer(found.entries())
        except OSError as error:
            job.answer(str(error))

    def _close(self) -> None:
        self._put_status(state=ExportState.STOPPED, role=4)
        for found in self._maps.values():
            found.close()
        self._status_map.close()
