"""Comparing the members' states, so that one whose memory or disk has gone wrong is found.

Raft makes sure that all apply the same entries, not that what they make of them stays the same: a
bit that turns in one member's memory would be served for ever. So the leader puts an audit entry
into the log from time to time. Every member reports to it what its state right behind that entry
comes to, and once a quorum has reported the same, the leader puts that into the log as well. Whom
it does not fit knows by then that its own state is wrong, be it the leader's. Where no quorum can
have equal states any more, the second entry says so, and the state machine changes nothing until a
later one names a quorum: nobody knows then whose state is right.
"""

from __future__ import annotations

from collections.abc import Callable

from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.consensus.leadership import AuditRound, Leadership
from raft_agent.consensus.state import RaftState
from raft_agent.consensus.types import (
    AuditReport,
    AuditWanted,
    Configuration,
    Judgement,
    Role,
    StateHashed,
    StateJudged,
)
from raft_agent.consensus.verdict import UNREADABLE, Verdict, encode_verdict, read_verdict

# While nothing is written there is nothing new to compare but the memory itself.
_QUIET_INTERVALS = 10
# Reading the whole state is to take no more than one part in so many of the processor's time.
_WORK_SHARE = 50
# So many times the patience with others, this node's own answer may take.
_OWN_PATIENCES = 60
_LEADS_OR_STANDS = (Role.LEADER, Role.CANDIDATE, Role.PRE_CANDIDATE)
# A verdict and a digest meet within a round or two.
_KEPT = 4

Append = Callable[[Leadership, int, int, bytes], None]


class Audit:
    """Every node's part, and the leader's. `append` puts an entry into the log."""

    def __init__(self, state: RaftState, append: Append) -> None:
        self._state = state
        self._append = append
        self._own: dict[int, int] = {}
        self._verdicts: dict[int, Verdict] = {}
        self._unanswered: tuple[int, int] | None = None
        self._reported_us = 0

    # --- every node

    def committed(self, batch: Batch) -> None:
        """An audit entry is being applied; nothing behind it is before this returns."""
        verdict = read_verdict(batch)
        if verdict is None:
            if self._state.diverged_index:
                # So that whoever leads knows, and tells.
                self._unanswered = (batch.last_index, UNREADABLE)
                self._send_report()
            return
        _keep(self._verdicts, verdict.index, verdict)
        if self._unanswered is not None and self._unanswered[0] <= verdict.index:
            self._unanswered = None
        self._compare(verdict.index)

    def hashed(self, event: StateHashed) -> None:
        """This node's own state was read."""
        state = self._state
        _keep(self._own, event.index, event.digest)
        leadership = state.leadership
        if leadership is not None:
            self._take_own(leadership, event)
        elif event.index in self._verdicts:
            # Nothing depends on it any more; the leader shows who agrees, and names who does not.
            self._report(event.index, event.digest)
        else:
            self._unanswered = (event.index, event.digest)
            self._send_report()
        self._compare(event.index)

    def heard_leader(self) -> None:
        """Report again when that may have been lost."""
        state = self._state
        overdue_us = state.now_us - self._reported_us
        if self._unanswered and overdue_us > state.settings.election_timeout_max_us:
            self._send_report()

    def _send_report(self) -> None:
        if self._unanswered is not None and self._state.leader_id:
            self._reported_us = self._state.now_us
            self._report(*self._unanswered)

    def _report(self, index: int, digest: int) -> None:
        state = self._state
        if state.leader_id:
            report = AuditReport(state.current_term, state.next_request_id(), index, digest)
            state.send(state.leader_id, report)

    def _compare(self, index: int) -> None:
        verdict, own = self._verdicts.get(index), self._own.get(index)
        if verdict is None or own is None:
            return
        del self._own[index]
        if not verdict.agreed:
            self._state.effects.append(StateJudged(index, Judgement.DISPUTED))
        elif own == verdict.digest:
            self._state.effects.append(StateJudged(index, Judgement.AGREES))
        else:
            self._differs(index)

    def _differs(self, index: int) -> None:
        """This node's state is not that of a quorum: it leads no more, and does not stand, also
        when it has already asked for votes."""
        state = self._state
        if not state.diverged_index:
            state.diverged_index = index
            state.note("state_differs", index=index)
        state.effects.append(StateJudged(index, Judgement.DIFFERS))
        if state.role in _LEADS_OR_STANDS:
            state.become_follower(state.current_term, 0)

    # --- leader

    def wanted(self, _event: AuditWanted) -> None:
        leadership = self._state.leadership
        if leadership is not None:
            leadership.audit_wanted = True
            self._begin_when_due(leadership)

    def tick(self, leadership: Leadership) -> None:
        """From time to time."""
        audit = leadership.audit
        if audit is not None and not audit.is_closed:
            if not audit.deadline_us and self._is_own_overdue(audit):
                audit.deadline_us = self._state.now_us
            self._decide(leadership, audit)
        else:
            self._begin_when_due(leadership)

    def _begin_when_due(self, leadership: Leadership) -> None:
        state, audit = self._state, leadership.audit
        is_free = audit is None or self._is_through(audit)
        if (
            is_free
            and leadership.transfer is None
            and (leadership.audit_wanted or self._is_due(leadership))
        ):
            leadership.audit_wanted = False
            self._append(leadership, BatchKind.AUDIT, 1, b"")
            leadership.audit = AuditRound(state.log.last_index, state.now_us)

    def _is_through(self, audit: AuditRound) -> bool:
        """Whether nothing more is to come of it here: who still reads leaves the next one out."""
        own = self._state.member_id in audit.reports
        return audit.is_closed and (own or self._is_own_overdue(audit))

    def _is_own_overdue(self, audit: AuditRound) -> bool:
        patience_us = _OWN_PATIENCES * self._state.settings.audit_patience_us
        return audit.is_left_out or self._state.now_us > audit.began_us + patience_us

    def _is_due(self, leadership: Leadership) -> bool:
        state, audit = self._state, leadership.audit
        pause_us = state.settings.audit_interval_us
        if pause_us == 0:
            return False
        if audit is None:
            return state.now_us >= leadership.began_us + pause_us
        if state.log.last_index == audit.last_index:
            pause_us *= _QUIET_INTERVALS
        return state.now_us >= audit.began_us + max(pause_us, audit.work_us * _WORK_SHARE)

    def _take_own(self, leadership: Leadership, event: StateHashed) -> None:
        state, audit = self._state, leadership.audit
        if audit is None:
            return
        if event.index < audit.index <= max(state.applied_index, state.applying_to):
            audit.is_left_out = True
            audit.deadline_us = state.now_us + state.settings.audit_patience_us
        if audit.index != event.index:
            return
        took_us = state.now_us - audit.began_us
        audit.deadline_us = state.now_us + state.settings.audit_patience_us + 3 * took_us
        audit.work_us = event.work_us
        audit.reports[state.member_id] = event.digest
        self._decide(leadership, audit)

    def report(self, sender: int, message: AuditReport) -> None:
        """A member has told what its state comes to."""
        leadership = self._state.leadership
        audit = leadership.audit if leadership is not None else None
        if leadership is None or audit is None or audit.index != message.index:
            return
        if sender in audit.reports:
            return
        audit.reports[sender] = message.digest
        if audit.agreed:
            self._name_odd_one(leadership, audit, sender)
        else:
            self._decide(leadership, audit)

    def _decide(self, leadership: Leadership, audit: AuditRound) -> None:
        """Close the round once its outcome is certain, or nobody else is expected to answer."""
        state, configuration = self._state, self._state.configuration
        if audit.is_closed or leadership.transfer is not None or configuration is None:
            return
        voters = _voters(configuration)
        # Learners are named when they differ, but what is right is no matter of theirs.
        heard = {member: said for member, said in audit.reports.items() if member in voters}
        holders = _holders(heard)
        for digest, members in holders.items():
            if state.has_quorum(members):
                self._agreed(leadership, audit, digest)
                return
        silent = voters - set(heard)
        camps = (*holders.values(), set())
        may_agree = any(state.has_quorum(members | silent) for members in camps)
        is_late = 0 < audit.deadline_us <= state.now_us
        is_split = len(holders) > 1 or UNREADABLE in heard.values()
        if not may_agree or (is_late and is_split):
            state.note("states_disputed", index=audit.index)
            self._close(leadership, audit, Verdict(audit.index, 0, agreed=False))
        elif is_late:
            state.note("audit_unanswered", index=audit.index)
            self._close(leadership, audit, None)

    def _agreed(self, leadership: Leadership, audit: AuditRound, digest: int) -> None:
        audit.agreed = digest
        own = audit.reports.get(self._state.member_id, digest)
        for member in sorted(audit.reports):
            self._name_odd_one(leadership, audit, member)
        self._close(leadership, audit, Verdict(audit.index, digest, agreed=True))
        if own != digest:
            # No need to wait until the others have that entry: they are right already.
            self._own.pop(audit.index, None)
            self._differs(audit.index)

    def _name_odd_one(self, leadership: Leadership, audit: AuditRound, member: int) -> None:
        if audit.reports[member] == audit.agreed:
            leadership.odd.discard(member)
        elif member not in leadership.odd and member != self._state.member_id:
            leadership.odd.add(member)
            self._state.note("member_differs", target=member, index=audit.index)

    def _close(self, leadership: Leadership, audit: AuditRound, verdict: Verdict | None) -> None:
        audit.is_closed = True
        if verdict is not None:
            was_quiet = self._state.log.last_index == audit.index
            self._append(leadership, BatchKind.AUDIT, 1, encode_verdict(verdict))
            # Where nobody knows whose state is right nothing is written, but the rebuilt wait.
            is_at_rest = was_quiet and verdict.agreed
            audit.last_index = self._state.log.last_index if is_at_rest else 0


def _holders(reports: dict[int, int]) -> dict[int, set[int]]:
    holders: dict[int, set[int]] = {}
    for member, digest in reports.items():
        if digest != UNREADABLE:
            holders.setdefault(digest, set()).add(member)
    return holders


def _voters(configuration: Configuration) -> set[int]:
    return {*configuration.voters, *configuration.voters_outgoing}


def _keep(known: dict[int, int] | dict[int, Verdict], index: int, what: int | Verdict) -> None:
    known[index] = what  # type: ignore[assignment]
    while len(known) > _KEPT:
        del known[min(known)]
