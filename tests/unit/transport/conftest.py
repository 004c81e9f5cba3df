"""What tests of members under TLS share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.tls.papers import Office


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)
