"""Putting what a data directory holds aside, so that the member starts anew with an empty one.

Nothing is thrown away: everything moves into a directory below. A file that names this directory
comes first, durably, and goes last, so that a crash leaves either the member as it was, or what the
next start brings to its end.
"""

from __future__ import annotations

from pathlib import Path

from raft_agent.storage.datadir import (
    IDENTITY_NAME,
    LAST_SEGMENT_NAME,
    LOG_NAME,
    PROMISE_NAME,
    SNAPSHOTS_NAME,
    VOTE_NAME,
    WORD_NAME,
    DirectoryLock,
)
from raft_agent.storage.errors import StorageError
from raft_agent.storage.files import make_directory, replace_file, sync_directory

MARK_NAME = "put-aside"
AWAITED_NAME = "to-be-joined"
PREFIX = "aside-"

# The identity goes first: without it nothing else is taken for a member's.
_NAMES = (
    IDENTITY_NAME,
    VOTE_NAME,
    WORD_NAME,
    PROMISE_NAME,
    LAST_SEGMENT_NAME,
    LOG_NAME,
    SNAPSHOTS_NAME,
)


def put_aside(data_dir: Path, label: str) -> Path:
    """Move what the member has into a new directory below `data_dir`, whose path is returned.

    `label` says why, in letters that may stand in a file's name. Nobody else may use the directory.
    Blocks; raises StorageError while an agent runs on it, and OSError: what was begun then is
    brought to its end by the next start.
    """
    lock = DirectoryLock(data_dir)
    try:
        target = _free_name(data_dir, f"{PREFIX}{label}")
        make_directory(target, 0o700)
        replace_file(data_dir / MARK_NAME, f"{target.name}\n".encode())
        finish_putting_aside(data_dir)
        return target
    finally:
        lock.release()


def finish_putting_aside(data_dir: Path) -> str:
    """Go on where a crash has left `put_aside`; the directory's name, "" when nothing was begun.

    Raises StorageError and OSError.
    """
    mark = data_dir / MARK_NAME
    try:
        name = mark.read_text().strip()
    except FileNotFoundError:
        return ""
    target = data_dir / name
    if not name.startswith(PREFIX) or "/" in name or not target.is_dir():
        what = f"it names no directory to put things into: {name!r}"
        raise StorageError(what, str(mark), advice="Move this file away and start again")
    for moved in _NAMES:
        source = data_dir / moved
        if source.exists():
            source.rename(target / moved)
            sync_directory(target)
            sync_directory(data_dir)
    # The configuration that founded the cluster may still be in force: it founds no other one here.
    replace_file(data_dir / AWAITED_NAME, b"")
    mark.unlink()
    sync_directory(data_dir)
    return name


def is_to_be_joined(data_dir: Path) -> bool:
    """Whether what was here was put aside, so that this member founds no cluster."""
    return (data_dir / AWAITED_NAME).exists()


def _free_name(data_dir: Path, wanted: str) -> Path:
    path, number = data_dir / wanted, 1
    while path.exists():
        number += 1
        path = data_dir / f"{wanted}-{number}"
    return path
