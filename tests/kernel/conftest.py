"""What these tests need of the machine, said once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.kernel import harness


@pytest.fixture(autouse=True, scope="session")
def _able() -> None:
    reason = harness.missing()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _one_cpu() -> Iterator[None]:
    """A thread that moves to another CPU between two sends may overtake itself: the packets of the
    first still wait in a queue of the CPU that it left. Rightly the program calls that a gap.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="module")
def link() -> Iterator[harness.Link]:
    """Two hosts with the program on both ends of a veth pair."""
    with harness.linked() as made:
        yield made
