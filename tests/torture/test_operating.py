"""What the operator of a tortured cluster forgives, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from raft_agent.consensus.types import Role
from raft_agent.runtime.views import Views
from tests.torture import operating
from tests.torture.operating import Says, says
from tests.torture.stage import Asked, Stage, end_by_itself

DIFFERS = (
    "its state differs from the other members' (at index 7): it serves nothing until it is "
    "rebuilt; run here: raftctl rebuild"
)
DISPUTED = (
    "no majority of the members has equal states (found at index 7): nothing is read or written"
)
DAMAGED = "/data/log/0000000001.log: damaged: a checksum is wrong (at byte 70)"
INSTALLS = "is taking over a snapshot"
REFILLS = (
    "the end of its log is damaged: does not stand for election until a leader has refilled it"
)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operating, "_PAUSE_S", 0.0)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    made.nodes[0].start()
    try:
        yield made
    finally:
        made.nodes[0].kill()


@pytest.mark.parametrize("note", [DIFFERS, DISPUTED])
@pytest.mark.parametrize("turned_bits", [True, False])
def test_states_that_are_not_equal_are_a_complaint_and_nothing_is_rebuilt(
    note: str, turned_bits: bool, stage: Stage
) -> None:
    stage.notes = [note]
    operator = Asked(stage)
    wait = operator.mend if turned_bits else operator.wait_well
    with pytest.raises(AssertionError, match=note[:20]):
        wait(stage.nodes[0])
    assert operator.commands == []
    assert stage.nodes[0].lives == 0


@pytest.mark.parametrize("note", [DIFFERS, DISPUTED])
def test_a_process_without_memory_may_have_a_state_that_differs(note: str, stage: Stage) -> None:
    stage.notes = [note]
    stage.nodes[0].held_by.add("little_memory")
    Asked(stage).wait_well(stage.nodes[0])
    assert stage.notes == []


@pytest.mark.parametrize("note", [INSTALLS, REFILLS])
def test_nothing_is_rebuilt_for_what_passes_by_itself(note: str, stage: Stage) -> None:
    stage.notes = [note, note]
    operator = Asked(stage)
    operator.mend(stage.nodes[0])
    assert operator.commands == []
    assert stage.nodes[0].lives == 0


def test_damage_is_rebuilt_where_bits_were_turned(stage: Stage) -> None:
    stage.notes = [DAMAGED]
    operator = Asked(stage)
    operator.mend(stage.nodes[0])
    assert operator.commands == ["rebuild --no-wait"]
    assert stage.nodes[0].lives == 1


def test_damage_is_not_rebuilt_where_none_were(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operating, "PATIENCE_S", 0.0)
    stage.notes = [DAMAGED] * 100
    operator = Asked(stage)
    with pytest.raises(AssertionError, match="damaged: a checksum is wrong"):
        operator.wait_well(stage.nodes[0])
    assert operator.commands == []


@pytest.mark.parametrize("turned_bits", [True, False])
def test_an_agent_that_ends_by_itself_is_a_complaint_unless_it_may(
    turned_bits: bool, stage: Stage
) -> None:
    node = stage.nodes[0]
    end_by_itself(node)
    operator = Asked(stage)
    with pytest.raises(AssertionError, match="node-01 ended by itself with status -9"):
        (operator.mend if turned_bits else operator.wait_well)(node)


def test_an_agent_that_damage_keeps_from_starting_is_rebuilt(stage: Stage) -> None:
    node = stage.nodes[0]
    end_by_itself(node)
    node.may_end = True
    operator = Asked(stage)
    operator.mend(node)
    assert operator.commands == ["rebuild --data-dir"]
    assert node.is_running


def product_note(**state: object) -> str:
    """What an agent of this state says."""
    usual = {"failed": "", "was_removed": False, "diverged_index": 0, "installing": False}
    node = SimpleNamespace(
        state=SimpleNamespace(
            **{
                **usual,
                "vote_floor": (0, 0),
                "member_id": 1,
                "has_quorum": lambda _: False,
                **state,
            }
        ),
        role=Role.FRESH,
    )
    connected = SimpleNamespace(name="node-02", connected=state.get("connected", True))
    views = SimpleNamespace(
        _node=node,
        _name="node-01",
        note="",
        disputed_index=lambda: state.get("disputed_index", 0),
        _configured_peers=("node-02",),
        _transport=SimpleNamespace(stats=lambda: {1: connected}),
    )
    return Views._note(cast("Any", views))


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ({"failed": DAMAGED}, Says.DAMAGED),
        ({"diverged_index": 7}, Says.DIFFERS),
        ({"disputed_index": 7}, Says.DISPUTED),
        ({"installing": True}, Says.WAITS),
        ({"vote_floor": (1, 7)}, Says.WAITS),
        ({"was_removed": True}, Says.WAITS),
        ({"connected": False}, Says.WAITS),
        ({"connected": True}, Says.WAITS),
    ],
)
def test_the_notes_of_agents_are_understood(state: dict[str, object], kind: Says) -> None:
    assert says(product_note(**state)) is kind


def test_agents_that_wait_to_join_are_not_damaged() -> None:
    assert says("waiting to be joined: no cluster has been formed") is Says.WAITS
    assert says("asks 10.0.0.1:5555 to be added; what they answer: raftctl events") is Says.WAITS
