"""The commands of the log on transactions and leases, held against the model one after the other.

The log is an order that all nodes agree on, so there is nothing to search: what the state machine
answered to each command must be what the model answers.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from raft_agent.machine.commands import (
    Delete,
    ExpireLease,
    GrantLease,
    InSession,
    KeepLease,
    Once,
    Put,
    PutLeased,
    RevokeLease,
    Transact,
)
from raft_agent.machine.results import (
    ConditionFailed,
    LeaseGone,
    LeaseGranted,
    LeaseKept,
    TransactionDone,
    WriteDone,
)
from raft_agent.machine.transactions import Compare, DeleteKey, Operation, PutKey, Target
from tests.sim.linearizability import ILLEGAL
from tests.sim.store_model import GONE, StoreModel

if TYPE_CHECKING:
    from tests.sim.calls import Call
    from tests.sim.cluster import Cluster

_EFFECTS = (WriteDone, ConditionFailed, LeaseGranted, LeaseGone, LeaseKept, TransactionDone)


class StoreLog:
    """One run's. `keys`: how many there are, t0 and on."""

    def __init__(self, cluster: Cluster, keys: int) -> None:
        self._cluster = cluster
        self._model = StoreModel(keys)
        self._state: Any = self._model.initial()
        self._done: set[object] = set()
        # Of each entry with an effect: its index, the state behind it, and what was answered.
        self._indexes: list[int] = []
        self._states: list[Any] = [self._state]
        self._answers: dict[int, tuple[tuple[Any, ...], Any]] = {}

    def applied(self, index: int, command: Any, result: Any) -> None:
        """The next command was applied. Raises Violation when the model would answer another way;
        copies and what came too late have no effect, and are no concern of the model's."""
        if not isinstance(result, _EFFECTS):
            return
        if isinstance(command, InSession | Once):
            self._takes_effect(command, index)
            command = command.command
        step = _step_of(command, result)
        if step is None:
            return
        action, output = step
        after = self._model.step(self._state, action, output)
        if after is ILLEGAL:
            raise self._cluster.checks.violation(
                "what the machine answers is not the model's answer "
                f"(index={index} action={action!r} answer={output!r})"
            )
        self._state = after
        self._indexes.append(index)
        self._states.append(after)
        self._answers[index] = (action, output)

    def explains(self, calls: list[Call]) -> bool:
        """Whether the log's own order is one in which all of these calls have their answers, and
        each comes behind those that had returned before it was made. Then no other order has to be
        searched for."""
        answered = [call for call in calls if call.returned]
        if not all(self._is_answer(call) for call in answered):
            return False
        by_return = sorted(answered, key=lambda call: call.returned)
        place = latest = 0
        for call in sorted(answered, key=lambda call: call.called):
            while by_return[place].returned < call.called:
                latest = max(latest, by_return[place].hint)
                place += 1
            if call.hint < latest:
                return False
        return True

    def _is_answer(self, call: Call) -> bool:
        """Whether the entry at the call's index, or the state there, gives what was answered."""
        action, output = call.action, call.output
        if action[0] == "get":
            return bool(self._state_at(call.index).value(action[1]) == output)
        if action[0] == "cas":
            _, key, expected, value = action
            was_there = self._state_at(call.index - 1).value(key) == expected
            if output:
                return was_there and self._answers.get(call.index) == (
                    ("put", key, value, 0),
                    None,
                )
            return not was_there
        return self._answers.get(call.index) == (action, output)

    def _state_at(self, index: int) -> Any:
        return self._states[bisect_right(self._indexes, index)]

    def _takes_effect(self, command: InSession | Once, index: int) -> None:
        known: object = (
            command.request_id if isinstance(command, Once) else (command.session, command.sequence)
        )
        if known in self._done:
            raise self._cluster.checks.violation(f"a write takes effect twice (index={index})")
        self._done.add(known)


def _key(name: str) -> int:
    return int(name[1:])


def _step_of(command: Any, result: Any) -> tuple[tuple[Any, ...], Any] | None:
    """The model's action and output; None for what has nothing to do with it."""
    output: Any = GONE if isinstance(result, LeaseGone) else None
    match command:
        case Put() | Delete() if isinstance(result, ConditionFailed):
            return None
        case Put(key=key, value=value) if key.startswith("t"):
            return ("put", _key(key), value, 0), output
        case Delete(key=key) if key.startswith("t"):
            return ("delete", _key(key)), result.deleted == 1
        case PutLeased(key=key, value=value, lease=lease):
            return ("put", _key(key), value, lease), output
        case GrantLease():
            return ("grant",), result.lease
        case KeepLease(lease=lease):
            return ("keep", lease), output
        case RevokeLease(lease=lease):
            return ("revoke", lease), GONE if output == GONE else result.deleted
        case ExpireLease(lease=lease) if isinstance(result, WriteDone):
            return ("revoke", lease), result.deleted
        case Transact() if not _is_of_exports(command):
            return _transaction(command, result)
    return None


def _is_of_exports(command: Transact) -> bool:
    """Whether it is about keys that no transaction or lease of the model has to do with."""
    return any(operation.key.startswith("x") for operation in command.then)


def _transaction(command: Transact, result: Any) -> tuple[tuple[Any, ...], Any]:
    compares = tuple(_compare(compare) for compare in command.compares)
    then = tuple(_operation(operation) for operation in command.then)
    otherwise = tuple(_operation(operation) for operation in command.otherwise)
    action = ("txn", compares, then, otherwise)
    if not isinstance(result, TransactionDone):
        return action, GONE
    done = then if result.succeeded else otherwise
    return action, (result.succeeded, results_of(done, result))


def results_of(done: tuple[tuple[Any, ...], ...], result: TransactionDone) -> tuple[Any, ...]:
    """What the model says of each operation that was done."""
    results: list[Any] = []
    for operation, came in zip(done, result.results, strict=True):
        if operation[0] == "put":
            results.append(None)
        elif operation[0] == "delete":
            results.append(came.deleted == 1)
        else:
            results.append(came.keys[0].value if came.keys else None)
    return tuple(results)


def _compare(compare: Compare) -> tuple[int, Any]:
    return _key(compare.key), compare.operand if compare.target is Target.VALUE else None


def _operation(operation: Operation) -> tuple[Any, ...]:
    if isinstance(operation, PutKey):
        return "put", _key(operation.key), operation.value, operation.lease
    if isinstance(operation, DeleteKey):
        return "delete", _key(operation.key)
    return "get", _key(operation.key)  # type: ignore[union-attr]
