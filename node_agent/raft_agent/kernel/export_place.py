"""Where exported maps are pinned: a directory on a BPF file system, and the kernel behind it."""

from __future__ import annotations

import grp
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from raft_agent.kernel.btf import Btf
from raft_agent.kernel.typed_map import Form, TypedMap


class ExportError(Exception):
    """The map can't be had as it should be; the sentence says why, and what would help."""


class KernelMap(Protocol):
    """One map, as long as it is open. All methods raise OSError."""

    map_id: int

    def lookup(self, key: bytes) -> bytes | None: ...
    def update(self, key: bytes, value: bytes) -> None: ...
    def update_many(self, entries: Sequence[tuple[bytes, bytes]]) -> None: ...
    def delete_many(self, keys: Sequence[bytes]) -> None: ...
    def scan(self) -> Iterator[list[tuple[bytes, bytes]]]: ...
    def close(self) -> None: ...


class Place(Protocol):
    """Maps by the names of their pins. All methods raise ExportError and OSError."""

    def prepare(self) -> None:
        """Be there."""

    def names(self) -> list[str]:
        """What is pinned."""

    def open(self, name: str, form: Form) -> KernelMap | None:
        """The map that is pinned there; None when there is none. One of another form is an
        ExportError."""

    def create(self, title: str, form: Form, btf: tuple[Btf, int, int]) -> KernelMap:
        """A new map, empty, which nobody finds yet."""

    def pin(self, found: KernelMap, name: str, mode: int, group: str = "") -> None:
        """Pin it in place of what has the name. A reader sees the old one or the new one, never
        none."""

    def permit(self, name: str, mode: int, group: str = "") -> None:
        """Let its owner, and this group, do with the pin what `mode` says."""

    def unpin(self, name: str) -> None:
        """Nobody finds it any more; whoever has it open keeps it."""


class PinDirectory:
    """A Place of the running kernel."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def prepare(self) -> None:
        self._path.mkdir(mode=0o711, parents=True, exist_ok=True)

    def names(self) -> list[str]:
        return sorted(path.name for path in self._path.iterdir())

    def open(self, name: str, form: Form) -> TypedMap | None:
        path = self._path / name
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

    def create(self, title: str, form: Form, btf: tuple[Btf, int, int]) -> TypedMap:
        return TypedMap.create(title, form, *btf)

    def pin(self, found: KernelMap, name: str, mode: int, group: str = "") -> None:
        if not isinstance(found, TypedMap):
            raise TypeError(f"{found} is no map of this kernel")
        new = self._path / f"{name}-new"
        new.unlink(missing_ok=True)
        found.pin(new)
        self.permit(new.name, mode, group)
        new.rename(self._path / name)

    def permit(self, name: str, mode: int, group: str = "") -> None:
        path = self._path / name
        if group:
            try:
                os.chown(path, -1, grp.getgrnam(group).gr_gid)
            except KeyError:
                raise ExportError(
                    f"there is no group {group} on this machine (groupadd {group})"
                ) from None
        path.chmod(mode)

    def unpin(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)
