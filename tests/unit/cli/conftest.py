from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.served import Served, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A node of a cluster of one, at a socket of its own."""
    with serving(tmp_path / "node-01.sock") as running:
        yield running


@pytest.fixture
def at(served: Served) -> tuple[str, str]:
    """The global options that lead to the server."""
    return "--socket", str(served.path)
