"""What must always hold.

`require` guards the steps that could break safety, in production too: a node that finds itself in
the wrong stops, because a wrong answer is worse than none. `check` looks at a whole node and is
what tests and the simulator call after every event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raft_agent.consensus.node import Node


class BrokenInvariantError(RuntimeError):
    """The core found a state that Raft excludes. The node must stop and its data be kept."""


def require(holds: bool, rule: str, **facts: object) -> None:
    """Raise BrokenInvariantError with `rule` and `facts` unless it holds."""
    if not holds:
        told = ", ".join(f"{name}={value}" for name, value in facts.items())
        raise BrokenInvariantError(f"broken invariant: {rule} ({told})")


def check(node: Node) -> None:
    """Everything about one node that must hold between two steps."""
    state = node.state
    log = state.log
    require(
        state.applied_index <= state.commit_index <= log.last_index,
        "applied <= committed <= last",
        applied=state.applied_index,
        committed=state.commit_index,
        last=log.last_index,
    )
    require(
        state.persisted_index <= log.last_index,
        "what is on disk is in the log",
        persisted=state.persisted_index,
        last=log.last_index,
    )
    require(
        log.last_term <= state.current_term,
        "no entry is of a later term than the current one",
        last_term=log.last_term,
        current_term=state.current_term,
    )
    snapshot_index = state.snapshot.index if state.snapshot else 0
    require(
        log.base_index <= snapshot_index <= state.applied_index,
        "base <= snapshot <= applied",
        base=log.base_index,
        snapshot=snapshot_index,
        applied=state.applied_index,
    )
    require(
        state.membership.index <= log.last_index,
        "the configuration in force is in the log, or before its base",
        configuration=state.membership.index,
        last=log.last_index,
    )
    require(
        not state.installing or state.leadership is None,
        "no leader forgets its log",
        installing=state.installing,
    )
    resident = log.resident_batches
    if resident:
        require(
            resident[-1].last_index == log.last_index,
            "the resident batches reach the end of the log",
            resident=resident[-1].last_index,
            last=log.last_index,
        )
    require(
        (state.leadership is not None) == (state.role == "leader"),
        "leaders, and only they, have a leadership",
        role=state.role,
    )
    if state.leadership is not None:
        require(
            state.voted_for == state.member_id and state.leader_id == state.member_id,
            "a leader voted for itself and knows itself",
            voted_for=state.voted_for,
            leader=state.leader_id,
        )
        for peer, progress in state.leadership.progress.items():
            require(
                progress.match_index < progress.next_index <= log.last_index + 1,
                "match < next <= last + 1",
                peer=f"{peer:016x}",
                match=progress.match_index,
                next=progress.next_index,
                last=log.last_index,
            )
            require(
                progress.inflight_bytes == sum(entry[2] for entry in progress.inflight),
                "bytes in flight are counted exactly",
                peer=f"{peer:016x}",
            )
