from __future__ import annotations

from pathlib import Path

import pytest

from raft_agent.storage.snapshots import SnapshotStore, open_snapshots


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


@pytest.fixture
def snapshots(directory: Path) -> SnapshotStore:
    """An empty one, in `directory`."""
    return open_snapshots(directory).store
