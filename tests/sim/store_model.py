"""Several keys, transactions over them and leases: one object for the linearizability checker.

A value is never put twice, so it says the same as its revision would.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from tests.sim.linearizability import ILLEGAL, UNKNOWN, Operation

GONE = "gone"


@dataclass(frozen=True, slots=True)
class State:
    """`leases` that live, and of each key its value and its lease (0: none), or None."""

    leases: frozenset[int]
    keys: tuple[tuple[Any, int] | None, ...]

    def value(self, key: int) -> Any:
        held = self.keys[key]
        return None if held is None else held[0]

    def put(self, key: int, held: tuple[Any, int] | None) -> State:
        return State(self.leases, (*self.keys[:key], held, *self.keys[key + 1 :]))


class StoreModel:
    """`count` keys, which are numbers from 0 on. Actions and their outputs::

        ("get", key)                    the value, or None
        ("put", key, value, lease)      None, or GONE: no such lease
        ("delete", key)                 whether there was such a key
        ("cas", key, expected, value)   whether `expected` was there and is now `value`
        ("txn", compares, then, otherwise)
                                        (whether all compares held, results), or GONE
        ("grant",)                      the lease
        ("keep", lease)                 None, or GONE
        ("revoke", lease)               how many keys ended with it, or GONE
        ("end", lease)                  unknown: it ends when nobody keeps it alive

    A compare is (key, value), None for a key that is not there; the operations of a transaction
    are ("put", key, value, lease) with the result None, ("delete", key) with whether there was
    such a key, and ("get", key) with the value.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def initial(self) -> Hashable:
        return State(frozenset(), (None,) * self._count)

    def step(self, state: State, action: tuple[Any, ...], output: Any) -> Any:
        found, after = _STEPS[action[0]](state, *action[1:])
        if action[0] == "grant":
            return state if output is UNKNOWN else State(state.leases | {output}, state.keys)
        return after if output is UNKNOWN or output == found else ILLEGAL

    def only_reads(self, action: tuple[Any, ...], output: Any) -> bool:
        if output is UNKNOWN:
            return False
        match action:
            case ("get", _) | ("keep", _):
                return True
            case ("put" | "revoke", *_):
                return bool(output == GONE)
            case ("delete" | "cas", *_):
                return output is False
            case ("txn", _, then, otherwise):
                if output == GONE:
                    return True
                done = then if output[0] else otherwise
                return all(operation[0] == "get" for operation in done)
        return False

    def worth_a_look(self, operations: list[Operation]) -> list[Operation]:
        """Without the writes of unknown outcome of whose values nobody ever saw any."""
        seen = {value for operation in operations for value in _values_seen(operation)}
        return [
            operation
            for operation in operations
            if operation.ret is not None or _explains(operation.action, seen)
        ]


def _values_seen(operation: Operation) -> list[Any]:
    output = operation.output
    match operation.action:
        case ("get", _):
            return [] if output is UNKNOWN else [output]
        case ("cas", _, expected, _) if output is not False:
            return [expected]
        case ("txn", compares, then, otherwise) if output is not UNKNOWN and output != GONE:
            succeeded, results = output
            done = then if succeeded else otherwise
            seen = [value for _, value in compares] if succeeded else []
            return seen + [r for o, r in zip(done, results, strict=True) if o[0] == "get"]
    return []


def _explains(action: tuple[Any, ...], seen: set[Any]) -> bool:
    match action:
        case ("put", _, value, _) | ("cas", _, _, value):
            return value in seen
        case ("txn", _, then, otherwise):
            return any(
                operation[0] == "delete" or (operation[0] == "put" and operation[2] in seen)
                for operation in (*then, *otherwise)
            )
        case ("keep", _) | ("grant",) | ("get", _):
            return False
    return True


def _get(state: State, key: int) -> tuple[Any, State]:
    return state.value(key), state


def _put(state: State, key: int, value: Any, lease: int) -> tuple[Any, State]:
    if lease and lease not in state.leases:
        return GONE, state
    return None, state.put(key, (value, lease))


def _delete(state: State, key: int) -> tuple[Any, State]:
    return state.keys[key] is not None, state.put(key, None)


def _cas(state: State, key: int, expected: Any, value: Any) -> tuple[Any, State]:
    if state.value(key) != expected:
        return False, state
    return True, state.put(key, (value, 0))


def _txn(state: State, compares: Any, then: Any, otherwise: Any) -> tuple[Any, State]:
    succeeded = all(state.value(key) == value for key, value in compares)
    results = []
    after = state
    for operation in then if succeeded else otherwise:
        result, after = _STEPS[operation[0]](after, *operation[1:])
        if result == GONE:
            return GONE, state
        results.append(result)
    return (succeeded, tuple(results)), after


def _grant(state: State) -> tuple[Any, State]:
    return None, state


def _keep(state: State, lease: int) -> tuple[Any, State]:
    return None if lease in state.leases else GONE, state


def _end(state: State, lease: int) -> tuple[Any, State]:
    if lease not in state.leases:
        return GONE, state
    ended = [held is not None and held[1] == lease for held in state.keys]
    keys = tuple(None if ends else held for ends, held in zip(ended, state.keys, strict=True))
    return sum(ended), State(state.leases - {lease}, keys)


_STEPS: dict[str, Any] = {
    "get": _get,
    "put": _put,
    "delete": _delete,
    "cas": _cas,
    "txn": _txn,
    "grant": _grant,
    "keep": _keep,
    "revoke": _end,
    "end": _end,
}
