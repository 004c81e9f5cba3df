"""The checks of a cluster that begins anew: each of its generations has its own."""

from __future__ import annotations

from typing import Any

from tests.sim.checks import Checks
from tests.sim.process import Process


class Eras:
    """The checks of each generation; a process is looked at by those that it belongs to."""

    def __init__(self, old: Checks) -> None:
        self._old = old
        self.new: Checks | None = None
        self.moved: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        latest = self.new or self._old
        value = getattr(latest, name)
        if not callable(value) or name in ("violation", "bind"):
            return value

        def check(process: Process, *more: Any) -> Any:
            checks = self.new if process.index in self.moved else self._old
            return getattr(checks, name)(process, *more)

        return check

    def begin(self, process: Process) -> None:
        """A generation may begin with all that this process has in its log."""
        had = process.disk.written
        self.new = self._old.begin_anew(had.copy(), process)
        self.move(process)

    def move(self, process: Process) -> None:
        self.moved.add(process.index)

    def take_back(self, process: Process) -> None:
        """It did not begin."""
        self.new = None
        self.moved.discard(process.index)
