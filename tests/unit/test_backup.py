"""Backups as files: written as a whole or not at all, checked, and made into a new cluster."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from raft_agent.api.client import Client, SyncClient
from raft_agent.backup import BackupError, NewBackup, inspect, restore
from raft_agent.consensus.generations import generation_of
from raft_agent.machine.commands import GrantLease, Put, SendMessage
from raft_agent.machine.numbers import ROOM
from raft_agent.storage.store import Store
from tests.unit.cli.served import Served, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "s") as found:
        commands = [Put(f"k{number:04}", b"v" * 500, -1) for number in range(1200)]
        found.call(found.host.apply_commands, commands)
        found.call(found.host.apply_commands, [GrantLease(5000), SendMessage("n", "hello")])
        yield found


@pytest.fixture
def backup(served: Served, tmp_path: Path) -> Path:
    path = tmp_path / "a.raft"
    with SyncClient(str(served.path)) as client:
        client.save_snapshot(str(path))
    return path


def test_a_backup_says_what_it_holds(served: Served, backup: Path) -> None:
    info = inspect(backup)
    machine = served.host.machine
    assert (info.keys, info.messages, info.leases, info.sessions) == (1200, 1, 1, 0)
    assert (info.index, info.revision) == (machine.last_applied, machine.revision)
    assert info.size_bytes == backup.stat().st_size > 600_000
    assert [member.name for member in info.members] == ["node-01"]
    assert backup.stat().st_mode & 0o777 == 0o600
    assert served.host.barriers == 1


def test_both_clients_write_the_same_file_and_tell_how_far_they_are(
    served: Served, backup: Path, tmp_path: Path
) -> None:
    told: list[float] = []
    other = tmp_path / "b.raft"

    async def save() -> None:
        async with Client([str(served.path)]) as client:
            await client.save_snapshot(str(other), on_progress=lambda part, _: told.append(part))

    asyncio.run(save())
    assert other.read_bytes() == backup.read_bytes()
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 3


def test_a_file_that_is_there_is_replaced_only_by_force(served: Served, backup: Path) -> None:
    backup.write_bytes(b"mine")
    with SyncClient(str(served.path)) as client, pytest.raises(BackupError) as refused:
        client.save_snapshot(str(backup))
    assert "--force" in refused.value.hint
    assert backup.read_bytes() == b"mine"
    with SyncClient(str(served.path)) as client:
        client.save_snapshot(str(backup), force=True)
    assert inspect(backup).keys == 1200


def test_what_is_not_complete_never_gets_the_name(tmp_path: Path, backup: Path) -> None:
    whole = backup.read_bytes()
    for data in (b"", whole[:-1], whole[:5000], whole + b"x"):
        path = tmp_path / "c.raft"
        new = NewBackup(path, force=False)
        if data:
            new.append(data)
        with pytest.raises(BackupError, match="damaged"):
            new.finish()
        new.close()
        assert sorted(item.name for item in tmp_path.iterdir()) == ["a.raft", "s"]


def no_links(*_: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_a_backup_gets_its_name_where_a_file_can_have_only_one(
    tmp_path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "stick" / "c.raft"
    path.parent.mkdir()
    new = NewBackup(path, force=False)
    new.append(backup.read_bytes())
    assert new.finish().keys == 1200
    assert [entry.name for entry in path.parent.iterdir()] == ["c.raft"]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_of_that_name_that_came_meanwhile_stays(
    tmp_path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "c.raft"
    new = NewBackup(path, force=False)
    new.append(backup.read_bytes())
    path.write_bytes(b"somebody's")
    with pytest.raises(BackupError, match="is there already"):
        new.finish()
    new.close()
    assert path.read_bytes() == b"somebody's"


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_flipped_bit_is_found_and_said_where(backup: Path, part: float) -> None:
    data = bytearray(backup.read_bytes())
    at = int(part * len(data))
    data[at] ^= 4
    backup.write_bytes(bytes(data))
    with pytest.raises(BackupError, match=r"a\.raft(, byte \d+)?: ") as found:
        inspect(backup)
    assert found.value.offset <= at


def test_what_is_restored_is_a_cluster_of_one_with_ids_of_its_own(
    served: Served, backup: Path, tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    made = restore(backup, data_dir, "node-07", "10.0.0.7:5555")
    store = Store.open(data_dir)
    store.close()
    found = store.recovered
    assert found.warnings == []
    assert found.snapshot is not None
    configuration = found.snapshot.configuration
    assert (found.cluster_id, f"{found.member_id:016x}") == (made.cluster_id, made.member_id)
    assert configuration.cluster_id == made.cluster_id != inspect(backup).cluster_id
    assert [(m.id, m.name, m.address) for m in configuration.members] == [
        (found.member_id, "node-07", "10.0.0.7:5555")
    ]
    assert configuration.voters == (found.member_id,)
    assert found.log.last_index == found.log.base_index == made.index
    assert found.vote.term == found.snapshot.term
    assert generation_of(configuration).floor == made.revision
    assert made.revision >= served.host.machine.revision + ROOM


def test_a_backup_of_a_restored_cluster_begins_behind_that_once_more(
    backup: Path, tmp_path: Path
) -> None:
    first = restore(backup, tmp_path / "one", "a", "h:1")
    again = next((tmp_path / "one" / "snapshots").iterdir())
    assert inspect(again).revision == first.revision
    assert restore(again, tmp_path / "two", "a", "h:1").revision >= first.revision + ROOM


@pytest.mark.parametrize("there", ["identity", "notes.txt"])
def test_nothing_is_restored_over_what_is_there(backup: Path, tmp_path: Path, there: str) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / there).write_text("mine")
    with pytest.raises(BackupError, match=f"is not empty: it holds {there}"):
        restore(backup, data_dir, "a", "h:1")
    assert [path.name for path in data_dir.iterdir()] == [there]


def test_a_damaged_backup_makes_no_directory(backup: Path, tmp_path: Path) -> None:
    backup.write_bytes(backup.read_bytes()[:-20])
    with pytest.raises(BackupError, match="damaged"):
        restore(backup, tmp_path / "data", "a", "h:1")
    assert not (tmp_path / "data").exists()
