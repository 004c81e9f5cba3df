"""What torture is made of: plans, disks that lose, and faults in the product."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.disk import LossyDisk, lossy_disks_missing
from tests.torture.plan import Plan
from tests.torture.planted import PLANTED, Planted, patched
from tests.torture.run import WEIGHTS


def test_a_seed_gives_one_plan() -> None:
    first, again, other = (list(itertools.islice(Plan(s, WEIGHTS), 50)) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_kind_strikes_in_a_long_plan() -> None:
    kinds = {b.kind for what in itertools.islice(Plan(1, WEIGHTS), 500) for b in what.blows}
    assert kinds == set(WEIGHTS)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_a_fault_is_planted_in_a_copy_that_compiles(planted: Planted, tmp_path: Path) -> None:
    source = patched(planted.edits, tmp_path / "source")
    for edit in planted.edits:
        path = source.joinpath(*edit.module.split(".")).with_suffix(".py")
        compile(path.read_text(), str(path), "exec")


needs_fuse = pytest.mark.skipif(
    lossy_disks_missing() is not None or os.geteuid() != 0,
    reason=f"{lossy_disks_missing() or 'mounting needs root'}",
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LossyDisk]:
    made = LossyDisk(tmp_path / "disk", 1)
    try:
        yield made
    finally:
        made.close()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(path: Path, data: bytes, *, sync: bool) -> None:
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


@needs_fuse
def test_what_was_synced_outlasts_any_power_failure(disk: LossyDisk) -> None:
    place = disk.path / "synced"
    _write(place, b"a" * 3000, sync=True)
    _sync(disk.path)
    for seed in range(10):
        _write(place, bytes([65 + seed]) * 3000, sync=True)
        _write(place, b"lost" * 500, sync=False)
        disk.command(f"lose {seed}")
        found = place.read_bytes()
        assert len(found) == 3000
        sectors = {found[at : at + 512] for at in range(0, 2048, 512)}
        assert sectors <= {bytes([65 + seed]) * 512, b"lost" * 128, found[1536:2048]}
        assert found[2048:] == bytes([65 + seed]) * 952


@needs_fuse
def test_what_was_not_synced_is_lost_in_some_power_failure(disk: LossyDisk) -> None:
    place = disk.path / "file"
    _write(place, b"a" * 600, sync=True)
    _sync(disk.path)
    lost = 0
    for seed in range(10):
        _write(place, b"b" * 600, sync=False)
        disk.command(f"lose {seed}")
        lost += place.read_bytes() != b"b" * 600
        _write(place, b"a" * 600, sync=True)
    assert lost


def _cut(disk: LossyDisk) -> Path:
    """A file of 3,000 bytes that are on the medium, cut to 100, which is not."""
    place = disk.path / "cut"
    _write(place, b"a" * 3000, sync=True)
    _sync(disk.path)
    os.truncate(place, 100)
    return place


@needs_fuse
def test_a_file_that_was_cut_is_whole_or_cut_after_a_power_failure(disk: LossyDisk) -> None:
    seen = set()
    for seed in range(20):
        place = _cut(disk)
        disk.command(f"lose {seed}")
        seen.add(place.read_bytes())
    assert seen == {b"a" * 3000, b"a" * 100}


@needs_fuse
def test_what_was_written_behind_a_cut_is_there_only_with_the_cut(disk: LossyDisk) -> None:
    seen = set()
    for seed in range(40):
        place = _cut(disk)
        with place.open("ab") as file:
            file.write(b"b" * 1200)
        disk.command(f"lose {seed}")
        found = place.read_bytes()
        seen.add(found)
        if len(found) != 3000:
            assert found[:100] == b"a" * 100
            assert len(found) in (100, 1300)
            # Sectors that were lost read as the hole that the cut has left.
            for sector in (found[100:512], found[512:1024], found[1024:]):
                assert set(sector) in ({*b"b"}, {0}, set())
    assert {b"a" * 3000, b"a" * 100, b"a" * 100 + b"b" * 1200} < seen
    assert all(found == b"a" * 3000 for found in seen if len(found) == 3000)


@needs_fuse
def test_what_was_written_in_front_of_a_cut_comes_back_with_what_was_cut(disk: LossyDisk) -> None:
    place = disk.path / "cut"
    seen = set()
    for seed in range(40):
        _write(place, b"a" * 2048, sync=True)
        _sync(disk.path)
        _write(place, b"b" * 2048, sync=False)
        os.truncate(place, 1024)
        disk.command(f"lose {seed}")
        found = place.read_bytes()
        assert len(found) in (1024, 2048)
        for at in range(0, len(found), 512):
            assert set(found[at : at + 512]) in ({*b"a"}, {*b"b"})
        seen.add(found)
    assert {len(found) for found in seen} == {1024, 2048}
    assert b"a" * 2048 in seen
    assert b"b" * 1024 in seen


@needs_fuse
def test_names_that_were_not_synced_are_lost_and_come_back(disk: LossyDisk) -> None:
    _write(disk.path / "old", b"old", sync=True)
    _sync(disk.path)
    seen = set()
    for seed in range(20):
        _write(disk.path / "new", b"new", sync=True)
        (disk.path / "new").replace(disk.path / "old")
        disk.command(f"lose {seed}")
        seen.add((disk.path / "old").read_bytes())
        _write(disk.path / "old", b"old", sync=True)
        (disk.path / "new").unlink(missing_ok=True)
        _sync(disk.path)
    assert seen == {b"old", b"new"}


@needs_fuse
def test_syncs_fail_and_the_disk_is_full_when_they_are_told_to(disk: LossyDisk) -> None:
    place = disk.path / "file"
    _write(place, b"a" * 600, sync=True)
    disk.command("fsync_fails 1")
    with pytest.raises(OSError, match="Input/output error"):
        _write(place, b"b" * 600, sync=True)
    disk.command("fsync_fails 0")
    assert place.read_bytes() == b"a" * 600
    disk.command("full 1")
    with pytest.raises(OSError, match="No space left"):
        _write(disk.path / "other", b"", sync=False)
    disk.command("full 0")
    _write(disk.path / "other", b"", sync=False)
