"""A disk that can lose power: what a crash at any call would leave of a directory."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

Image = dict[str, bytes]  # a directory's files, by path relative to it


class Crash(msgspec.Struct):
    """What could be found after a crash before the `number`-th operation. `note` is what the test
    had said last."""

    number: int
    operation: str
    note: object
    image: Image


class PowerFailures:
    """Watches what the storage asks of the file system below `root` and keeps, before each call,
    what a crash would leave: `killed` (only the process ends: all is there) and two power failures,
    the worst one (nothing that was not synced is there) and a random one (sectors written since the
    last sync survive or not, renames and removals survive up to some point).

    Contents survive by fsync of the file, names by fsync of the directory. Real syncs are left out.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        self.note: object = None
        self.killed: list[Crash] = []
        self.worst: list[Crash] = []
        self.random: list[Crash] = []
        self._root = root
        self._rng = random.Random(seed)
        self._lock = threading.RLock()
        self._contents: dict[int, bytes] = {}  # by inode: what is on the medium
        self._names: dict[str, dict[str, int]] = {}  # by directory: what is on the medium
        self._history: dict[str, list[dict[str, int]]] = {}  # since then
        self._monkeypatch = monkeypatch
        self._open: list[int] = []
        self._take_over()
        for module, name in (
            (os, "pwritev"),
            (os, "pwrite"),
            (os, "ftruncate"),
            (os, "posix_fallocate"),
            (os, "fdatasync"),
            (os, "fsync"),
            (Path, "replace"),
            (Path, "unlink"),
        ):
            monkeypatch.setattr(module, name, self._watched(name, getattr(module, name)))

    def _take_over(self) -> None:
        """All that is there now is on the medium."""
        for directory in (self._root, self._root / "log", self._root / "snapshots"):
            self._sync_directory(directory)
            for path in directory.iterdir():
                if path.is_file():
                    self._sync_file(path)

    def _watched(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(target: int | Path, *args: object, **options: object) -> object:
            with self._lock:
                path = target if isinstance(target, Path) else _path_of(target)
                if not path.is_relative_to(self._root):
                    return real(target, *args, **options)
                self._keep(f"{name}({path.name})")
                if name in ("fsync", "fdatasync"):
                    self._sync_directory(path) if path.is_dir() else self._sync_file(path)
                    return None
                # A removed file's inode number may be given to another file: keep it in use.
                doomed = {"unlink": path, "replace": args[0] if args else path}.get(name)
                if isinstance(doomed, Path) and doomed.exists():
                    self._open.append(os.open(doomed, os.O_RDONLY))
                result = real(target, *args, **options)
                if name in ("replace", "unlink"):
                    self._history[str(path.parent)].append(_names_in(path.parent))
                return result

        return call

    def close(self) -> None:
        self._monkeypatch.undo()
        for fd in self._open:
            os.close(fd)

    def _sync_file(self, path: Path) -> None:
        self._contents[path.stat().st_ino] = path.read_bytes()

    def _sync_directory(self, path: Path) -> None:
        self._names[str(path)] = _names_in(path)
        self._history[str(path)] = []

    def _keep(self, operation: str) -> None:
        number = len(self.killed)
        live = {
            str(path.relative_to(self._root)): path.read_bytes()
            for path in self._root.rglob("*")
            if path.is_file()
        }
        inodes = {
            path.stat().st_ino: path.read_bytes()
            for path in self._root.rglob("*")
            if path.is_file()
        }
        self.killed.append(Crash(number, operation, self.note, live))
        self.worst.append(Crash(number, operation, self.note, self._image(self._names, {})))
        names = {
            directory: self._rng.choice([durable, *self._history[directory]])
            for directory, durable in self._names.items()
        }
        torn = {inode: self._torn(inode, data) for inode, data in inodes.items()}
        self.random.append(Crash(number, operation, self.note, self._image(names, torn)))

    def _image(self, names: dict[str, dict[str, int]], torn: dict[int, bytes]) -> Image:
        image: Image = {}
        for directory, entries in names.items():
            for name, inode in entries.items():
                path = str((Path(directory) / name).relative_to(self._root))
                image[path] = torn.get(inode, self._contents.get(inode, b""))
        return image

    def _torn(self, inode: int, written: bytes) -> bytes:
        """Any sectors of what was written since the last sync, or a beginning of them."""
        durable = self._contents.get(inode, b"")
        if len(written) != len(durable):
            return self._rng.choice([durable, written])
        changed = [
            at
            for at in range(0, len(written), 512)
            if written[at : at + 512] != durable[at : at + 512]
        ]
        kept = changed[: self._rng.randint(0, len(changed))]
        if self._rng.random() < 0.7:
            kept = [at for at in changed if self._rng.random() < 0.7]
        data = bytearray(durable)
        for at in kept:
            data[at : at + 512] = written[at : at + 512]
        return bytes(data)


def restore(image: Image, directory: Path) -> None:
    """Make `directory` what a crash left."""
    for name in ("log", "snapshots"):
        (directory / name).mkdir(parents=True)
    for name, data in image.items():
        (directory / name).write_bytes(data)


def _path_of(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()


def _names_in(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in directory.iterdir() if path.is_file()}
