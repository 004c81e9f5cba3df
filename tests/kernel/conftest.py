"""What these tests need of the machine, said once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel import harness


@pytest.fixture(autouse=True, scope="session")
def _able() -> None:
    if not harness.is_privileged():
        pytest.skip("needs root: loads programs into the kernel and makes network namespaces")
    reason = harness.missing()
    assert reason is None, reason


@pytest.fixture(scope="module")
def link() -> Iterator[harness.Link]:
    """Two hosts with the program on both ends of a veth pair."""
    with harness.linked() as made:
        yield made
