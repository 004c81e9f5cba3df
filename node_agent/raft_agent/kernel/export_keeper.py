"""Keeps exported maps as the log says, job by job.

What has been written is always what the log says up to one index, and the status names that index.
When a map can't be had or written the others go on, nothing is fresh any more, and it is tried
again. `exporter.py` does this in a thread, the simulator on its own clock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType

import msgspec

from raft_agent.kernel.export_jobs import (
    UNKNOWN_INDEX,
    Ask,
    Beat,
    Change,
    Declare,
    Fill,
    Job,
    Listener,
)
from raft_agent.kernel.export_layout import ExportState, NodeRole, Status, pin_name
from raft_agent.kernel.export_place import ExportError, Place
from raft_agent.kernel.exported import ExportedMap, StatusMap, forget_others
from raft_agent.kernel.libbpf import KernelUnavailable
from raft_agent.machine.exports import MapChange, Shape

log = logging.getLogger("raft.kernel")

_END = object()


class Keeper:
    """Keeps maps at `place`. `now_s`: a clock that never goes back. `mend_s`: so often it looks for
    somebody else's writes, and so long it waits before it tries again what failed."""

    def __init__(
        self,
        place: Place,
        listener: Listener,
        now_s: Callable[[], float],
        mend_s: float = 10.0,
    ) -> None:
        self._place = place
        self._mend_s = mend_s
        self._listener = listener
        self._now_s = now_s
        self._maps: dict[str, ExportedMap] = {}
        self._status_map = StatusMap(place)
        self._status = Status()
        # All of the log up to here was handed over.
        self._index = 0
        self._fresh_until_ns = 0
        # Whether the kernel's status is this one.
        self._is_shown = False
        # After a start or a snapshot: whether all was handed over, and whether all is in the maps.
        self._is_complete = False
        self._is_whole = False
        self._mending: Generator[None, None, None] | None = None
        self._mend_at = float("inf")
        self.done = 0
        """How many entries and changes were taken in since the start, for who hands them over."""
        self.problems: dict[str, str] = {}
        """What is wrong, by map ("" for all of them); replaced whole, so any thread may read it."""

    @property
    def status(self) -> Status:
        return self._status

    # --- its turns

    def begin(self) -> None:
        """See what an agent before this one has left."""
        self._guarded(self._begin)

    def do(self, job: Job | None) -> None:
        """This job, if any, and then a step of mending when there is one to do: so neither waits
        for the other."""
        if job is not None:
            self._guarded(lambda: self._do(job))
        if self._mending is None and self._now_s() >= self._mend_at:
            # Of the others not all has come that they should hold.
            self._mend([name for name, found in self._maps.items() if found.is_known])
        if self._mending is not None:
            self._guarded(self._go_on_mending)

    def close(self) -> None:
        """The maps stay."""
        self._guarded(self._close)

    def patience_s(self, pause_s: float) -> float | None:
        """How long to wait for a job at most; None: for ever. `pause_s`: between two steps of a
        look for somebody else's writes, which nobody waits for."""
        if self._mending is not None:
            return pause_s if self._is_whole else 0.0
        if self._mend_at == float("inf"):
            return None
        return max(self._mend_at - self._now_s(), 0.0)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            # The cluster is as correct without it.
            log.exception("the exported maps are not as they should be")
            self._mending = None
            self._fail("", f"a fault of this program, see its log ({error}); please report it")

    def _begin(self) -> None:
        index = 0
        try:
            index = self._look()
        except (OSError, ExportError, KernelUnavailable) as error:
            self._fail("", self._in_words(error))
        finally:
            self._listener.found(index)

    def _look(self) -> int:
        self._place.prepare()
        was_there = bool(self._place.names())
        self._status_map.ensure()
        status = self._status_map.read()
        if status is not None:
            # What it says of the maps holds on: nobody has written them since.
            self._status = status
        self._show(told={"role": NodeRole.NONE})
        if status is None:
            return UNKNOWN_INDEX if was_there else 0
        return max(status.applied_index, status.writing_index)

    def _do(self, job: Job) -> None:
        if isinstance(job, Change):
            self._change(job)
        elif isinstance(job, Beat):
            self._beat(job)
        elif isinstance(job, Fill):
            self.done += len(job.entries)
            found = self._maps.get(job.map)
            if found is not None:
                found.fill(job.entries)
        elif isinstance(job, Declare):
            self._declare(job)
        elif isinstance(job, Ask):
            self._answer(job)

    def _declare(self, job: Declare) -> None:
        self._mending = None
        old, self._maps = self._maps, {}
        for shape in job.shapes:
            name = shape.export.map
            found = old.get(name)
            if found is not None and (found.shape is shape or (job.anew and found.shape == shape)):
                del old[name]
                found.shape = shape
                if job.anew or not found.is_known:
                    found.forget()
            else:
                found = ExportedMap(self._place, shape)
            self._maps[name] = found
        for found in old.values():
            # At once: when the name is exported anew, nobody is to find the old entries there.
            found.remove()
        if job.anew:
            self._is_complete = self._is_whole = False
            self._show()

    def _change(self, job: Change) -> None:
        self.done += len(job.changes)
        by_map: dict[str, list[MapChange]] = {}
        for change in job.changes:
            by_map.setdefault(change.map, []).append(change)
        done: list[tuple[Shape, MapChange]] = []
        for name, changes in by_map.items():
            found = self._maps.get(name)
            if found is None:
                continue
            if not found.is_known:
                found.note(changes)
                continue
            self._show(writing=job.index)
            try:
                found.write(changes)
            except OSError as error:
                self._fail(name, str(error))
            else:
                done += [(found.shape, change) for change in changes]
        self._index = job.index
        if job.completes:
            self._is_complete = True
            for found in self._maps.values():
                found.is_known = True
            self._mend([name for name, found in self._maps.items() if not found.is_mended])
        self._show()
        if done:
            self._listener.written(job.index, done)

    def _beat(self, job: Beat) -> None:
        self._fresh_until_ns = job.fresh_until_ns
        self._index = job.index
        self._show(told={"term": job.term, "leader_id": job.leader_id, "role": job.role})

    def _show(self, *, writing: int = 0, told: Mapping[str, int] = MappingProxyType({})) -> None:
        """Write the status. `writing`: a batch up to there is about to be. Only maps that are
        complete and right are at an index, and fresh."""
        if self._is_whole:
            state = ExportState.DEGRADED if self.problems else ExportState.READY
        else:
            state = ExportState.FILLING
        changes = {"state": int(state), **told}
        if self.problems:
            changes["fresh_until_ns"] = 0
        if writing:
            changes["writing_index"] = writing
        elif self._is_whole:
            changes["writing_index"] = self._index
            if not self.problems:
                changes["applied_index"] = self._index
                changes["fresh_until_ns"] = self._fresh_until_ns
        self._write_status(msgspec.structs.replace(self._status, **changes))

    def _write_status(self, status: Status) -> None:
        if status == self._status and self._is_shown:
            return
        self._status = status
        try:
            self._is_shown = self._status_map.write(status)
        except OSError as error:
            self._is_shown = False
            self._fail("", str(error))

    # --- what keeps them right

    def _mend(self, names: list[str]) -> None:
        """Begin to compare these maps with what they should be, and to make the difference good."""
        self._mend_at = float("inf")
        self._mending = self._mend_all(names)

    def _go_on_mending(self) -> None:
        if self._mending is not None and next(self._mending, _END) is _END:
            self._mending = None
            self._mend_at = self._now_s() + self._mend_s

    def _mend_all(self, names: list[str]) -> Generator[None, None, None]:
        for_all: dict[str, str] = {}
        try:
            self._place.prepare()
            self._status_map.ensure()
            if self._is_complete:
                named = {pin_name(found.shape) for found in self._maps.values()}
                forget_others(self._place, named)
        except (OSError, ExportError, KernelUnavailable) as error:
            for_all[""] = self._in_words(error)
        if not self._is_whole:
            self._show(writing=self._index)
        for name in names:
            found = self._maps[name]
            is_new = not found.is_mended
            try:
                differed = yield from found.mend()
            except (OSError, ExportError, KernelUnavailable) as error:
                self._say({**self.problems, name: self._in_words(error)})
                continue
            if differed and not is_new and name not in self.problems:
                self._listener.happened("export_repaired", map=name, entries=differed)
            # Now, since what fails from here on is not mended.
            self._say({other: why for other, why in self.problems.items() if other != name})
        kept = {name: why for name, why in self.problems.items() if name in self._maps}
        self._say(kept | for_all)
        self._is_whole = self._is_complete
        # It may be somebody else's word that stands there.
        self._is_shown = False
        self._show()

    def _in_words(self, error: Exception) -> str:
        if isinstance(error, PermissionError):
            return (
                f"{error.strerror or error}: it takes CAP_BPF, a pin_dir on a BPF file system "
                f"that this user may write to ({self._place}) and, before Linux 5.11, leave to "
                "lock memory (LimitMEMLOCK=infinity in the agent's unit, or ulimit -l unlimited)"
            )
        return str(error)

    def _fail(self, name: str, reason: str) -> None:
        self._say({**self.problems, name: reason})
        self._mend_at = min(self._mend_at, self._now_s() + self._mend_s)

    def _say(self, problems: dict[str, str]) -> None:
        before, self.problems = self.problems, problems
        for name, reason in problems.items():
            if before.get(name) != reason:
                self._listener.happened("export_degraded", map=name or "all", reason=reason)
        for name in before.keys() - problems.keys():
            self._listener.happened("export_mended", map=name or "all")

    def _answer(self, job: Ask) -> None:
        found = self._maps.get(job.map)
        answer: list[tuple[bytes, bytes]] | str
        if found is None:
            answer = f"no map {job.map} is exported at this node"
        else:
            try:
                answer = found.entries(job.limit)
            except OSError as error:
                answer = str(error)
        job.answer(answer, self._status.applied_index)

    def _close(self) -> None:
        stopped = {"state": int(ExportState.STOPPED), "role": int(NodeRole.NONE)}
        self._write_status(msgspec.structs.replace(self._status, **stopped))
        for found in self._maps.values():
            found.close()
        self._status_map.close()
