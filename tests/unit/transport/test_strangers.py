"""How many connections may stand whose other side has not said yet who it is."""

from __future__ import annotations

import pytest

from raft_agent.transport import strangers as module
from raft_agent.transport.strangers import Strangers


def test_a_host_that_has_taken_all_of_its_places_leaves_those_of_others() -> None:
    strangers = Strangers()
    for _ in range(module.MAX_OF_A_HOST):
        assert strangers.come("10.0.0.1") == ""
    assert "512 others of 10.0.0.1" in strangers.come("10.0.0.1")
    assert strangers.come("10.0.0.2") == ""


def test_all_hosts_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STRANGERS", 3)
    strangers = Strangers()
    assert [strangers.come(f"10.0.0.{number}") for number in range(3)] == [""] * 3
    assert strangers.come("10.0.0.9").startswith("3 others")


def test_who_leaves_makes_room() -> None:
    strangers = Strangers()
    for _ in range(module.MAX_OF_A_HOST + 1):
        strangers.come("10.0.0.1")
    for _ in range(2):
        strangers.leave("10.0.0.1")
    assert strangers.come("10.0.0.1") == ""
    for _ in range(module.MAX_OF_A_HOST):
        strangers.leave("10.0.0.1")
    assert strangers.count == 0
    assert strangers._by_host == {}
