"""Members' states on demand: compared for whoever asks, and spoilt for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode, MemberState, StateCheckResult
from raft_agent.consensus.leadership import AuditRound
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import UNREADABLE, AuditWanted, Event
from raft_agent.machine.machine import Machine

Done = Callable[[StateCheckResult | Failure], None]

_LOOK_AGAIN_S = 0.02
# Those who report after a majority has are still shown.
_LATE_S = 2.0
_PATIENCE_S = 120.0


class StateChecks:
    """The leader's answers to `raftctl doctor --cluster`."""

    def __init__(
        self, node: Node, loop: asyncio.AbstractEventLoop, feed: Callable[[Event], None]
    ) -> None:
        self._node = node
        self._loop = loop
        self._feed = feed
        self._given_up: Failure | None = None

    def give_up(self, failure: Failure) -> None:
        """The node ends or its disk failed. Who waits holds on to all of its state until then."""
        self._given_up = failure

    def check(self, done: Done, not_leading: Callable[[], Failure]) -> None:
        """`not_leading`: why this node can't do it."""
        leadership = self._node.state.leadership
        if leadership is None:
            done(not_leading())
            return
        behind_index = self._node.log.last_index
        self._feed(AuditWanted())
        self._look(done, not_leading, behind_index, self._loop.time())

    def _look(
        self, done: Done, not_leading: Callable[[], Failure], behind_index: int, asked_s: float
    ) -> None:
        leadership = self._node.state.leadership
        if self._given_up is not None or leadership is None:
            done(self._given_up or not_leading())
            return
        audit = leadership.audit
        waited_s = self._loop.time() - asked_s
        if audit is not None and audit.index > behind_index and audit.is_closed:
            configuration = self._node.configuration
            members = configuration.members if configuration is not None else ()
            everybody = all(member.id in audit.reports for member in members)
            if everybody or waited_s >= _LATE_S:
                done(self._result(audit))
                return
        if waited_s >= _PATIENCE_S:
            done(
                Failure(
                    ErrorCode.TIMED_OUT,
                    f"The members have not compared their states within {_PATIENCE_S:.0f} s",
                    "See which are alive: raftctl health",
                )
            )
            return
        self._loop.call_later(_LOOK_AGAIN_S, self._look, done, not_leading, behind_index, asked_s)

    def _result(self, audit: AuditRound) -> StateCheckResult:
        configuration = self._node.configuration
        members = [
            MemberState(
                member.name,
                _state_of(audit, member.id),
                f"{audit.reports[member.id]:016x}" if audit.reports.get(member.id) else "",
            )
            for member in (configuration.members if configuration is not None else ())
        ]
        members.sort(key=lambda member: member.name)
        return StateCheckResult(audit.index, bool(audit.agreed), members)


def _state_of(audit: AuditRound, member_id: int) -> str:
    digest = audit.reports.get(member_id)
    if digest is None:
        return "silent"
    if digest == UNREADABLE:
        return "unreadable"
    if not audit.agreed:
        return "unknown"
    return "agrees" if digest == audit.agreed else "differs"


def flip_bit(machine: Machine, key: str) -> bool:
    """Turn one bit of the key's value, as a fault of the memory would, past all that keeps account
    of changes; False when there is no such key, or it is empty."""
    entry = machine.get(key)
    if entry is None or not entry.value:
        return False
    spoilt = bytes((entry.value[0] ^ 1,)) + entry.value[1:]
    machine._entries[key] = msgspec.structs.replace(entry, value=spoilt)
    return True
