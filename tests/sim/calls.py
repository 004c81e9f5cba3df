"""One request of a client, and each time that it was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.sim.linearizability import UNKNOWN

if TYPE_CHECKING:
    from tests.sim.client import Client


class Call:
    """What a client wants, once. `called` and `returned` are moments in the order of all clients'
    doings; `returned` 0: no answer. `index`: in the leader's log. `goes_on`: the client waits for
    it before it asks again. `once`: it takes effect once at most, however often it is sent; it is
    then `sequence` in the client's `session`, or (0) on its own until a deadline. `asked_us`: the
    simulated time of `called`.
    """

    __slots__ = (
        "action",
        "asked_us",
        "attempts",
        "called",
        "client",
        "command",
        "forward",
        "goes_on",
        "index",
        "is_open",
        "key",
        "lease",
        "once",
        "output",
        "returned",
        "sequence",
        "session",
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
        self.once = False
        self.session = self.sequence = 0
        self.attempts: list[Attempt] = []
        self.index = 0
        self.called = client.oracle.moment()
        self.asked_us = client.oracle.cluster.clock.now_us
        self.returned = 0
        self.output: Any = UNKNOWN
        self.is_open = True

    @property
    def is_of_store(self) -> bool:
        """Whether it is about the keys of which several are changed together, or about leases."""
        return self.key.startswith("t")

    @property
    def is_of_exports(self) -> bool:
        """Whether it has to do with exported maps."""
        return bool(self.action[0] == "export")

    @property
    def was_refused(self) -> bool:
        """Whether it is known that it has not happened and never will."""
        return not self.returned and all(attempt.was_refused for attempt in self.attempts)

    @property
    def reached_core(self) -> bool:
        """Whether a copy that was not refused may be in a log."""
        return any(attempt.reached_core and not attempt.was_refused for attempt in self.attempts)

    @property
    def hint(self) -> int:
        """Where in the order of effects it stands, as far as is known: a read after what was
        applied, a write at its index."""
        index = self.index or self._index_of_first_copy()
        return 2 * index + int(self.action[0] == "get")

    def _index_of_first_copy(self) -> int:
        """Of several copies that are committed the first one took effect, and the others nothing;
        of none of them that is known is any as good as another."""
        committed = self.client.oracle.cluster.checks.committed
        placed = [attempt for attempt in self.attempts if attempt.index]
        there = [
            attempt.index
            for attempt in placed
            if (batch := committed.batch_at(attempt.index)) and batch.term == attempt.term
        ]
        return min(there, default=max((attempt.index for attempt in placed), default=0))


class Attempt:
    """The call was sent once. `index`: in the leader's log, and its `term` there."""

    __slots__ = ("call", "index", "is_open", "reached_core", "term", "was_refused")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.index = self.term = 0
        self.is_open = True
        self.reached_core = False
        self.was_refused = False
        call.attempts.append(self)

    def answered(self, result: Any) -> None:
        self._hear(self.call.client.answer, result)

    def refused(self) -> None:
        self._hear(self.call.client.refuse)

    def lost(self) -> None:
        self._hear(self.call.client.give_up)

    def _hear(self, how: Any, *args: Any) -> None:
        self.call.client.hear(self, how, *args)
