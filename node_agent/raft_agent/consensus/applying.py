"""Handing committed batches to the state machine, in order, one portion at a time."""

from __future__ import annotations

from raft_agent.consensus.audit import Audit
from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.consensus.invariants import require
from raft_agent.consensus.state import RaftState
from raft_agent.consensus.types import Applied, Apply, LogRead, ReadLog

PURPOSE = 0


class Applying:
    """Keeps at most one `Apply` and one `ReadLog` under way."""

    def __init__(self, state: RaftState, audit: Audit) -> None:
        self._state = state
        self._audit = audit

    def pump(self) -> None:
        state = self._state
        if (
            state.installing
            or state.applying_to
            or state.read_for_apply
            or state.applied_index >= state.commit_index
        ):
            return
        next_index = state.applied_index + 1
        max_bytes = state.settings.max_apply_bytes
        batches = state.log.slice(next_index, state.commit_index, max_bytes)
        if batches is None:
            state.read_for_apply = next_index
            state.effects.append(ReadLog(PURPOSE, next_index, max_bytes))
        else:
            self._hand_over(batches)

    def log_read(self, event: LogRead) -> None:
        state = self._state
        if state.read_for_apply != event.from_index:
            return
        state.read_for_apply = 0
        # What was read beyond the commit index of that time may have been cut since, and others
        # committed in its place; what is committed and missing here is read anew.
        committed = tuple(
            batch
            for batch in event.batches
            if batch.last_index <= state.commit_index
            and state.log.holds(batch.last_index, batch.term)
        )
        self._hand_over(committed)

    def _hand_over(self, batches: tuple[Batch, ...]) -> None:
        state = self._state
        require(
            bool(batches) and batches[0].first_index == state.applied_index + 1,
            "committed batches are applied without a gap, and are in the log",
            applied=state.applied_index,
            commit=state.commit_index,
            first=batches[0].first_index if batches else 0,
        )
        audits = (place for place, batch in enumerate(batches) if batch.kind == BatchKind.AUDIT)
        place = next(audits, None)
        if place is not None:
            # What it says of this node's state comes before anything else is done to that.
            batches = batches[: place + 1]
        state.applying_to = batches[-1].last_index
        state.effects.append(Apply(batches))
        if place is not None:
            self._audit.committed(batches[-1])

    def applied(self, event: Applied) -> None:
        state = self._state
        require(
            event.index == state.applying_to,
            "what was handed over is what was applied",
            expected=state.applying_to,
            applied=event.index,
        )
        state.applied_index = event.index
        state.applying_to = 0
