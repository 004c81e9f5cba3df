"""What the log says of exported maps, handed over to whoever keeps them: no clock, no I/O.

`export_side.py` does this in the agent's loop, the simulator on its own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from raft_agent.kernel.export_jobs import Beat, Change, Declare, Fill, Job
from raft_agent.machine.exports import Shape
from raft_agent.machine.machine import Machine

_END = object()


class ExportFeed:
    """`put` takes a job, `done` says how many entries and changes of the jobs were taken in.
    `is_current`: it is known that this node has had all that was acknowledged up to some moment.
    `tell` as the agent's events. `piece`: so many keys are read from the machine in one turn. When
    `max_waiting` changes wait to be written they are left out, and all is handed over anew once
    `few_waiting` do.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        put: Callable[[Job], None],
        done: Callable[[], int],
        is_current: Callable[[], bool],
        tell: Callable[..., None],
        piece: int = 500,
        max_waiting: int = 200_000,
        few_waiting: int = 20_000,
    ) -> None:
        self._machine = machine
        self._put = put
        self._done = done
        self._is_current = is_current
        self._tell = tell
        self._piece = piece
        self.max_waiting = max_waiting
        self.few_waiting = few_waiting
        # What the maps held before this start; None: not seen yet.
        self._found_index: int | None = None
        # From the first Declare on, but for the time in which too much waits.
        self._follows = False
        self._declared_index = 0
        # Those of which all was handed over. A name that was removed and exported anew meanwhile
        # has another Shape, though it may be an equal one.
        self._handed: dict[str, Shape] = {}
        self._put_count = 0
        self._steps: Iterator[None] | None = None

    # --- what the node tells

    def found(self, index: int) -> None:
        """The maps that are there are of this index of the log."""
        self._found_index = index
        self._begin_if_due()

    def applied(self, index: int) -> None:
        """The machine has applied all up to here."""
        if not self._follows:
            self._begin_if_due()
            return
        exports = self._machine.exports
        if exports.declared_index != self._declared_index:
            self._declare(anew=False)
        elif exports.changes:
            if self.waiting > self.max_waiting:
                self._fall_behind()
                return
            changes, exports.changes = exports.changes, []
            self._put_count += len(changes)
            self._put(Change(changes, index))

    def adopted(self) -> None:
        """The machine has another state, from a snapshot."""
        if self._follows:
            self._declare(anew=True)

    def beat(self, *, term: int, leader_id: int, role: int, fresh_until_ns: int) -> None:
        """How things stand, told now and then."""
        if self._follows:
            self._put(Beat(self._machine.last_applied, term, leader_id, role, fresh_until_ns))
        else:
            self._begin_if_due()

    def stop(self) -> None:
        """Nothing more is handed over."""
        self._follows = False
        self._steps = None

    # --- handing over

    @property
    def waiting(self) -> int:
        """How many entries and changes were handed over and not taken in."""
        return self._put_count - self._done()

    @property
    def has_more(self) -> bool:
        """Whether some of what maps hold is still to be handed over."""
        return self._steps is not None

    def step(self) -> None:
        """Hand over a piece of that, in a turn of its own."""
        if self._steps is None:
            return
        try:
            is_over = next(self._steps, _END) is _END
        except BaseException:
            self._steps = None
            raise
        if is_over:
            self._steps = None

    def _begin_if_due(self) -> None:
        """Maps outlive the agent, and its log may be behind them when it starts: what they hold
        must not go back. All of them are of this log only if it comes to their index; once the node
        is current without that, they are of another one."""
        found = self._found_index
        if found is None or self.waiting > self.few_waiting:
            return
        if self._machine.last_applied >= found or self._is_current():
            self._follows = True
            self._declare(anew=True)

    def _fall_behind(self) -> None:
        """The kernel takes more time than the log: no memory is spent on what waits."""
        self._follows = False
        # Nor are maps called complete that lack what is left out from here on.
        self._steps = None
        self._machine.exports.track(wanted=False)
        self._tell("export_behind", waiting=self.waiting)

    def _declare(self, *, anew: bool) -> None:
        exports = self._machine.exports
        if anew:
            exports.track(wanted=True)
            self._handed = {}
        self._declared_index = exports.declared_index
        shapes = tuple(exports)
        self._handed = {
            name: shape for name, shape in self._handed.items() if exports.get(name) is shape
        }
        exports.changes = [change for change in exports.changes if change.map in self._handed]
        # Before the index moves: what is gone must not be found at it.
        self._put(Declare(shapes, anew))
        self._put_changes()
        self._steps = self._hand_over(shapes)

    def _put_changes(self, *, completes: bool = False) -> None:
        exports = self._machine.exports
        changes, exports.changes = exports.changes, []
        self._put_count += len(changes)
        self._put(Change(changes, self._machine.last_applied, completes))

    def _hand_over(self, shapes: tuple[Shape, ...]) -> Iterator[None]:
        """What maps hold that are not known, in pieces; what changes meanwhile follows its key's
        piece, or is in it."""
        unknown = [shape for shape in shapes if shape.export.map not in self._handed]
        for shape in unknown:
            after, more = "", True
            while more:
                entries, more = self._machine.list(shape.export.prefix, self._piece, after)
                self._put_count += len(entries)
                self._put(Fill(shape.export.map, entries))
                after = entries[-1].key if entries else after
                yield
        self._handed.update((shape.export.map, shape) for shape in unknown)
        self._put_changes(completes=True)
