"""What an Accept header asks for, and what it can't have."""

from __future__ import annotations

import pytest

from raft_agent.http.exposition import Exposition
from tests.unit.http.sources import FakeSource

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", PLAIN),
        (f"{OPEN}; version=1.0.0", f"{OPEN}; version=1.0.0; charset=utf-8; escaping=underscores"),
        (f"{OPEN}; version=\xff.", PLAIN),
        (f"{OPEN}; version=1.x", PLAIN),
        (f"{OPEN}; version={'1.' * 500}1", PLAIN),
        (f"{OPEN}; version=nonsense, {OPEN}; version=1.0.0", f"{OPEN}; version=1.0.0"),
    ],
)
def test_a_format_is_named_by_a_version_that_is_one(accept: str, content_type: str) -> None:
    body, found = Exposition(FakeSource().reading).page(accept)
    assert found.startswith(content_type)
    assert b"raft_" in body
