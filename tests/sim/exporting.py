"""Exported maps of simulated nodes: the agent's own feed and keeper over a simulated kernel, and
what any reader of the maps may count on.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from raft_agent.kernel.export_jobs import Job, together
from raft_agent.kernel.export_keeper import Keeper
from raft_agent.kernel.export_layout import ExportState, pin_name
from raft_agent.machine.exports import MapChange, Shape
from raft_agent.machine.machine import Machine
from raft_agent.runtime.export_feed import ExportFeed
from tests.sim.kernels import Killed, SimKernel
from tests.sim.violation import Violation, require

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.process import Process

Content: TypeAlias = dict[bytes, bytes]

FRESH_US = 400_000
_PIECE = 2
_MAX_WAITING, _FEW_WAITING = 8, 4
_MEND_S = 0.5
_STALLS = 0.02
_NS_PER_US = 1000
# Between two looks of a thread that has nothing to do at what it should mend.
_PAUSE_S = 0.001


class Exports:
    """One process's. The thread that writes maps is slow by `export_lag_us` of the options."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._rng = process.cluster.rng(f"exports/{process.index}")
        self.kernel = self._new_kernel()
        self._boot = 0

    @property
    def are_on(self) -> bool:
        return self._process.cluster.options.clients.exports > 0

    def _new_kernel(self) -> SimKernel:
        self._wrong: Exception | None = None
        return SimKernel(self._rng, self._is_looked_at)

    def _is_looked_at(self) -> None:
        """The keeper goes on after any error, so one of a check has to wait until it is through."""
        try:
            self._process.cluster.export_checks.seen(self._process)
        except Violation as found:
            self._wrong = self._wrong or found

    # --- the process's life

    def lost_power(self) -> None:
        """The machine was off: maps live in its memory."""
        self.kernel = self._new_kernel()

    def begin(self) -> None:
        """The process starts, with the machine that it has read from its disk."""
        self._boot = self._process.boots
        if not self.are_on:
            return
        self.kernel.dies_in = None
        self._jobs: deque[Job] = deque()
        self._is_working = False
        self._is_walking = False
        process = self._process
        self._keeper = Keeper(self.kernel, self, lambda: process.clock.now_us() / 1e6, _MEND_S)
        self._feed = ExportFeed(
            process.machine,
            put=self._put,
            done=lambda: self._keeper.done,
            is_current=self._is_current,
            tell=self.happened,
            piece=_PIECE,
            max_waiting=_MAX_WAITING,
            few_waiting=_FEW_WAITING,
        )
        self._later(self._lag_us(), self._begin_keeping)
        self._beat()

    def _later(self, delay_us: int, action: object, *arguments: object) -> None:
        process = self._process
        process.cluster.clock.after(
            delay_us, process.run, self._now, process.boots, action, arguments
        )

    def _now(self, boot: int, action: object, arguments: tuple[object, ...]) -> None:
        if boot == self._boot == self._process.boots and callable(action):
            action(*arguments)

    # --- the loop's side

    def applied(self, index: int) -> None:
        if self.are_on:
            self._feed.applied(index)
            self._walk_on()

    def adopted(self) -> None:
        if self.are_on:
            self._feed.adopted()
            self._walk_on()

    def _is_current(self) -> bool:
        return self._current_as_of_us() > 0

    def _current_as_of_us(self) -> int:
        node = self._process.node
        return 0 if node is None or node.state.diverged_index else node.state.current_as_of_us

    def _beat(self) -> None:
        process, node = self._process, self._process.node
        self._later(process.cluster.options.settings.heartbeat_interval_us, self._beat)
        if node is None:
            return
        as_of_us = self._current_as_of_us()
        self._feed.beat(
            term=node.current_term,
            leader_id=node.leader_id,
            role=0,
            fresh_until_ns=(as_of_us + FRESH_US) * _NS_PER_US if as_of_us else 0,
        )
        self._walk_on()

    def _walk_on(self) -> None:
        if self._feed.has_more and not self._is_walking:
            self._is_walking = True
            self._later(0, self._step)

    def _step(self) -> None:
        self._is_walking = False
        if self._feed.waiting > self._feed.few_waiting:
            self._is_walking = True
            self._later(10_000, self._step)
        elif self._feed.has_more:
            self._feed.step()
            self._walk_on()

    # --- the thread's side

    def _lag_us(self) -> int:
        """Now and then the machine has other things to do."""
        cluster = self._process.cluster
        longest_us = cluster.options.export_lag_us
        if not cluster.oracle.has_stopped and self._rng.random() < _STALLS:
            longest_us *= 50
        return 1 + int(self._rng.random() * longest_us)

    def _begin_keeping(self) -> None:
        self._guarded(self._keeper.begin)
        self._work_on()

    def _put(self, job: Job) -> None:
        self._jobs.append(job)
        if self._is_working:
            return
        self._work_on()

    def _work_on(self) -> None:
        """Have the thread look for work: at once when there is some, else when it is patient no
        longer."""
        patience_s = self._keeper.patience_s(_PAUSE_S)
        if self._jobs:
            self._is_working = True
            self._later(self._lag_us(), self._work)
        elif patience_s is not None:
            self._later(1 + int(patience_s * 1e6), self._look)

    def _look(self) -> None:
        if not self._is_working and not self._jobs:
            self._guarded(lambda: self._keeper.do(None))
            self._work_on()

    def _work(self) -> None:
        self._is_working = False
        job, back = together(self._jobs.popleft(), self._take)
        if back is not None:
            self._jobs.appendleft(back)
        self._guarded(lambda: self._keeper.do(job))
        self._work_on()

    def _take(self) -> Job | None:
        return self._jobs.popleft() if self._jobs else None

    def _guarded(self, work: object) -> None:
        process = self._process
        try:
            assert callable(work)
            work()
        except Killed:
            process.cluster.seen["killed_while_it_exports"] += 1
            process.cluster.clock.after(0, process.cluster.faults.kill, process, process.boots)
            self._boot = 0  # the thread is gone before the rest
        if self._wrong is not None:
            raise self._wrong

    # --- what it tells

    def found(self, index: int) -> None:
        self._later(0, self._found, index)

    def _found(self, index: int) -> None:
        self._feed.found(index)
        self._walk_on()

    def happened(self, kind: str, **facts: int | str) -> None:
        self._process.cluster.seen[kind] += 1
        if "a fault of this program" in str(facts.get("reason", "")):
            self._wrong = self._wrong or Violation(f"{self._process.name}: {facts['reason']}")

    def written(self, index: int, changes: list[tuple[Shape, MapChange]]) -> None:
        del index
        self._process.cluster.seen["exported"] += len(changes)


class ExportChecks:
    """What readers of exported maps are promised, by what the store held behind each batch."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        # Behind which batches, and what all maps held there, by the names of their pins.
        self._indexes: list[int] = [0]
        self._states: list[dict[str, Content]] = [{}]
        self._shown: dict[SimKernel, int] = {}

    def applied(self, machine: Machine) -> None:
        """Some process has applied another batch; the first one tells what it came to."""
        index = machine.last_applied
        if self._cluster.options.clients.exports and index > self._indexes[-1]:
            self._indexes.append(index)
            state = {pin_name(shape): _content(machine, shape) for shape in machine.exports}
            self._states.append(self._states[-1] if state == self._states[-1] else state)

    def seen(self, process: Process) -> None:
        """A reader looks at this process's maps."""
        kernel = process.exports.kernel
        status = kernel.status
        if status is None:
            return
        first, last = status.applied_index, status.writing_index
        require(first <= last, "maps are ahead of what is written", process, status=status)
        require(
            first >= self._shown.get(kernel, 0),
            "the index of exported maps goes back",
            process,
            index=first,
        )
        self._shown[kernel] = first
        since = self._states[
            bisect_right(self._indexes, first) - 1 : bisect_right(self._indexes, last)
        ]
        for name, entries in kernel.maps():
            held = [state[name] for state in since if name in state]
            require(bool(held), "what is exported no longer is pinned", process, pin=name)
            for key in {*entries, *(key for content in held for key in content)}:
                require(
                    any(entries.get(key) == content.get(key) for content in held),
                    "a map holds what the log does not say",
                    process,
                    pin=name,
                    key=key,
                    value=entries.get(key),
                    held=held[-1].get(key),
                    applied=first,
                    writing=last,
                )
        if status.fresh_until_ns:
            self._is_fresh(process, status.fresh_until_ns, first)

    def _is_fresh(self, process: Process, until_ns: int, index: int) -> None:
        """While a copy counts as fresh it holds all that was acknowledged the bound ago."""
        as_of_us = until_ns // _NS_PER_US - FRESH_US
        known_at = self._cluster.checks.known_at
        place = bisect_left(known_at, as_of_us, key=lambda at: process.clock.at_us(at[0]))
        committed = known_at[place - 1][1] if place else 0
        require(
            index >= committed or process.clock.now_us() * _NS_PER_US >= until_ns,
            "a copy counts as fresh that lacks what was acknowledged",
            process,
            index=index,
            committed=committed,
        )

    def has_settled(self, process: Process) -> bool:
        """Whether this process's maps are at the end of the log, and say how fresh they are."""
        if not process.exports.are_on:
            return True
        kernel, status = process.exports.kernel, process.exports.kernel.status
        if status is None or status.applied_index != process.machine.last_applied:
            return False
        return (
            status.state == ExportState.READY
            and status.fresh_until_ns > 0
            and dict(kernel.maps()) == self._states[-1]
        )


def _content(machine: Machine, shape: Shape) -> Content:
    """What the store holds below the prefix, as the map's bytes."""
    entries, _ = machine.list(shape.export.prefix, 1 << 62)
    return {
        shape.encode_key(entry.key): shape.encode_value(entry.value, entry.revision)
        for entry in entries
    }
