"""Clients that know what they were promised.

Each works on its own, one request at a time, and writes down what it asked for, what came back and
when. A request that got no answer may have taken effect, may still do so, or never; one that was
refused must never have. The history of all of them goes to the linearizability checker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raft_agent.machine.commands import Command, Delete, Put, SendMessage, encode_command
from raft_agent.machine.machine import ConditionFailed, Entry, WriteDone
from tests.sim.linearizability import UNKNOWN, Operation

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.process import Process


class Call:
    """One request. `called` and `returned` are moments in the order of all clients' doings;
    `returned` 0: no answer. `index`: in the leader's log. `goes_on`: the client waits
    for it before it asks again.
    """

    __slots__ = (
        "action",
        "called",
        "client",
        "command",
        "forward",
        "goes_on",
        "index",
        "is_open",
        "key",
        "lease",
        "output",
        "reached_core",
        "returned",
        "was_refused",
    )

    def __init__(
        self,
        client: Client,
        key: str,
        action: tuple[Any, ...],
        command: bytes,
        *,
        forward: bool,
        lease: bool = False,
    ) -> None:
        self.client = client
        self.key = key
        self.action = action
        self.command = command
        self.forward = forward
        self.lease = lease
        self.goes_on = True
        self.reached_core = False
        self.index = 0
        self.called = client.oracle.moment()
        self.returned = 0
        self.output: Any = UNKNOWN
        self.was_refused = False
        self.is_open = True

    @property
    def hint(self) -> int:
        """Where in the order of effects it stands, as far as is known: a read after what was
        applied, a write at its index."""
        return 2 * self.index + int(self.action[0] == "get")

    def answered(self, result: Any) -> None:
        self.client.hear(self, self.client.answer, result)

    def refused(self) -> None:
        self.client.hear(self, self.client.refuse)

    def lost(self) -> None:
        self.client.hear(self, self.client.give_up)


class Client:
    """One client. It prefers the node that served it last."""

    def __init__(self, oracle: Oracle, number: int) -> None:
        self.oracle = oracle
        self.number = number
        self._cluster = oracle.cluster
        self._rng = oracle.cluster.rng(f"client/{number}")
        self._options = oracle.cluster.options.clients
        self._node = self._rng.randrange(oracle.cluster.options.size)
        self._count = 0
        self._known: dict[str, Entry | None] = {}
        self._later()

    def _later(self, pause_us: int = 0) -> None:
        delay_us = pause_us + int(self._rng.expovariate(1.0) * self._options.think_us)
        self._cluster.clock.after(delay_us, self._ask)

    def _ask(self) -> None:
        if self.oracle.has_stopped:
            return
        self._give(self._next_call(), self._cluster.processes[self._node], self._delay_us())

    def burst(self, process: Process, count: int) -> None:
        """Many requests at once; they arrive in one turn of the process's loop."""
        for _ in range(count):
            call = self._next_call()
            call.goes_on = False
            self._give(call, process, 0)

    def write_last(self, process: Process) -> None:
        """One write that only the leader takes."""
        key, value = "last", b"last"
        command = encode_command(Put(key, value))
        call = Call(self, key, ("put", value), command, forward=False)
        call.goes_on = False
        self._give(call, process, 0)

    def _give(self, call: Call, process: Process, delay_us: int) -> None:
        self.oracle.calls.append(call)
        self._cluster.clock.after(delay_us, self._arrive, call, process)
        self._cluster.clock.after(self._options.timeout_us, self._time_out, call)

    def _next_call(self) -> Call:
        rng = self._rng
        self._count += 1
        key = f"k{rng.randrange(self._options.keys)}"
        value = f"{self.number}.{self._count}"
        kind = rng.choices(("get", "put", "delete", "cas", "send"), self._options.weights)[0]
        forward = rng.random() < self._options.forward
        if kind == "get":
            lease = rng.random() < self._options.lease
            return Call(self, key, ("get",), b"", forward=forward, lease=lease)
        if kind == "send":
            text = SendMessage(value, f"client-{self.number}")
            return Call(self, "", ("send", value), encode_command(text), forward=forward)
        command: Command
        action: tuple[Any, ...]
        padded = value.encode().ljust(rng.randrange(self._options.value_bytes), b" ")
        known = self._known.get(key)
        if kind == "put":
            command, action = Put(key, padded), ("put", padded)
        elif kind == "delete":
            command, action = Delete(key), ("delete",)
        else:
            # Every put has a value of its own, so revision and value say the same.
            expected = known.value if known else None
            command = Put(key, padded, if_revision=known.revision if known else 0)
            action = ("cas", expected, padded)
        return Call(self, key, action, encode_command(command), forward=forward)

    def _delay_us(self) -> int:
        return 100 + int(self._rng.random() * 2_000)

    def _arrive(self, call: Call, process: Process) -> None:
        if process.node is None:
            # Nobody listens there: the request never left.
            self.hear(call, self.refuse)
        elif call.action[0] == "get":
            process.run(process.service.read, call)
        else:
            process.run(process.service.write, call)

    # --- answers

    def hear(self, call: Call, how: Any, *args: Any) -> None:
        self._cluster.clock.after(self._delay_us(), how, call, *args)

    def answer(self, call: Call, result: Any) -> None:
        if not call.is_open:
            return
        self._close(call)
        call.returned = self.oracle.moment()
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
            case _:
                raise self._cluster.checks.violation(
                    f"{call.action!r} was answered with {result!r}"
                )

    def refuse(self, call: Call) -> None:
        if call.is_open:
            call.was_refused = True
            self._elsewhere(call, 20_000)

    def give_up(self, call: Call) -> None:
        if call.is_open:
            self._elsewhere(call)

    def _time_out(self, call: Call) -> None:
        if call.is_open:
            self._cluster.seen["client_timed_out"] += 1
            self._elsewhere(call)

    def _elsewhere(self, call: Call, pause_us: int = 0) -> None:
        self._node = self._rng.randrange(self._cluster.options.size)
        self._close(call, pause_us)

    def _close(self, call: Call, pause_us: int = 0) -> None:
        call.is_open = False
        if call.goes_on:
            self._later(pause_us)


class Oracle:
    """All clients of a run and what they saw."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.has_stopped = False
        self.calls: list[Call] = []
        self._moment = 0
        self._revisions: dict[int, tuple[str, bytes]] = {}
        self._clients = [Client(self, number) for number in range(cluster.options.clients.clients)]

    def write_last(self, process: Process) -> None:
        """One fresh write, given to the leader of a healed cluster."""
        self._clients[0].write_last(process)

    def burst(self, process: Process, count: int) -> None:
        """`count` requests for `process` in the same moment."""
        self._clients[0].burst(process, count)

    @property
    def last_was_refused(self) -> bool:
        """Whether the fresh write has to be given again: its leader did not take it, or ended."""
        last = self.calls[-1]
        return not last.is_open and not last.returned

    def moment(self) -> int:
        self._moment += 1
        return self._moment

    def saw_revision(self, revision: int, key: str, value: bytes) -> None:
        known = self._revisions.setdefault(revision, (key, value))
        if known != (key, value):
            raise self.cluster.checks.violation(
                f"revision {revision} is {known!r} to one client and {(key, value)!r} to another"
            )

    def history(self) -> list[Operation]:
        """What happened to the keys, for the checker.

        Without what no answer came to and what never reached a core: its client can't know, but
        that has not happened, and fewer unknown outcomes make a stricter check.
        """
        return [
            Operation(
                call.key, call.action, call.output, call.called, call.returned or None, call.hint
            )
            for call in self.calls
            if call.action[0] != "send"
            and not call.was_refused
            and (call.returned or call.reached_core)
        ]

    def check_messages(self, messages: list[tuple[int, str]]) -> None:
        """`messages` are (index, text) as every node has them in the end: each that was promised is
        there once, at its index, each that was refused is not, and an earlier one comes first.
        """
        violation = self.cluster.checks.violation
        indexes = {text: index for index, text in messages}
        if len(indexes) != len(messages):
            raise violation("a message is there twice")
        sends = [call for call in self.calls if call.action[0] == "send"]
        for call in sends:
            index = indexes.get(call.action[1])
            if call.was_refused and index is not None:
                raise violation(f"message {call.action[1]} was refused but is at index {index}")
            if call.returned and index != call.index:
                raise violation(
                    f"message {call.action[1]} was promised at index {call.index}, is at {index}"
                )
        latest_index = 0
        done = sorted((c for c in sends if c.returned), key=lambda call: call.returned)
        position = 0
        for call in sends:
            while position < len(done) and done[position].returned < call.called:
                latest_index = max(latest_index, done[position].index)
                position += 1
            index = indexes.get(call.action[1])
            if index is not None and index < latest_index:
                raise violation(
                    f"message {call.action[1]} stands at {index}, before one that was done earlier"
                )
