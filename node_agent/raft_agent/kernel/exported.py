"""Exported maps in the kernel, and the status beside them: made, pinned, filled, kept right.

Used by one thread (`exporter.py`). What a map should hold is kept here as bytes, so that somebody
else's writes are noticed and undone, and a restart changes nothing but the difference.
"""

from __future__ import annotations

import grp
import os
from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from pathlib import Path

from raft_agent.kernel.export_layout import (
    STATUS_FORM,
    STATUS_KEY,
    STATUS_NAME,
    Status,
    btf_of,
    form_of,
    pin_name,
    status_btf,
)
from raft_agent.kernel.typed_map import BATCH, TypedMap
from raft_agent.machine.entry import Entry
from raft_agent.machine.exports import MapChange, Shape


class ExportError(Exception):
    """The map can't be had as it should be; the sentence says why, and what would help."""


def _pinned(path: Path, form: object) -> TypedMap | None:
    """The map that is pinned there; None when there is none. Raises ExportError for another one."""
    if not path.exists():
        return None
    try:
        found = TypedMap.open(path)
    except OSError as error:
        raise ExportError(f"can't open {path}: {error.strerror}") from error
    if found.form != form:
        found.close()
        raise ExportError(
            f"{path} is pinned already, with another layout ({found.form} instead of {form}): "
            f"remove it if nobody needs it (rm {path})"
        )
    return found


def _pin(found: TypedMap, path: Path, group: str) -> None:
    """Pin it in place of what has the name, for the group to read. A reader sees the old one or the
    new one, never none."""
    new = path.with_name(f"{path.name}-new")
    new.unlink(missing_ok=True)
    found.pin(new)
    _give_to(new, group)
    new.rename(path)


def _give_to(path: Path, group: str) -> None:
    if not group:
        path.chmod(0o600)
        return
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except KeyError:
        raise ExportError(f"there is no group {group} on this machine (groupadd {group})") from None
    path.chmod(0o640)


class ExportedMap:
    """One map in `directory`. `wanted` is what it should hold; `is_known`: all of that is in there,
    and not only what has come so far; `is_mended`: the kernel's map has held it since."""

    def __init__(self, directory: Path, shape: Shape) -> None:
        self.shape = shape
        self.wanted: dict[bytes, bytes] = {}
        self.is_known = False
        self.is_mended = False
        self._path = directory / pin_name(shape)
        self._map: TypedMap | None = None
        # Keys that were written since a comparison began, which has seen some of them before.
        self._touched: set[bytes] | None = None

    def forget(self) -> None:
        """What it should hold is about to come anew."""
        self.wanted = {}
        self.is_known = self.is_mended = False

    def fill(self, entries: Sequence[Entry]) -> None:
        """These are some of what it should hold."""
        shape = self.shape
        self.wanted.update(
            (shape.encode_key(entry.key), shape.encode_value(entry.value, entry.revision))
            for entry in entries
        )

    def note(self, changes: Sequence[MapChange]) -> None:
        """It should be changed like this; the kernel's map is not."""
        for change in changes:
            if change.value is None:
                self.wanted.pop(change.key, None)
            else:
                self.wanted[change.key] = change.value

    def write(self, changes: Sequence[MapChange]) -> None:
        """Do these, whose last word on each key counts; without a map they wait for `mend`. Raises
        OSError; `wanted` has them all the same."""
        self.note(changes)
        keys = dict.fromkeys(change.key for change in changes)
        if self._touched is not None:
            self._touched.update(keys)
        if self._map is None:
            return
        wanted = self.wanted
        # What goes makes room for what comes.
        self._map.delete_many([key for key in keys if key not in wanted])
        self._map.update_many([(key, wanted[key]) for key in keys if key in wanted])

    def mend(self) -> Generator[None, None, int]:
        """Have the map, let it hold what is `wanted`, and pin it; in steps between which `write`
        may be called. Gives how many entries differed. Raises ExportError, OSError."""
        is_pinned = self._open()
        assert self._map is not None  # noqa: S101  # just opened
        try:
            differed = yield from self._compare(self._map)
        finally:
            self._touched = None
        # Only now, so that nobody finds a map at its name that is still to be filled.
        if is_pinned:
            _give_to(self._path, self.shape.export.group)
        else:
            _pin(self._map, self._path, self.shape.export.group)
        self.is_mended = True
        return differed

    def _open(self) -> bool:
        """Have the kernel's map; whether it is what is pinned."""
        form = form_of(self.shape)
        pinned = _pinned(self._path, form)
        if self._map is None:
            self._map = pinned
            if pinned is None:
                self._map = TypedMap.create(self.shape.export.map, form, *btf_of(self.shape))
            return pinned is not None
        if pinned is None:
            return False
        pinned.close()
        return pinned.map_id == self._map.map_id

    def _compare(self, found: TypedMap) -> Generator[None, None, int]:
        touched: set[bytes] = set()
        self._touched = touched
        missing = set(self.wanted)
        foreign = []
        for piece in found.scan():
            for key, value in piece:
                # One that comes twice was found right before.
                wanted = self.wanted.get(key)
                if wanted is None:
                    foreign.append(key)
                elif wanted == value:
                    missing.discard(key)
            yield
        differed = 0
        for some in _pieces(foreign):
            gone = [key for key in some if key not in self.wanted and key not in touched]
            found.delete_many(gone)
            differed += len(gone)
            yield
        for some in _pieces(list(missing)):
            puts = [
                (key, self.wanted[key]) for key in some if key in self.wanted and key not in touched
            ]
            found.update_many(puts)
            differed += len(puts)
            yield
        return differed

    def entries(self, limit: int) -> list[tuple[bytes, bytes]]:
        """What the kernel has, `limit` entries at most. Raises OSError."""
        if self._map is None:
            return []
        return list(islice((item for piece in self._map.scan() for item in piece), limit))

    def close(self) -> None:
        """Leave it to those who read it."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def remove(self) -> None:
        """Nobody finds it any more. Raises OSError."""
        self.close()
        self._path.unlink(missing_ok=True)


def _pieces(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


class StatusMap:
    """The pinned status in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / STATUS_NAME
        self._map: TypedMap | None = None

    def ensure(self) -> None:
        """Raises ExportError, OSError."""
        pinned = _pinned(self._path, STATUS_FORM)
        if self._map is not None and pinned is not None and pinned.map_id == self._map.map_id:
            pinned.close()
            return
        if self._map is None and pinned is not None:
            self._map = pinned
        else:
            if pinned is not None:
                pinned.close()
            if self._map is None:
                self._map = TypedMap.create("raft_status", STATUS_FORM, *status_btf())
            _pin(self._map, self._path, "")
        # No secret, and whoever reads a map of any group needs it.
        self._path.chmod(0o644)

    def read(self) -> Status | None:
        """What it says; None when it says nothing yet. Raises OSError."""
        value = None if self._map is None else self._map.lookup(STATUS_KEY)
        return None if value is None else Status.decode(value)

    def write(self, status: Status) -> bool:
        """Whether there is a map to write it to. Raises OSError."""
        if self._map is None:
            return False
        self._map.update(STATUS_KEY, status.encode())
        return True

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None


def forget_others(directory: Path, names: set[str]) -> list[str]:
    """Take away the pins of maps that are exported no longer, or in another layout; their names."""
    gone = []
    for path in directory.iterdir():
        if path.name not in names and path.name != STATUS_NAME:
            path.unlink(missing_ok=True)
            gone.append(path.name)
    return sorted(gone)
