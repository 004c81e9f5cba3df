"""Every event of a run, as text that one can read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from raft_agent.consensus import types
from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import Effect, Event, Received, Send

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.process import Process

# What the trace's hash calls each event and message.
EVENT_NUMBERS = {
    kind: number
    for number, kind in enumerate((*types.Event.__args__, *types.Message.__args__), start=1)
}


class Tracer:
    """Writes one line per event, effect and fault through `write`."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._cluster: Cluster | None = None

    def begin(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def event(self, process: Process, event: Event) -> None:
        if isinstance(event, Received):
            text = f"<- {self._name(event.sender)} {self._fields(event.message)}"
        else:
            text = self._fields(event)
        self._line(process.name, text)

    def effect(self, process: Process, effect: Effect) -> None:
        if isinstance(effect, Send):
            text = f"-> {self._name(effect.to)} {self._fields(effect.message)}"
            if effect.after_log or effect.after_vote:
                text += f" after log {effect.after_log} vote {effect.after_vote}"
        else:
            text = self._fields(effect)
        self._line(process.name, f"    {text}")

    def fault(self, text: str) -> None:
        self._line("***", text)

    def _line(self, who: str, text: str) -> None:
        now_us = self._cluster.clock.now_us if self._cluster else 0
        self._write(f"{now_us / 1e6:10.6f} {who:7} {text}")

    def _name(self, member_id: int) -> str:
        for process in self._cluster.processes if self._cluster else ():
            if process.member_id == member_id:
                return process.name
        return f"{member_id:016x}"

    def _fields(self, thing: msgspec.Struct) -> str:
        told = [type(thing).__name__]
        for name in thing.__struct_fields__:
            value = getattr(thing, name)
            if isinstance(value, tuple) and value and isinstance(value[0], Batch):
                value = [f"{b.first_index}..{b.last_index}@{b.term}" for b in value]
            elif isinstance(value, Batch):
                value = f"{value.first_index}..{value.last_index}@{value.term}"
            elif isinstance(value, bytes):
                value = f"{len(value)} bytes"
            elif name in ("voted_for", "leader", "peer", "target") and isinstance(value, int):
                value = self._name(value) if value else "-"
            told.append(f"{name}={value}")
        return " ".join(told)
