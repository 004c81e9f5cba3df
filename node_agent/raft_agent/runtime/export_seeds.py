"""The maps that raft.toml names, declared once by whoever leads."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from raft_agent.api.host import Applied, Outcome
from raft_agent.config.model import ExportSeed
from raft_agent.consensus.node import Node
from raft_agent.machine.commands import AddExport, Command
from raft_agent.machine.exports import Export
from raft_agent.machine.machine import Machine
from raft_agent.machine.results import BadValue, LimitReached, WriteDone

Propose: TypeAlias = Callable[[Sequence[Command], Callable[[Outcome], None]], None]

_AGAIN_S = 2.0


class ExportSeeds:
    """Proposes those of `seeds` whose names the log has never seen: what somebody has changed or
    removed since stays so. `tell` as the agent's events."""

    def __init__(
        self,
        seeds: Sequence[ExportSeed],
        *,
        node: Node,
        machine: Machine,
        propose: Propose,
        loop: asyncio.AbstractEventLoop,
        tell: Callable[..., None],
    ) -> None:
        self._exports = [Export(**msgspec.structs.asdict(seed)) for seed in seeds]
        self._node = node
        self._machine = machine
        self._propose = propose
        self._loop = loop
        self._tell = tell
        self._leads = False
        # Those that this leadership has still to look at.
        self._due: list[Export] = []
        self._timer: asyncio.TimerHandle | None = None

    def role(self, leads: bool) -> None:
        """Whether this node leads from now on."""
        self._leads = leads
        self._due = list(self._exports) if leads else []
        if not leads:
            self.close()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def applied(self) -> None:
        """Something was applied. An entry of the own term is behind all that was committed before,
        so the log has told by then which names there were."""
        if self._due and self._machine.last_applied_term == self._node.current_term:
            due, self._due = self._due, []
            # Not now: in this turn the core is still about what was applied.
            self._loop.call_soon(self._declare, due)

    def _declare(self, due: Sequence[Export]) -> None:
        for export in due:
            if not self._machine.exports.was_declared(export.map):
                self._propose([AddExport(export)], functools.partial(self._done, export))

    def _done(self, export: Export, outcome: Outcome) -> None:
        if not isinstance(outcome, Applied):
            # The next leader does it, or this one again.
            self._timer = self._loop.call_later(_AGAIN_S, self._again)
            return
        (result,) = outcome.results
        if isinstance(result, WriteDone):
            self._tell("export_declared", map=export.map)
            return
        reason = result.reason if isinstance(result, BadValue) else str(result)
        if isinstance(result, LimitReached):
            reason = f"it would be more than {result.limit} {result.what}"
        self._tell("export_refused", map=export.map, reason=reason)

    def _again(self) -> None:
        if self._leads:
            self._due = list(self._exports)
            self.applied()
