"""Exported maps in the kernel, and the status beside them: made, pinned, filled, kept right.

Used by one thread (`exporter.py`). What a map should hold is kept here as bytes, so that somebody
else's writes are noticed and undone, and a restart changes nothing but the difference.
"""

from __future__ import annotations

import grp
import os
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
from raft_agent.kernel.typed_map import TypedMap
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
    """One map in `directory`. `wanted` is what it should hold."""

    def __init__(self, directory: Path, shape: Shape) -> None:
        self.shape = shape
        self.wanted: dict[bytes, bytes] = {}
        self._directory = directory
        self._path = directory / pin_name(shape)
        self._map: TypedMap | None = None

    def ensure(self) -> bool:
        """Have the map, pinned where it should be; whether something had to be done for that.
        Raises ExportError and OSError."""
        form, group = form_of(self.shape), self.shape.export.group
        pinned = _pinned(self._path, form)
        mine = self._map
        if mine is not None and pinned is not None and pinned.map_id == mine.map_id:
            pinned.close()
            return False
        if mine is None:
            if pinned is not None:
                self._map = pinned
                _give_to(self._path, group)
                return False
            mine = self._map = TypedMap.create(self.shape.export.map, form, *btf_of(self.shape))
        elif pinned is not None:
            pinned.close()
        _pin(mine, self._path, group)
        return True

    def write(self, changes: list[MapChange]) -> None:
        """Do these, whose last word on each key counts. Raises OSError; `wanted` has them all the
        same."""
        puts: dict[bytes, bytes] = {}
        gone: dict[bytes, None] = {}
        for change in changes:
            puts.pop(change.key, None)
            gone.pop(change.key, None)
            if change.value is None:
                self.wanted.pop(change.key, None)
                gone[change.key] = None
            else:
                self.wanted[change.key] = puts[change.key] = change.value
        if self._map is None:
            raise OSError(f"the map {self.shape.export.map} could not be made")
        # What goes makes room for what comes.
        self._map.delete_many(list(gone))
        self._map.update_many(list(puts.items()))

    def mend(self) -> int:
        """Write what differs from `wanted`; how many entries did. Raises ExportError, OSError."""
        self.ensure()
        found = self._map
        if found is None:
            return 0
        missing = self.wanted.copy()
        foreign = []
        for piece in found.scan():
            for key, value in piece:
                # One that comes twice was found right before.
                wanted = self.wanted.get(key)
                if wanted is None:
                    foreign.append(key)
                elif wanted == value:
                    missing.pop(key, None)
        found.delete_many(foreign)
        found.update_many(list(missing.items()))
        return len(foreign) + len(missing)

    def entries(self) -> list[tuple[bytes, bytes]]:
        """What the kernel has. Raises OSError."""
        return [] if self._map is None else [item for piece in self._map.scan() for item in piece]

    def close(self) -> None:
        """Leave it to those who read it."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def remove(self) -> None:
        """Nobody finds it any more. Raises OSError."""
        self.close()
        self._path.unlink(missing_ok=True)


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

    def write(self, status: Status) -> None:
        """Raises OSError."""
        if self._map is not None:
            self._map.update(STATUS_KEY, status.encode())

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
