"""All that clients were promised, and whether it was kept.

They write down what they asked for, what came back and when. A request that got no answer may have
taken effect, may still do so, or never; one that was refused must never have. The history of all of
them goes to the linearizability checker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.calls import Call
from tests.sim.client import Client
from tests.sim.linearizability import UNKNOWN, Operation

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.process import Process


class Oracle:
    """All clients of a run and what they saw."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.has_stopped = False
        self.has_lost_writes = False
        self.calls: list[Call] = []
        self._moment = 0
        self._last: Call | None = None
        self._revisions: dict[int, tuple[str, bytes]] = {}
        self._clients = [Client(self, number) for number in range(cluster.options.clients.clients)]

    def write_last(self, process: Process) -> None:
        """One fresh write, given to the leader of a healed cluster."""
        self._last = self._clients[0].write_last(process)

    def burst(self, process: Process, count: int) -> None:
        """`count` requests for `process` in the same moment."""
        self._clients[0].burst(process, count)

    @property
    def last_was_refused(self) -> bool:
        """Whether the fresh write has to be given again: its leader did not take it, or ended."""
        last = self._last
        return last is not None and not last.is_open and not last.returned

    @property
    def still_asks(self) -> bool:
        """Whether a client still waits for an answer, or sends something again."""
        return any(call.is_open for call in self.calls)

    def moment(self) -> int:
        self._moment += 1
        return self._moment

    def saw_revision(self, revision: int, key: str, value: bytes) -> None:
        known = self._revisions.setdefault(revision, (key, value))
        if known != (key, value):
            raise self.cluster.checks.violation(
                f"revision {revision} is {known!r} to one client and {(key, value)!r} to another"
            )

    def forget_revisions(self, first: int, last: int) -> None:
        """These were given out for entries that are lost, and may be given out again."""
        for revision in range(first, last + 1):
            self._revisions.pop(revision, None)

    def history(self) -> list[Operation]:
        """What happened to the keys, for the checker.

        Without what no answer came to and what never reached a core: its client can't know, but
        that has not happened, and fewer unknown outcomes make a stricter check.
        """
        return [_operation(call) for call in self._that_count() if not call.is_of_store]

    def store_history(self) -> list[Operation]:
        """What happened to the keys of transactions and to leases, all of them one object; the ends
        that leases came to by themselves among it, at their place in the log."""
        history = [_operation(call) for call in self.store_calls()]
        granted = {
            operation.output: operation.call
            for operation in history
            if operation.action[0] == "grant" and operation.ret is not None
        }
        ended = self.cluster.leases.ended
        return history + [
            Operation("t", ("end", lease), UNKNOWN, called, None, 2 * ended[lease].index)
            for lease, called in granted.items()
            if lease in ended
        ]

    def store_calls(self) -> list[Call]:
        """What clients asked of the keys of transactions and of leases, as far as it counts."""
        return [call for call in self._that_count() if call.is_of_store]

    def _that_count(self) -> list[Call]:
        return [
            call
            for call in self.calls
            if call.key and not call.was_refused and (call.returned or call.reached_core)
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


def _operation(call: Call) -> Operation:
    key = "t" if call.is_of_store else call.key
    return Operation(key, call.action, call.output, call.called, call.returned or None, call.hint)
