"""Exactly once: a command that is in the log twice changes the state once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_agent.machine import sessions
from raft_agent.machine.commands import (
    CloseSession,
    Command,
    Delete,
    InSession,
    KeepSession,
    Once,
    OpenSession,
    Put,
    SendMessage,
)
from raft_agent.machine.machine import Machine
from raft_agent.machine.results import (
    BadCommand,
    BadDeadline,
    BadValue,
    ConditionFailed,
    Forgotten,
    Repeated,
    SessionClosed,
    SessionExpired,
    SessionKept,
    SessionOpened,
    TooLate,
    TooMany,
    WriteDone,
)
from tests.unit.machine.batches import apply

ID = bytes(range(16))
OTHER = bytes(16)


def opened(machine: Machine, ttl_ms: int = 10_000, time_ms: int = 1000) -> int:
    [result] = apply(machine, OpenSession(ttl_ms), time_ms=time_ms)
    assert result == SessionOpened(machine.last_applied)
    return machine.last_applied


def test_a_repeated_command_of_a_session_gets_its_first_result_and_changes_nothing() -> None:
    machine = Machine()
    session = opened(machine)
    command = InSession(session, 1, 0, Put("a", b"1", 0))
    assert apply(machine, command, command) == [WriteDone(1), Repeated(2, 1, WriteDone(1))]
    apply(machine, Put("a", b"2"))
    assert apply(machine, command) == [Repeated(2, 1, WriteDone(1))]
    assert machine.get("a").value == b"2"  # type: ignore[union-attr]


def test_a_refusal_is_remembered_like_any_result() -> None:
    machine = Machine()
    session = opened(machine)
    command = InSession(session, 1, 0, Delete("a", 7))
    assert apply(machine, command) == [ConditionFailed(0)]
    for _ in range(7):
        apply(machine, Put("a", b""))
    assert apply(machine, command) == [Repeated(2, 1, ConditionFailed(0))]


def test_sequences_may_come_in_any_order() -> None:
    machine = Machine()
    session = opened(machine)
    for sequence in (3, 1, 2):
        apply(machine, InSession(session, sequence, 0, SendMessage(str(sequence), "n")))
    assert [message.text for message in machine.messages(9)] == ["2", "1", "3"]


def test_what_the_client_has_is_forgotten_and_not_applied_again() -> None:
    machine = Machine()
    session = opened(machine)
    first = InSession(session, 1, 0, Put("a", b"1"))
    apply(machine, first, InSession(session, 2, 2, Put("a", b"2")))
    assert apply(machine, first) == [Forgotten()]
    # An older copy that says less does not bring anything back.
    assert apply(machine, InSession(session, 1, 1, Put("a", b"3"))) == [Forgotten()]
    assert machine.revision == 2


def test_a_session_that_is_used_lives_on_and_one_that_is_not_expires() -> None:
    machine = Machine()
    used, kept, idle = (opened(machine, 10_000, 1000) for _ in range(3))
    apply(machine, InSession(used, 1, 0, Put("a", b"")), KeepSession(kept), time_ms=9000)
    apply(machine, InSession(idle, 1, 0, Put("a", b"")), time_ms=1000)
    late = apply(
        machine,
        InSession(used, 2, 0, Put("a", b"")),
        KeepSession(kept),
        time_ms=19_000,
    )
    assert late == [WriteDone(3), SessionKept()]
    assert apply(machine, InSession(idle, 2, 0, Put("a", b"")), time_ms=19_001) == [
        SessionExpired()
    ]
    assert len(machine._sessions) == 2


def test_a_session_expires_right_behind_its_deadline() -> None:
    for late_ms, result in ((0, SessionKept()), (1, SessionExpired())):
        machine = Machine()
        session = opened(machine, 5000, 1000)
        assert apply(machine, KeepSession(session), time_ms=6000 + late_ms) == [result]


def test_a_closed_session_is_gone() -> None:
    machine = Machine()
    session = opened(machine)
    assert apply(machine, CloseSession(session)) == [SessionClosed()]
    gone = [SessionExpired()] * 3
    assert (
        apply(
            machine,
            CloseSession(session),
            KeepSession(session),
            InSession(session, 1, 0, Put("a", b"")),
        )
        == gone
    )
    assert machine.key_count() == 0


@pytest.mark.parametrize("ttl_ms", [-1, 0, 999, 24 * 3_600_000 + 1, 1 << 62])
def test_a_ttl_out_of_range_is_refused(ttl_ms: int) -> None:
    [result] = apply(Machine(), OpenSession(ttl_ms))
    assert result == BadValue("A session's ttl is from 1000 to 86400000 ms")


def test_what_is_remembered_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    monkeypatch.setattr(sessions, "MAX_RESULTS_OF_A_SESSION", 2)
    monkeypatch.setattr(sessions, "MAX_RESULTS", 3)
    monkeypatch.setattr(sessions, "MAX_ONE_SHOTS", 1)
    machine = Machine()
    one, other = opened(machine), opened(machine)
    assert apply(machine, OpenSession(1000)) == [TooMany("sessions", 2)]
    put = Put("a", b"")
    assert apply(machine, *(InSession(one, number, 0, put) for number in (1, 2, 3))) == [
        WriteDone(1),
        WriteDone(2),
        TooMany("results of this session", 2),
    ]
    assert apply(machine, *(InSession(other, number, 0, put) for number in (1, 2))) == [
        WriteDone(3),
        TooMany("results of all sessions", 3),
    ]
    # What is acknowledged, closed or expired makes room.
    assert apply(machine, InSession(one, 3, 3, put), CloseSession(one)) == [
        WriteDone(4),
        SessionClosed(),
    ]
    assert apply(machine, InSession(other, 2, 0, put)) == [WriteDone(5)]
    assert apply(machine, Once(ID, 2000, put), Once(OTHER, 2000, put)) == [
        WriteDone(6),
        TooMany("one-shot requests", 1),
    ]
    assert apply(machine, Once(OTHER, 2001, put), time_ms=2001) == [WriteDone(7)]


def test_a_one_shot_is_applied_once_until_its_deadline() -> None:
    machine = Machine()
    command = Once(ID, 5000, SendMessage("hi", "n"))
    assert apply(machine, command, command) == [WriteDone(0), Repeated(1, 1, WriteDone(0))]
    assert apply(machine, command, time_ms=5000) == [Repeated(1, 1, WriteDone(0))]
    assert apply(machine, command, time_ms=5001) == [TooLate(5001)]
    assert len(machine.messages(9)) == 1
    assert len(machine._one_shots) == 0


def test_a_deadline_must_not_be_too_far_ahead() -> None:
    machine = Machine()
    put = Put("a", b"")
    assert apply(machine, Once(ID, 601_001, put), time_ms=1000) == [BadDeadline(1000, 600_000)]
    assert apply(machine, Once(ID, 601_000, put)) == [WriteDone(1)]


@pytest.mark.parametrize("request_id", [b"", b"x" * 15, b"x" * 17])
def test_an_id_of_another_length_is_no_command(request_id: bytes) -> None:
    assert apply(Machine(), Once(request_id, 2000, Put("a", b""))) == [BadCommand()]


def test_much_that_expires_at_once_is_forgotten_over_several_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "_SESSIONS_AT_ONCE", 2)
    monkeypatch.setattr(sessions, "_ONE_SHOTS_AT_ONCE", 3)
    machine = Machine()
    ids = [opened(machine, 1000, 1000) for _ in range(5)]
    shots = [Once(bytes([number] * 16), 2000, Put("a", b"")) for number in range(5)]
    apply(machine, *shots)
    counts = []
    for time_ms in (9000, 9001, 9002):
        # Those that are still there count as gone.
        assert apply(machine, KeepSession(ids[-1]), shots[-1], time_ms=time_ms) == [
            SessionExpired(),
            TooLate(time_ms),
        ]
        counts.append((len(machine._sessions), len(machine._one_shots)))
    assert counts == [(3, 2), (1, 0), (0, 0)]


class Twin:
    """What sessions and one-shots promise, said as plainly as possible."""

    def __init__(self) -> None:
        self.sessions: dict[int, tuple[int, int]] = {}  # id: ttl, deadline
        self.acked: dict[int, int] = {}
        self.results: dict[tuple[int, int], Repeated] = {}
        self.one_shots: dict[bytes, tuple[int, Repeated]] = {}
        self.time_ms = 0

    def expects(self, command: Command, index: int, time_ms: int) -> Any:
        """The result, or None when the command is to be applied."""
        self.time_ms = now = max(self.time_ms, time_ms)
        self.one_shots = {k: v for k, v in self.one_shots.items() if v[0] >= now}
        self.sessions = {k: v for k, v in self.sessions.items() if v[1] >= now}
        if isinstance(command, OpenSession):
            self.sessions[index] = (command.ttl_ms, now + command.ttl_ms)
            return SessionOpened(index)
        if isinstance(command, Once):
            if command.deadline_ms < now:
                return TooLate(now)
            known = self.one_shots.get(command.request_id)
            return known[1] if known else None
        assert isinstance(command, InSession | KeepSession | CloseSession)
        if command.session not in self.sessions:
            return SessionExpired()
        if isinstance(command, CloseSession):
            del self.sessions[command.session]
            return SessionClosed()
        ttl_ms = self.sessions[command.session][0]
        self.sessions[command.session] = (ttl_ms, now + ttl_ms)
        if isinstance(command, KeepSession):
            return SessionKept()
        acked = max(self.acked.get(command.session, 0), command.acked_below)
        self.acked[command.session] = acked
        if command.sequence < acked:
            return Forgotten()
        return self.results.get((command.session, command.sequence))

    def applied(self, command: Command, index: int, result: Any) -> None:
        first = Repeated(index, 1, result)
        if isinstance(command, InSession):
            self.results[command.session, command.sequence] = first
        elif isinstance(command, Once):
            self.one_shots[command.request_id] = (command.deadline_ms, first)


def state_command(number: int) -> Put:
    return Put("k", b"%d" % number, number % 3 - 1)


small = st.integers(1, 6)
session_commands = st.one_of(
    st.builds(OpenSession, st.integers(1000, 1003)),
    st.builds(KeepSession, small),
    st.builds(CloseSession, small),
    st.builds(InSession, small, small, small, st.builds(state_command, small)),
    st.builds(
        Once,
        st.sampled_from([ID, OTHER]),
        st.integers(1000, 4000),
        st.builds(state_command, small),
    ),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(session_commands, st.integers(1000, 4000)), max_size=40))
def test_the_machine_keeps_every_promise_of_its_plain_twin(
    history: list[tuple[Command, int]],
) -> None:
    machine, twin = Machine(), Twin()
    for index, (command, time_ms) in enumerate(history, 1):
        expected = twin.expects(command, index, time_ms)
        before = machine.revision
        [result] = apply(machine, command, time_ms=time_ms)
        if expected is None:
            assert isinstance(result, WriteDone | ConditionFailed)
            twin.applied(command, index, result)
        else:
            assert result == expected
            assert machine.revision == before
