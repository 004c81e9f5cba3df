"""Strikes on agents and helpers that do not do what was expected of them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from tests.e2e.agents import wait_for
from tests.torture.network import Network
from tests.torture.papers import Papers
from tests.torture.world import Node, Options, World


def world_of(directory: Path, *nodes: Node) -> World:
    """Without a network: what is tested here needs none."""
    nothing = None
    return World(
        directory,
        Options(1),
        nodes=[*nodes],
        network=cast(Network, nothing),
        papers=cast(Papers, nothing),
        guest="",
    )


def test_nothing_that_a_helper_has_started_goes_on_when_it_is_ended(tmp_path: Path) -> None:
    made = world_of(tmp_path)
    place = tmp_path / "pid"
    helper = made.helper(f"while :; do bash -c 'echo $$ > {place}; exec sleep 600'; done")
    child = wait_for("the helper's child", lambda: place.exists() and place.read_text() or None)
    made.end_helper(helper)
    assert helper.returncode == 0
    assert not Path(f"/proc/{int(child)}").exists()
