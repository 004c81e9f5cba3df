"""Handing leadership over (§3.10 of the thesis): stop taking proposals, bring the target up to
date, tell it to stand at once. Because somebody asked for it, or because the own disk hangs."""

from __future__ import annotations

from collections.abc import Iterable

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
            state.refuse_not_leading(event.tag)
            return
        target = event.target or self._furthest(leadership, leadership.progress)
        if target == state.member_id:
            state.effects.append(TransferDone(event.tag, target))
        elif leadership.transfer is not None:
            state.refuse(event.tag, RefusalReason.TRANSFERRING)
        elif target not in leadership.progress or not is_voter(state.configuration, target):
            state.refuse(event.tag, RefusalReason.UNKNOWN_TARGET)
        else:
            self._start(leadership, event.tag, target)

    def _start(self, leadership: Leadership, tag: int | None, target: int) -> None:
        state = self._state
        deadline_us = state.now_us + state.settings.election_timeout_max_us
        leadership.transfer = Transfer(tag, target, deadline_us)
        state.note("transfer_started", target=target)
        self.advance(leadership, target)

    def leave_stalled_disk(self, leadership: Leadership) -> None:
        """Hand over to a voter whose disk has what the own one hangs on. Without one this node
        leads on: where all disks are slow, moving the lead would not help."""
        state = self._state
        if leadership.transfer is not None or state.now_us < leadership.stall_retry_us:
            return
        target = self._heir(leadership, state.stalled_index)
        if target:
            leadership.stall_retry_us = state.now_us + state.settings.disk_stall_us
            state.note("disk_stalls", index=state.persisted_index)
            self._start(leadership, None, target)

    def leave_spoilt_snapshot(self, leadership: Leadership) -> None:
        """Hand over when peers go on to find the own snapshot damaged and no other one comes about:
        that may take entries which only those can commit who wait for it. A voter that has all that
        is committed may have a good one."""
        state = self._state
        spoilt = leadership.spoilt_snapshot
        if spoilt is None or spoilt != state.snapshot or leadership.transfer is not None:
            return
        target = self._heir(leadership, state.commit_index)
        if target:
            leadership.spoilt_snapshot = None
            state.note("snapshot_stays_refused", index=spoilt.index)
            self._start(leadership, None, target)

    def _heir(self, leadership: Leadership, index: int) -> int:
        """Of the voters that answer and have all entries up to `index` the one whose log is
        furthest; 0: none."""
        state = self._state
        heard_since_us = state.now_us - state.settings.election_timeout_min_us
        return self._furthest(
            leadership,
            [
                peer
                for peer, progress in leadership.progress.items()
                if progress.match_index >= index and progress.last_contact_us >= heard_since_us
            ],
        )

    def _furthest(self, leadership: Leadership, peers: Iterable[int]) -> int:
        """Of these peers the voter, and one that stays one, whose log is furthest; 0: none. Who is
        known to have another state than a quorum would not stand."""
        configuration = self._state.configuration
        voters = [
            peer
            for peer in peers
            if configuration and peer in configuration.voters and peer not in leadership.odd
        ]
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
            leadership.lease.is_void = True
            state.send(peer, TimeoutNow(state.current_term, state.next_request_id()))

    def tick(self, leadership: Leadership) -> None:
        """Take up the lead again when the target did not make it in time."""
        transfer = leadership.transfer
        if transfer is not None and self._state.now_us >= transfer.deadline_us:
            leadership.transfer = None
            self._state.note("transfer_failed", target=transfer.target)
            if transfer.tag is not None:
                self._state.refuse(transfer.tag, RefusalReason.TIMED_OUT)
