"""Histories of transactions and leases that could be, and some that could not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.linearizability import UNKNOWN, Operation, check
from tests.sim.store_model import GONE, StoreModel


def history(*steps: tuple[Any, ...]) -> list[Operation]:
    """One after the other; an action without an output never returned, and may come at any time."""
    operations = []
    for number, (action, *output) in enumerate(steps):
        returned = 2 * number + 1 if output else None
        result = output[0] if output else UNKNOWN
        operations.append(Operation("t", action, result, 2 * number, returned, number + 1))
    return operations


GRANTED = (("grant",), 5)
LEASED = (("put", 0, "a", 5), None)


@pytest.mark.parametrize(
    "steps",
    [
        [GRANTED, LEASED, (("get", 0), "a"), (("revoke", 5), 1), (("get", 0), None)],
        [GRANTED, LEASED, (("end", 5),), (("get", 0), None), (("keep", 5), GONE)],
        [GRANTED, LEASED, (("end", 5),), (("get", 0), "a"), (("keep", 5), None)],
        [GRANTED, LEASED, (("put", 0, "b", 0), None), (("revoke", 5), 0), (("get", 0), "b")],
        [(("put", 0, "a", 9), GONE), (("get", 0), None)],
        [
            (("txn", ((0, None),), (("put", 0, "a", 0), ("get", 0)), ()), (True, (None, "a"))),
            (("txn", ((0, None),), (), (("delete", 0), ("get", 0))), (False, (True, None))),
        ],
        [(("txn", (), (("put", 0, "a", 0), ("put", 1, "b", 9)), ()), GONE), (("get", 0), None)],
        [(("txn", (), (("put", 0, "a", 0), ("put", 1, "b", 0)), ()),), (("get", 1), "b")],
        # Two leases end in either order, and both have to.
        [
            GRANTED,
            (("grant",), 6),
            LEASED,
            (("put", 1, "b", 6), None),
            (("end", 5),),
            (("end", 6),),
            (("txn", (), (("get", 0), ("get", 1)), ()), (True, (None, None))),
        ],
    ],
)
def test_what_can_be(steps: list[tuple[Any, ...]]) -> None:
    assert check(history(*steps), StoreModel(2))


@pytest.mark.parametrize(
    "steps",
    [
        [GRANTED, LEASED, (("revoke", 5), 1), (("get", 0), "a")],
        [GRANTED, LEASED, (("get", 0), None)],
        [GRANTED, LEASED, (("end", 5),), (("get", 0), None), (("get", 0), "a")],
        [GRANTED, LEASED, (("end", 5),), (("keep", 5), GONE), (("put", 1, "b", 5), None)],
        [GRANTED, LEASED, (("put", 0, "b", 0), None), (("end", 5),), (("get", 0), None)],
        [(("txn", ((0, "x"),), (("put", 0, "a", 0),), ()), (True, (None,)))],
        [
            (("txn", (), (("put", 0, "a", 0), ("put", 1, "b", 0)), ()),),
            (("get", 0), "a"),
            (("get", 1), None),
        ],
        [(("txn", (), (("put", 0, "a", 0), ("put", 1, "b", 9)), ()), GONE), (("get", 0), "a")],
        [(("txn", (), (("get", 0), ("put", 0, "a", 0)), ()), (True, ("a", None)))],
    ],
)
def test_what_can_not_be(steps: list[tuple[Any, ...]]) -> None:
    assert not check(history(*steps), StoreModel(2))


def test_a_read_from_far_behind_does_not_make_what_is_due_late() -> None:
    """It may be moved to the front; the hints of writes go on from where they were."""
    steps: list[Operation] = [
        Operation("t", ("delete", 1), False, 0, 900, 800),
        Operation("t", ("put", 0, "a", 0), None, 1, 2, 2),
    ]
    for number in range(60):
        lost = Operation("t", ("delete", 0), UNKNOWN, 3, None, 4 + 4 * number)
        put = Operation("t", ("put", 0, f"v{number}", 0), None, 3, 800 + number, 6 + 4 * number)
        seen = ("txn", ((0, None),), (("get", 0),), ())
        gone = Operation("t", seen, (True, (None,)), 3, 800 + number, 5 + 4 * number)
        steps += [lost, gone, put]
    result = check(steps, StoreModel(2))
    assert result
    assert result.steps < 2000
