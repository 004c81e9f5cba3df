"""Handing leadership over (§3.10 of the thesis): stop taking proposals, bring the target up to
date, tell it to stand at once."""

from __future__ import annotations

from raft_agent.consensus.leadership import Leadership, Transfer
from raft_agent.consensus.membership import is_voter
from raft_agent.consensus.state import RaftState
from raft_agent.consensus.types import (
    RefusalReason,
    TimeoutNow,
    TransferDone,
    TransferLeadership,
)


class Handover:
    """The leader's side of a transfer; it lasts one election timeout at most."""

    def __init__(self, state: RaftState) -> None:
        self._state = state

    def begin(self, event: TransferLeadership) -> None:
        state = self._state
        leadership = state.leadership
        if leadership is None:
            known = RefusalReason.NOT_LEADER if state.leader_id else RefusalReason.NO_LEADER
            state.refuse(event.tag, known)
            return
        target = event.target or self._furthest(leadership)
        if target == state.member_id:
            state.effects.append(TransferDone(event.tag, target))
        elif leadership.transfer is not None:
            state.refuse(event.tag, RefusalReason.TRANSFERRING)
        elif target not in leadership.progress or not is_voter(state.configuration, target):
            state.refuse(event.tag, RefusalReason.UNKNOWN_TARGET)
        else:
            deadline_us = state.now_us + state.settings.election_timeout_max_us
            leadership.transfer = Transfer(event.tag, target, deadline_us)
            state.note("transfer_started", target=target)
            self.advance(leadership, target)

    def _furthest(self, leadership: Leadership) -> int:
        voters = [p for p in leadership.progress if is_voter(self._state.configuration, p)]
        return max(
            voters,
            key=lambda peer: (
                leadership.progress[peer].match_index,
                leadership.progress[peer].last_contact_us,
                peer,
            ),
            default=0,
        )

    def advance(self, leadership: Leadership, peer: int) -> None:
        """Once the target has everything, it may stand."""
        state = self._state
        transfer = leadership.transfer
        if transfer is None or transfer.target != peer:
            return
        if leadership.progress[peer].match_index == state.log.last_index:
            state.send(peer, TimeoutNow(state.current_term, state.next_request_id()))

    def tick(self, leadership: Leadership) -> None:
        """Take up the lead again when the target did not make it in time."""
        transfer = leadership.transfer
        if transfer is not None and self._state.now_us >= transfer.deadline_us:
            leadership.transfer = None
            self._state.note("transfer_failed", target=transfer.target)
            self._state.refuse(transfer.tag, RefusalReason.TIMED_OUT)
