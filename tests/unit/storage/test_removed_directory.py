"""A data directory that goes away under a running agent: nothing is acknowledged from then on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raft_agent.storage import writer
from raft_agent.storage.store import Store
from tests.unit.storage.support import TIMEOUT_S, Driver, make_batch


def remove(data_dir: Path) -> None:
    shutil.rmtree(data_dir)


def move(data_dir: Path) -> None:
    data_dir.rename(data_dir.with_name("elsewhere"))


def replace(data_dir: Path) -> None:
    move(data_dir)
    shutil.copytree(data_dir.with_name("elsewhere"), data_dir)


@pytest.mark.parametrize("go_away", [remove, move, replace])
@pytest.mark.parametrize("is_idle", [False, True], ids=["writing", "idle"])
def test_a_directory_that_is_gone_is_noticed(
    tmp_path: Path,
    go_away: Callable[[Path], None],
    is_idle: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The idle one looks by itself; the other one must not get to that.
    monkeypatch.setattr(writer, "_CHECK_EVERY_S", 0.01 if is_idle else 1000.0)
    data_dir = tmp_path / "data"
    store = Store.open(data_dir)
    driver = Driver(store)
    try:
        store.found_cluster("a-cluster")
        driver.append(make_batch(1))
        go_away(data_dir)
        if not is_idle:
            driver.submit(make_batch(2))
        failure = driver.failures.get(timeout=TIMEOUT_S)
        assert driver.logs.empty()
        assert not failure.shortage
        assert str(data_dir) in failure.reason
        assert "removed, moved or replaced while the agent ran" in failure.reason
    finally:
        store.close()
