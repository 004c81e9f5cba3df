"""A store is opened for the first time and again, and stops when it is used wrongly."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from raft_agent.consensus.types import AppendLog, SaveVote, Vote
from raft_agent.storage.errors import StorageError
from raft_agent.storage.store import Store
from tests.unit.storage.support import Driver, make_batch, opened, recovered_log


def test_a_first_start_makes_the_directory_and_a_member_id(tmp_path: Path) -> None:
    data_dir = tmp_path / "raft" / "node-01"
    store = Store.open(data_dir)
    recovered = store.recovered
    store.close()
    assert 0 < recovered.member_id < 1 << 64
    assert recovered.cluster_id == ""
    assert recovered.vote == Vote()
    assert (recovered.log.last_index, recovered.log.tail, recovered.warnings) == (0, (), [])
    assert data_dir.stat().st_mode & 0o777 == 0o700


def test_the_member_id_stays_and_no_two_directories_share_it(tmp_path: Path) -> None:
    ids = []
    for name in ("a", "b", "a"):
        store = Store.open(tmp_path / name)
        ids.append(store.recovered.member_id)
        store.close()
    assert ids[0] == ids[2] != ids[1]


def test_a_second_agent_is_refused_with_the_directory_and_the_process(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from raft_agent.storage.store import Store; "
        "Store.open(pathlib.Path(sys.argv[1]))"
    )
    store = Store.open(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    with pytest.raises(StorageError) as caught:
        Store.open(tmp_path)
    store.close()
    for text in (result.stderr, str(caught.value)):
        assert str(tmp_path) in text
        assert f"process {os.getpid()}" in text
    assert result.returncode != 0
    Store.open(tmp_path).close()


def test_a_data_dir_that_can_not_be_used_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        Store.open(tmp_path / "file")


def test_an_empty_log_belongs_to_no_cluster(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.save_vote(1, 1, 1)
    store = Store.open(tmp_path)
    store.close()
    assert store.recovered.cluster_id == ""


@pytest.mark.parametrize(
    "effect",
    [
        AppendLog(9, 0, (make_batch(5),)),
        AppendLog(9, 0, (make_batch(3), make_batch(5))),
        AppendLog(9, 0, (make_batch(3, term=1),)),
        AppendLog(9, 4, ()),
        AppendLog(9, 2, ()),
    ],
    ids=["gap", "gap within", "term goes back", "cut behind the end", "cut inside a batch"],
)
def test_an_append_that_does_not_fit_stops_the_store(tmp_path: Path, effect: AppendLog) -> None:
    with opened(tmp_path) as driver:
        driver.append(make_batch(1, 2, 2))
        driver.store.append(effect)
        assert not driver.failures.get(timeout=60).shortage
        driver.store.save_vote(SaveVote(1, 5, 5))
    assert recovered_log(tmp_path) == (make_batch(1, 2, 2),)


def test_an_entry_without_a_cluster_stops_the_store(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        driver = Driver(store)
        driver.submit(make_batch(1))
        assert "belongs to a cluster" in driver.failures.get(timeout=60).reason


def test_a_log_does_not_change_its_cluster(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.append(make_batch(1))
        driver.store.found_cluster("another")
        assert "another" in driver.failures.get(timeout=60).reason
