"""Reading the state behind audit entries that is given up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raft_agent.consensus.types import Event, StateHashed
from raft_agent.runtime import auditor as auditors
from raft_agent.runtime.auditor import Auditor
from raft_agent.storage.snapshots import open_snapshots
from tests.unit.runtime.jumping import run
from tests.unit.runtime.snapshotting import Failing, Host

AUDIT: Any = SimpleNamespace(last_index=7)


class Snapshots:
    """Of which none is wanted. `passed_over`: how many audits were."""

    is_reading = False
    passed_over = 0

    def drop_unproven(self) -> None:
        """There is none."""

    def begin(self) -> bool:
        return False

    def left_out(self) -> None:
        self.passed_over += 1


def fill(host: Host) -> None:
    """With more keys than a view looks up at once."""
    host.machine.keys_at_once = 1
    for number in range(10):
        host.put(f"k{number}")


def test_an_audit_that_is_given_up_before_its_first_step_is_not_in_the_way_of_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auditors, "read_verdict", lambda _: None)

    async def test() -> None:
        host, snapshots, fed = Host(Failing()), Snapshots(), asyncio.Queue[Event]()
        fill(host)
        machine = host.machine
        auditor = Auditor(
            node=None,  # type: ignore[arg-type]
            machine=machine,
            snapshotter=snapshots,  # type: ignore[arg-type]
            loop=asyncio.get_running_loop(),
            feed=fed.put_nowait,
        )
        auditor.applied(AUDIT)
        assert machine._views
        auditor.stop()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not machine._views
        assert fed.empty()
        auditor.applied(AUDIT)
        hashed = await asyncio.wait_for(fed.get(), 20)
        assert isinstance(hashed, StateHashed)
        assert (hashed.index, snapshots.passed_over) == (7, 0)

    run(test)


def test_a_snapshot_that_is_given_up_before_its_first_step_leaves_no_view_open(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        host = Host(open_snapshots(tmp_path).store)
        fill(host)
        assert host.snapshotter.take()
        assert host.machine._views
        await host.snapshotter.stop()
        await asyncio.sleep(0)
        assert not host.machine._views

    run(test)
