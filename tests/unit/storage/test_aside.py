"""What a member has is put aside as a whole, wherever the process or the power goes away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raft_agent.storage import aside
from raft_agent.storage.aside import MARK_NAME, put_aside
from raft_agent.storage.datadir import save_promise
from raft_agent.storage.errors import StorageError
from raft_agent.storage.store import Store
from raft_agent.versions import Versions
from tests.unit.storage.support import CLUSTER, make_batch, opened, take_snapshot

KNOWN = Versions(1, 2)


class Crash(Exception):  # noqa: N818
    """The process ends here."""


def used(data_dir: Path) -> int:
    """A data directory that was used for long; the member's id."""
    with opened(data_dir) as driver:
        driver.append(*(make_batch(index, 1) for index in range(1, 9)))
        take_snapshot(driver.store.snapshots, 4, 1)
        return driver.store.recovered.member_id


def files_of(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def test_everything_is_in_one_directory_and_the_member_begins_anew(tmp_path: Path) -> None:
    member_id = used(tmp_path)
    before = files_of(tmp_path)
    target = put_aside(tmp_path, "before-1")
    assert target == tmp_path / "aside-before-1"
    assert files_of(target) == before
    with opened(tmp_path) as driver:
        recovered = driver.store.recovered
        assert recovered.member_id != member_id
        assert (recovered.cluster_id, recovered.log.last_index) == ("", 0)
        # Whatever its configuration file says of a first start: that is over.
        assert recovered.is_to_be_joined
    assert put_aside(tmp_path, "before-1") == tmp_path / "aside-before-1-2"


def test_nothing_is_put_aside_while_an_agent_uses_it(tmp_path: Path) -> None:
    used(tmp_path)
    with opened(tmp_path), pytest.raises(StorageError, match="another agent"):
        put_aside(tmp_path, "before-1")


def test_a_crash_at_any_step_leaves_the_member_as_it_was_or_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[bool] = []
    told: list[str] = []
    for steps in range(100):
        data_dir = tmp_path / str(steps)
        member_id = used(data_dir)
        save_promise(data_dir, KNOWN.newest)
        before = files_of(data_dir)
        with monkeypatch.context() as patch:
            _crash_after(patch, steps)
            try:
                put_aside(data_dir, "x")
            except Crash:
                pass
            else:
                break
        store = Store.open(data_dir, versions=KNOWN)
        store.close()
        recovered = store.recovered
        is_old = recovered.member_id == member_id
        outcomes.append(is_old)
        assert recovered.cluster_id == (CLUSTER if is_old else "")
        assert recovered.is_to_be_joined is not is_old
        # A promise holds only where its file is.
        assert recovered.promised_version == (KNOWN.newest if is_old else 1)
        if is_old:
            assert {name: files_of(data_dir)[name] for name in before} == before
        else:
            assert files_of(data_dir / "aside-x") == before
            told += [text for text in recovered.warnings if "interrupted" in text]
        assert not (data_dir / MARK_NAME).exists()
    # First the old one, from some step on the new one, and never back.
    assert outcomes == sorted(outcomes, reverse=True)
    # Only the last step has nothing left to bring to its end.
    assert 0 < outcomes.count(True) < len(outcomes)
    assert len(told) == outcomes.count(False) - 1


def _crash_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Let so many changes of the directory happen, and then no more."""
    left = [steps]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if left[0] == 0:
                raise Crash
            left[0] -= 1
            return real(*args, **options)

        return call

    for name in ("make_directory", "replace_file", "sync_directory"):
        patch.setattr(aside, name, counted(getattr(aside, name)))
    for name in ("rename", "unlink"):
        patch.setattr(Path, name, counted(getattr(Path, name)))


def test_a_mark_that_names_no_directory_is_refused_with_what_to_do(tmp_path: Path) -> None:
    used(tmp_path)
    (tmp_path / MARK_NAME).write_text("../elsewhere\n")
    with pytest.raises(StorageError, match="Move this file away"):
        Store.open(tmp_path)
