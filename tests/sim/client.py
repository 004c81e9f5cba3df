"""A client: asks one thing at a time, and knows what it was promised.

Some number their writes in a session, or give each an id and a deadline; those send a write whose
outcome they don't know again, the same bytes to another node, until they are answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raft_agent.machine.commands import (
    Command,
    Delete,
    InSession,
    Once,
    OpenSession,
    Put,
    SendMessage,
    StateCommand,
    encode_command,
)
from raft_agent.machine.machine import Entry
from raft_agent.machine.results import (
    BadDeadline,
    ConditionFailed,
    Forgotten,
    Repeated,
    SessionExpired,
    SessionOpened,
    TooLate,
    WriteDone,
)
from tests.sim.calls import Attempt, Call
from tests.sim.export_client import ExportClient
from tests.sim.store_client import StoreClient

if TYPE_CHECKING:
    from tests.sim.oracle import Oracle
    from tests.sim.process import Process

_MAX_DOUBLINGS = 5


class Client:
    """It prefers the node that served it last."""

    def __init__(self, oracle: Oracle, number: int) -> None:
        self.oracle = oracle
        self.number = number
        self._cluster = oracle.cluster
        self._rng = oracle.cluster.rng(f"client/{number}")
        self._options = oracle.cluster.options.clients
        self._node = self._rng.randrange(oracle.cluster.options.size)
        self._count = 0
        self._known: dict[str, Entry | None] = {}
        self._session = 0
        self._sequence = 0
        self._unanswered: set[int] = set()
        self._ahead_ms = 0
        self._store = StoreClient(self)
        self._exports = ExportClient(self)
        self._later()

    # --- asking

    def _later(self, pause_us: int = 0) -> None:
        delay_us = pause_us + int(self._rng.expovariate(1.0) * self._options.think_us)
        self._cluster.clock.after(delay_us, self._ask)

    def _ask(self) -> None:
        if self.oracle.has_stopped:
            return
        if self._options.once == "session" and not self._session:
            self._give(self._open_session(), self._preferred, self._delay_us())
        else:
            self._give(self._next_call(), self._preferred, self._delay_us())

    @property
    def _preferred(self) -> Process:
        return self._cluster.processes[self._node]

    def burst(self, process: Process, count: int) -> None:
        """Many requests at once; they arrive in one turn of the process's loop."""
        for _ in range(count):
            call = self._next_call()
            call.goes_on = False
            self._give(call, process, 0)

    def write_last(self, process: Process) -> Call:
        """One write that only the leader takes."""
        key, value = "last", b"last"
        command = encode_command(Put(key, value))
        call = Call(self, key, ("put", value), command, forward=False)
        call.goes_on = False
        self._give(call, process, 0)
        return call

    def _give(self, call: Call, process: Process, delay_us: int) -> None:
        self.oracle.calls.append(call)
        self._send(call, process, delay_us)

    def _send(self, call: Call, process: Process, delay_us: int) -> None:
        attempt = Attempt(call)
        clock = self._cluster.clock
        clock.after(delay_us, self._arrive, attempt, process)
        # Copies that come faster than they can be written would keep all from being answered.
        timeout_us = self._options.timeout_us << min(len(call.attempts) - 1, _MAX_DOUBLINGS)
        clock.after(delay_us + timeout_us, self._time_out, attempt)

    def _open_session(self) -> Call:
        command = encode_command(OpenSession(self._options.ttl_ms))
        return Call(self, "", ("open",), command, forward=self.forwards())

    def forwards(self) -> bool:
        """Whether a follower is asked to pass the next write on."""
        return self._rng.random() < self._options.forward

    def _next_call(self) -> Call:
        if self._store.wants_a_turn():
            return self._store.next_call()
        if self._exports.wants_a_turn():
            return self._exports.next_call()
        rng = self._rng
        self._count += 1
        key = f"k{rng.randrange(self._options.keys)}"
        value = f"{self.number}.{self._count}"
        kind = rng.choices(("get", "put", "delete", "cas", "send"), self._options.weights)[0]
        if kind == "get":
            lease = rng.random() < self._options.lease
            return Call(self, key, ("get",), b"", forward=False, lease=lease)
        if kind == "send":
            return self.write("", ("send", value), SendMessage(value, f"client-{self.number}"))
        padded = value.encode().ljust(rng.randrange(self._options.value_bytes), b" ")
        known = self._known.get(key)
        if kind == "put":
            return self.write(key, ("put", padded), Put(key, padded))
        if kind == "delete":
            return self.write(key, ("delete",), Delete(key))
        # Every put has a value of its own, so revision and value say the same.
        expected = known.value if known else None
        put = Put(key, padded, if_revision=known.revision if known else 0)
        return self.write(key, ("cas", expected, padded), put)

    def write(self, key: str, action: tuple[Any, ...], wanted: StateCommand) -> Call:
        """A call that writes, as this client keeps writes from taking effect twice."""
        command: Command = wanted
        once = self._options.once == "deadline"
        session = sequence = 0
        if once:
            deadline_ms = self._cluster.wall_ms() + self._ahead_ms + self._options.ttl_ms
            command = Once(self._rng.randbytes(16), deadline_ms, wanted)
        elif self._session:
            once, session = True, self._session
            self._sequence += 1
            sequence = self._sequence
            self._unanswered.add(sequence)
            command = InSession(session, sequence, min(self._unanswered), wanted)
        call = Call(self, key, action, encode_command(command), forward=self.forwards())
        call.once, call.session, call.sequence = once, session, sequence
        return call

    def _delay_us(self) -> int:
        return 100 + int(self._rng.random() * 2_000)

    def _arrive(self, attempt: Attempt, process: Process) -> None:
        if process.node is None:
            # Nobody listens there: the request never left.
            attempt.refused()
        elif attempt.call.action[0] == "get":
            process.run(process.service.read, attempt)
        else:
            process.run(process.service.write, attempt)

    # --- answers

    def hear(self, attempt: Attempt, how: Any, *args: Any) -> None:
        self._cluster.clock.after(self._delay_us(), how, attempt, *args)

    def answer(self, attempt: Attempt, result: Any) -> None:
        call = attempt.call
        if isinstance(result, SessionExpired | TooLate | BadDeadline) and call.once:
            self._not_this_time(attempt, result)
            return
        index = attempt.index
        if isinstance(result, Repeated):
            self._cluster.seen["write_repeated"] += 1
            index, result = result.index, result.result
        if not call.is_open:
            is_other = call.once and call.returned and index != call.index
            # A copy may have been lost with those that had it, and the next one be the first.
            is_other = is_other and not self.oracle.has_lost_writes
            if is_other and not isinstance(result, Forgotten):
                raise self._cluster.checks.violation(
                    f"{call.action!r} is told to stand at {call.index} and at {index}"
                )
            return
        self._close(call)
        call.index = index
        call.returned = self.oracle.moment()
        if call.is_of_store or call.is_of_exports:
            part = self._store if call.is_of_store else self._exports
            if not part.take_in(call, result):
                raise self._cluster.checks.violation(
                    f"{call.action!r} was answered with {result!r}"
                )
        else:
            self._take_in(call, result)

    def _take_in(self, call: Call, result: Any) -> None:
        match call.action[0], result:
            case "get", entry:
                self._known[call.key] = entry
                call.output = entry.value if entry else None
                if entry:
                    self.oracle.saw_revision(entry.revision, call.key, entry.value)
            case "delete", WriteDone(deleted=deleted):
                call.output = deleted == 1
                self._known[call.key] = None
            case "cas", ConditionFailed():
                call.output = False
                self._known.pop(call.key, None)
            case ("put" | "cas") as kind, WriteDone(revision=revision):
                value = call.action[-1]
                call.output = True if kind == "cas" else None
                self._known[call.key] = Entry(call.key, value, revision, 0, 0)
                self.oracle.saw_revision(revision, call.key, value)
            case "send", WriteDone():
                call.output = None
            case "open", SessionOpened(session=session):
                self._session = session
                self._sequence = 0
                self._unanswered = set()
            case _:
                raise self._cluster.checks.violation(
                    f"{call.action!r} was answered with {result!r}"
                )

    def _not_this_time(
        self, attempt: Attempt, result: SessionExpired | TooLate | BadDeadline
    ) -> None:
        """This copy did nothing; nobody knows what an earlier one did."""
        attempt.was_refused = True
        call = attempt.call
        self._cluster.seen[f"write_{type(result).__name__}"] += 1
        if isinstance(result, SessionExpired):
            if self._session == call.session:
                self._session = 0
        else:
            self._ahead_ms = result.time_ms - self._cluster.wall_ms()
        if call.is_open:
            self._close(call)

    def refuse(self, attempt: Attempt) -> None:
        attempt.was_refused = True
        self._elsewhere(attempt, 20_000)

    def give_up(self, attempt: Attempt) -> None:
        self._elsewhere(attempt)

    def _time_out(self, attempt: Attempt) -> None:
        if attempt.is_open and attempt.call.is_open:
            self._cluster.seen["client_timed_out"] += 1
            self._elsewhere(attempt)

    def _elsewhere(self, attempt: Attempt, pause_us: int = 0) -> None:
        """Try another node: with the same write when it can't take effect twice, else with
        something else. Each copy is followed by one other at most."""
        call = attempt.call
        if not (attempt.is_open and call.is_open):
            return
        attempt.is_open = False
        self._node = self._rng.randrange(self._cluster.options.size)
        if call.once:
            self._cluster.seen["write_sent_again"] += 1
            doublings = min(len(call.attempts) - 1, _MAX_DOUBLINGS)
            self._send(call, self._preferred, (pause_us << doublings) + self._delay_us())
        else:
            self._close(call, pause_us)

    def _close(self, call: Call, pause_us: int = 0) -> None:
        call.is_open = False
        if call.session == self._session:
            self._unanswered.discard(call.sequence)
        if call.goes_on:
            self._later(pause_us)
