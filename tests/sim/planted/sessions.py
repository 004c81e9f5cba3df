"""Faults in what keeps a write that is sent again from taking effect twice."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.planted.focus import deadlines, sessions

_SESSIONS = "raft_agent.machine.sessions"
_STATE = "raft_agent.machine.state"
_SNAPSHOT = "raft_agent.machine.snapshot"

_TWICE = (
    "a write takes effect twice",
    "a message is there twice",
    "is told to stand at",
    "linearizable",
    "was promised at",
)

FAULTS = (
    Fault(
        "result_forgotten_too_early",
        "a session forgets a result before its client says that it has it",
        (
            Edit(
                _SESSIONS,
                "        results[sequence] = Repeated(index, term, result)\n"
                "        heapq.heappush(session.unacked, sequence)\n"
                "        self._result_count += 1\n",
                "",
            ),
        ),
        _TWICE,
        focus=sessions,
        seed=1,
    ),
    Fault(
        "session_never_expires_for_writes",
        "a session that has ended still takes writes while its results are gone",
        (
            Edit(
                _SESSIONS,
                "        if session is None or session.deadline_ms < time_ms:\n"
                "            return None\n",
                "        if session is None:\n"
                "            self.put_back(Session(session_id, 3_000, time_ms + 3_000, 0))\n"
                "            session = self._sessions[session_id]\n",
            ),
        ),
        _TWICE,
        focus=sessions,
        seed=1,
    ),
    Fault(
        "sessions_not_in_the_snapshot",
        "a snapshot holds no sessions",
        (
            Edit(
                _SNAPSHOT,
                "yield from self._cut(Section.SESSIONS, sessions, lambda _: 0)",
                "sessions.clear()",
            ),
        ),
        (*_TWICE, "state machine safety", "two nodes have other states", "have other states"),
        focus=sessions,
    ),
    Fault(
        "results_not_in_the_snapshot",
        "a snapshot holds the sessions, but not what they have applied",
        (
            Edit(
                _SNAPSHOT,
                "yield from self._cut(Section.RESULTS, results, lambda _: 0)",
                "pass",
            ),
        ),
        (*_TWICE, "state machine safety", "two nodes have other states", "have other states"),
        focus=sessions,
        seed=1,
    ),
    Fault(
        "time_not_in_the_snapshot",
        "who starts from a snapshot begins to count the log's time anew",
        (Edit(_STATE, "        machine.time_ms = header.time_ms\n", ""),),
        ("two nodes have other states", "state machine safety", "have other states"),
        focus=sessions,
    ),
    Fault(
        "deadline_not_looked_at",
        "a write is applied after its deadline, when it may be forgotten that it was before",
        (
            Edit(
                _SESSIONS,
                "        if deadline_ms < time_ms:\n            return TooLate(time_ms)\n",
                "",
            ),
        ),
        _TWICE,
        focus=deadlines,
    ),
    Fault(
        "one_shots_not_in_the_snapshot",
        "a snapshot does not say which single writes were applied",
        (
            Edit(
                _SNAPSHOT,
                "yield from self._cut(Section.ONE_SHOTS, one_shots, lambda _: 0)",
                "pass",
            ),
        ),
        (*_TWICE, "state machine safety", "two nodes have other states", "have other states"),
        focus=deadlines,
        seed=35,
    ),
)
