"""How many connections may stand whose other side has not said yet who it is."""

from __future__ import annotations

import pytest

from raft_agent.transport import strangers as module
from raft_agent.transport.strangers import Strangers


def test_a_host_that_has_taken_all_of_its_places_loses_its_oldest() -> None:
    strangers: Strangers[int] = Strangers()
    for number in range(module.MAX_OF_A_HOST):
        assert strangers.come(number, "10.0.0.1") is None
    assert strangers.come(-1, "10.0.0.2") is None
    for oldest in range(3):
        too_many = strangers.come(1000 + oldest, "10.0.0.1")
        assert too_many is not None
        assert too_many[0] == oldest
        assert too_many[1].startswith("512 newer ones of 10.0.0.1 have not finished")
    assert strangers.count == module.MAX_OF_A_HOST + 1


def test_when_all_places_are_taken_the_host_that_has_most_loses_its_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_STRANGERS", 3)
    strangers: Strangers[int] = Strangers()
    for number, host in ((1, "10.0.0.1"), (2, "10.0.0.2"), (3, "10.0.0.2")):
        assert strangers.come(number, host) is None
    too_many = strangers.come(4, "10.0.0.3")
    assert too_many is not None
    assert (too_many[0], too_many[1][:9]) == (2, "3 others ")
    # Of hosts with one each it is the first.
    too_many = strangers.come(5, "10.0.0.4")
    assert too_many is not None
    assert too_many[0] == 1


def test_who_leaves_makes_room() -> None:
    strangers: Strangers[int] = Strangers()
    for number in range(module.MAX_OF_A_HOST + 1):
        strangers.come(number, "10.0.0.1")
    # The first one had to go already, and hears of its end later.
    for number in (0, 1, 2):
        strangers.leave(number, "10.0.0.1")
    assert strangers.come(-1, "10.0.0.1") is None
    for number in (-1, *range(3, module.MAX_OF_A_HOST + 1)):
        strangers.leave(number, "10.0.0.1")
    assert strangers.count == 0
    assert strangers._by_host == {}
