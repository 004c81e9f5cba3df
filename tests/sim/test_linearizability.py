from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from tests.sim.linearizability import (
    ILLEGAL,
    UNKNOWN,
    KeyValueModel,
    Operation,
    Verdict,
    check,
)


def op(call: int, ret: int | None, *action: Any, gives: Any = None, key: str = "k") -> Operation:
    return Operation(key, action, UNKNOWN if ret is None else gives, call, ret)


LINEARIZABLE: dict[str, list[Operation]] = {
    "nothing happened": [],
    "a read of a key that was never written": [op(1, 2, "get", gives=None)],
    "one after the other": [
        op(1, 2, "put", "a"),
        op(3, 4, "get", gives="a"),
        op(5, 6, "put", "b"),
        op(7, 8, "get", gives="b"),
    ],
    "a read that overlaps a write sees the old value": [
        op(1, 10, "put", "a"),
        op(2, 3, "get", gives=None),
        op(4, 5, "get", gives="a"),
    ],
    "the first figure of Herlihy and Wing, as a register": [
        op(1, 6, "put", "x"),
        op(2, 4, "put", "y"),
        op(7, 9, "get", gives="y"),
        op(8, 10, "get", gives="y"),
    ],
    "an unknown write that took effect long after its call": [
        op(1, None, "put", "late"),
        op(2, 3, "put", "a"),
        op(4, 5, "get", gives="a"),
        op(6, 7, "get", gives="late"),
    ],
    "an unknown write that never happened": [
        op(1, None, "put", "lost"),
        op(2, 3, "get", gives=None),
        op(4, 5, "put", "a"),
        op(6, 7, "get", gives="a"),
    ],
    "a chain of unknown operations explains one read": [
        op(1, None, "put", "a"),
        op(2, None, "cas", "a", "b"),
        op(3, None, "cas", "b", "c"),
        op(4, 5, "get", gives="c"),
    ],
    "compare and swap, won and lost": [
        op(1, 2, "put", "a"),
        op(3, 6, "cas", "a", "b", gives=True),
        op(4, 5, "cas", "a", "c", gives=False),
        op(7, 8, "get", gives="b"),
    ],
    "a swap that failed because of an unknown write in between": [
        op(1, 2, "put", "a"),
        op(3, None, "put", "b"),
        op(4, 5, "cas", "a", "c", gives=False),
        op(6, 7, "get", gives="b"),
    ],
    "create only when absent": [
        op(1, 2, "cas", None, "a", gives=True),
        op(3, 4, "cas", None, "b", gives=False),
        op(5, 6, "delete", gives=True),
        op(7, 8, "cas", None, "c", gives=True),
    ],
    "a delete that found nothing": [
        op(1, 2, "delete", gives=False),
        op(3, 6, "put", "a"),
        op(4, 5, "delete", gives=True),
        op(7, 8, "get", gives=None),
    ],
    "a delete whose outcome was not told": [
        op(1, 2, "put", "a"),
        op(3, 4, "delete", gives=None),
        op(5, 6, "get", gives=None),
    ],
    "equal times overlap": [
        op(1, 5, "put", "a"),
        op(5, 6, "get", gives=None),
    ],
    "keys are independent of each other": [
        op(1, 2, "put", "a", key="x"),
        op(1, 2, "put", "b", key="y"),
        op(3, 4, "get", gives="a", key="x"),
        op(3, 4, "get", gives="b", key="y"),
    ],
}

NOT_LINEARIZABLE: dict[str, list[Operation]] = {
    "a value that nobody wrote": [op(1, 2, "get", gives="ghost")],
    "a stale read": [
        op(1, 2, "put", "a"),
        op(3, 4, "put", "b"),
        op(5, 6, "get", gives="a"),
    ],
    "an acknowledged write that is lost": [
        op(1, 2, "put", "a"),
        op(3, 4, "get", gives=None),
    ],
    "two readers see two writes in opposite orders": [
        op(1, 10, "put", "a"),
        op(1, 10, "put", "b"),
        op(11, 12, "get", gives="a"),
        op(13, 14, "get", gives="b"),
    ],
    "a read goes back while the write is still running": [
        op(1, 10, "put", "a"),
        op(2, 3, "get", gives="a"),
        op(4, 5, "get", gives=None),
    ],
    "an unknown write is seen, then not, then again": [
        op(1, None, "put", "a"),
        op(2, 3, "get", gives="a"),
        op(4, 5, "put", "b"),
        op(6, 7, "get", gives="b"),
        op(8, 9, "get", gives="a"),
    ],
    "an unknown write takes effect before its call": [
        op(1, 2, "get", gives="a"),
        op(3, None, "put", "a"),
    ],
    "both of two swaps from the same value win": [
        op(1, 2, "put", "a"),
        op(3, 6, "cas", "a", "b", gives=True),
        op(4, 5, "cas", "a", "c", gives=True),
    ],
    "a swap fails though nothing changed the value": [
        op(1, 2, "put", "a"),
        op(3, 4, "cas", "a", "b", gives=False),
    ],
    "two deletes both found the key": [
        op(1, 2, "put", "a"),
        op(3, 6, "delete", gives=True),
        op(4, 5, "delete", gives=True),
    ],
    "the second of two keys": [
        op(1, 2, "put", "a", key="x"),
        op(3, 4, "get", gives="a", key="x"),
        op(5, 6, "get", gives="a", key="y"),
    ],
}


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_a_history_that_has_an_order_is_accepted(name: str) -> None:
    assert check(LINEARIZABLE[name]).verdict is Verdict.LINEARIZABLE


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_a_history_without_an_order_is_refused(name: str) -> None:
    result = check(NOT_LINEARIZABLE[name])
    assert result.verdict is Verdict.NOT_LINEARIZABLE
    assert result.stuck


def test_a_refusal_names_the_key_and_the_operations_that_could_not_come_next() -> None:
    result = check(NOT_LINEARIZABLE["the second of two keys"])
    assert result.key == "y"
    assert [operation.call for operation in result.stuck] == [5]
    assert "5..6 ('get',) -> 'a'" in str(result)


def _has_order(history: list[Operation]) -> bool:
    """The definition, word for word: any permutation, any subset of the unknown ones."""
    model = KeyValueModel()
    closed = [operation for operation in history if operation.ret is not None]
    unknown = [operation for operation in history if operation.ret is None]
    for count in range(len(unknown) + 1):
        for happened in itertools.combinations(unknown, count):
            for order in itertools.permutations([*closed, *happened]):
                if any(
                    later.ret is not None and later.ret < earlier.call
                    for earlier, later in itertools.combinations(order, 2)
                ):
                    continue
                state: Any = model.initial()
                for operation in order:
                    state = model.step(state, operation.action, operation.output)
                    if state is ILLEGAL:
                        break
                else:
                    return True
    return False


def _random_operation(rng: random.Random) -> Operation:
    values = ("a", "b")
    action: tuple[Any, ...] = rng.choice(
        [
            ("get",),
            ("get",),
            ("put", rng.choice(values)),
            ("delete",),
            ("cas", rng.choice((None, *values)), rng.choice(values)),
        ]
    )
    call = rng.randrange(12)
    if rng.random() < 0.3:
        return Operation("k", action, UNKNOWN, call, None)
    output: Any = {
        "get": rng.choice((None, *values)),
        "put": None,
        "delete": rng.choice((True, False, None)),
        "cas": rng.random() < 0.5,
    }[action[0]]
    return Operation("k", action, output, call, call + rng.randrange(6))


def test_the_search_agrees_with_the_definition_on_random_histories() -> None:
    rng = random.Random(2017)
    verdicts = set()
    for _ in range(1500):
        history = [_random_operation(rng) for _ in range(rng.randint(1, 6))]
        expected = _has_order(history)
        assert bool(check(history)) == expected, history
        verdicts.add(expected)
    assert verdicts == {True, False}


def _concurrent_history(rng: random.Random, operations: int, clients: int) -> list[Operation]:
    """Run against a real register: every operation takes effect at one moment of its interval."""
    model = KeyValueModel()
    states: dict[str, Any] = {}
    history: list[Operation] = []
    calls = [rng.randrange(10) for _ in range(clients)]
    action: tuple[Any, ...]
    output: Any
    for number in range(operations):
        client = min(range(clients), key=calls.__getitem__)
        call = calls[client]
        # The register is sequential: effects happen in the order of this loop, at their call.
        key = f"k{rng.randrange(4)}"
        state = states.get(key)
        kind = rng.random()
        if kind < 0.5:
            action, output = ("get",), state
        elif kind < 0.9:
            action, output = ("put", number), None
        else:
            expected = state if rng.random() < 0.7 else -1
            action, output = ("cas", expected, number), state == expected
        ret = call + rng.randint(1, 40)
        calls[client] = ret + rng.randint(1, 5)
        if action[0] != "get" and rng.random() < 0.02:
            if rng.random() < 0.5:
                states[key] = model.step(state, action, output)
            history.append(Operation(key, action, UNKNOWN, call, None))
            continue
        states[key] = model.step(state, action, output)
        history.append(Operation(key, action, output, call, ret))
    return history


def test_ten_thousand_operations_are_checked_in_about_as_many_steps() -> None:
    history = _concurrent_history(random.Random(1), 10_000, clients=10)
    assert sum(operation.ret is None for operation in history) > 50
    result = check(history)
    assert result.verdict is Verdict.LINEARIZABLE
    assert result.steps < 40 * len(history)


def test_one_stale_read_among_ten_thousand_operations_is_found() -> None:
    history = _concurrent_history(random.Random(2), 10_000, clients=10)
    key = "k1"
    puts = [o for o in history if o.key == key and o.action[0] == "put" and o.ret is not None]
    old = puts[len(puts) // 2]
    history.append(Operation(key, ("get",), old.action[1], 10**9, 10**9 + 1))
    result = check(history)
    assert result.verdict is Verdict.NOT_LINEARIZABLE
    assert result.key == key


def test_the_search_says_so_when_it_gives_up() -> None:
    history = _concurrent_history(random.Random(3), 200, clients=5)
    assert check(history, max_steps=50).verdict is Verdict.UNDECIDED


def test_an_interval_that_ends_before_it_starts_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="returns before its call"):
        Operation("k", ("get",), None, 5, 4)
    with pytest.raises(ValueError, match="UNKNOWN"):
        Operation("k", ("put", "a"), None, 1, None)


def test_an_unknown_write_that_nobody_saw_does_not_lead_the_search_astray() -> None:
    history = [
        op(1, 2, "put", "first"),
        Operation("k", ("cas", "first", "unseen"), UNKNOWN, 3, None, 9),
        Operation("k", ("cas", "first", "seen"), UNKNOWN, 4, None, 9),
        *(Operation("k", ("get",), "seen", 10 + n, 100 + n, 11) for n in range(12)),
        *(Operation("k", ("put", n), None, 30 + n, 120 + n, 20 + 2 * n) for n in range(12)),
        *(
            Operation("k", ("cas", "first", -n), False, 60 + n, 140 + n, 13 + 2 * n)
            for n in range(12)
        ),
    ]
    result = check(history, max_steps=len(history) * 4)
    assert result, str(result)
