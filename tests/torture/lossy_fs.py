"""A file system that can lose what was not synced: `python -m tests.torture.lossy_fs STORE MOUNT`.

It is a layer over the directory STORE. Each write and each change of a directory notes how it can
be undone, and a sync of the file, or of a directory, forgets the notes. When the power fails,
sectors that were written since the last sync are put back, each by chance (`unsynced.py`), and of
the changes to directories a beginning stays, as on a file system with a journal. Commands come as
lines on standard input and each is answered with a line:

    lose SEED          the power failed; nobody has a file open
    fsync_fails 0|1    syncs fail with EIO; what was to be synced is not on the disk and won't be
    full 0|1           what needs room fails with ENOSPC
    fsync_takes MS     each sync takes so long
    counts             how many writes, syncs and losses there were

With mfusepy, because it is plain Python over libfuse3, is well kept and has wheels for all
processors; a write and its sync cost some dozen microseconds more than without the layer.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import mfusepy

from tests.torture.unsynced import Written, take_back


@dataclass
class Change:
    """A change of a directory that is not on the medium, and the way back."""

    kind: str
    path: str
    other: str = ""
    kept: str = ""


@dataclass
class Book:
    """What could be undone. Files are known by their inode: their names may change meanwhile."""

    writes: dict[int, list[Written]] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


class LossyFs(mfusepy.Operations):  # type: ignore[misc]
    """`store` holds the files as they are seen; what was overwritten or removed goes to `attic`."""

    use_ns = True

    def __init__(self, store: str, attic: str) -> None:
        self._store = store
        self._attic = attic
        self._attic_count = 0
        self._lock = threading.RLock()
        self.book = Book()
        self.fsync_fails = False
        self.full = False
        self.fsync_takes_s = 0.0

    def _at(self, path: str) -> str:
        return self._store + path

    # --- what only looks

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        stat = os.lstat(self._at(path)) if fh is None else os.fstat(fh)
        return {
            "st_mode": stat.st_mode,
            "st_nlink": stat.st_nlink,
            "st_size": stat.st_size,
            "st_uid": stat.st_uid,
            "st_gid": stat.st_gid,
            "st_atime": stat.st_atime_ns,
            "st_mtime": stat.st_mtime_ns,
            "st_ctime": stat.st_ctime_ns,
            "st_blocks": stat.st_blocks,
            "st_ino": stat.st_ino,
        }

    def readdir(self, path: str, fh: int) -> Iterable[str]:
        return [".", "..", *os.listdir(self._at(path))]

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._at(path))
        free = 0 if self.full else found.f_bavail
        return {
            "f_bsize": found.f_bsize,
            "f_frsize": found.f_frsize,
            "f_blocks": found.f_blocks,
            "f_bfree": free,
            "f_bavail": free,
            "f_files": found.f_files,
            "f_ffree": found.f_ffree,
            "f_namemax": found.f_namemax,
        }

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def open(self, path: str, flags: int) -> int:
        # Opened for both, so that what a write replaces can be read; the kernel checks the rest.
        flags &= ~(os.O_DIRECT | os.O_WRONLY | os.O_APPEND)
        with self._lock:
            if flags & os.O_TRUNC:
                flags &= ~os.O_TRUNC
                self.truncate(path, 0)
            return os.open(self._at(path), flags | os.O_RDWR)

    def flush(self, path: str, fh: int) -> int:
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        # Said once, the kernel asks no more before each write.
        raise mfusepy.FuseOSError(errno.ENOSYS)

    # --- what changes files

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        with self._lock:
            size = os.fstat(fh).st_size
            if self.full and offset + len(data) > size:
                raise mfusepy.FuseOSError(errno.ENOSPC)
            self._note_write(fh, offset, len(data), size)
            return os.pwrite(fh, data, offset)

    def _note_write(
        self, fh: int, offset: int, length: int, size: int, *, cuts: bool = False
    ) -> None:
        self.book.count("writes")
        before = os.pread(fh, length, offset)
        written = Written(offset, length, before, size, cuts)
        self.book.writes.setdefault(os.fstat(fh).st_ino, []).append(written)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        with self._lock:
            own = os.open(self._at(path), os.O_RDWR) if fh is None else fh
            try:
                size = os.fstat(own).st_size
                if length > size and self.full:
                    raise mfusepy.FuseOSError(errno.ENOSPC)
                if length < size:
                    self._note_write(own, length, size - length, size, cuts=True)
                elif length > size:
                    self._note_write(own, size, length - size, size)
                os.ftruncate(own, length)
            finally:
                if fh is None:
                    os.close(own)
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        with self._lock:
            if mode:
                raise mfusepy.FuseOSError(errno.EOPNOTSUPP)
            if self.full:
                raise mfusepy.FuseOSError(errno.ENOSPC)
            length = os.fstat(fh).st_size
            if offset + size > length:
                self._note_write(fh, length, 0, length)
                os.posix_fallocate(fh, offset, size)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._wait()
        with self._lock:
            self.book.count("fsyncs")
            inode = os.fstat(fh).st_ino
            if self.fsync_fails:
                # Linux keeps the pages in its cache and calls them clean; the medium has the old.
                take_back(fh, self.book.writes.pop(inode, []), lambda: True)
                raise mfusepy.FuseOSError(errno.EIO)
            self.book.writes.pop(inode, None)
        return 0

    def _wait(self) -> None:
        if self.fsync_takes_s:
            time.sleep(self.fsync_takes_s)

    # --- what changes directories

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        with self._lock:
            if self.full:
                raise mfusepy.FuseOSError(errno.ENOSPC)
            file = os.open(self._at(path), os.O_RDWR | os.O_CREAT, mode)
            self._changed(Change("create", path))
            return file

    def mkdir(self, path: str, mode: int) -> int:
        with self._lock:
            if self.full:
                raise mfusepy.FuseOSError(errno.ENOSPC)
            os.mkdir(self._at(path), mode)
            self._changed(Change("mkdir", path))
        return 0

    def rmdir(self, path: str) -> int:
        with self._lock:
            os.rmdir(self._at(path))
            self._changed(Change("rmdir", path))
        return 0

    def unlink(self, path: str) -> int:
        with self._lock:
            self._changed(Change("unlink", path, kept=self._keep(path)))
        return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        with self._lock:
            kept = self._keep(new) if os.path.isfile(self._at(new)) else ""
            os.rename(self._at(old), self._at(new))
            self._changed(Change("rename", old, new, kept))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._at(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.chown(self._at(path), uid, gid)
        return 0

    def utimens(self, path: str, times: Any = None) -> int:
        return 0

    def _keep(self, path: str) -> str:
        """Put a file aside, from where it can come back."""
        self._attic_count += 1
        kept = f"{self._attic}/{self._attic_count}"
        os.rename(self._at(path), kept)
        return kept

    def _changed(self, change: Change) -> None:
        self.book.count("changes")
        self.book.changes.append(change)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._wait()
        with self._lock:
            self.book.count("fsyncs")
            if self.fsync_fails:
                raise mfusepy.FuseOSError(errno.EIO)
            for change in self.book.changes:
                self._forget(change)
            self.book.changes = []
        return 0

    def _forget(self, change: Change) -> None:
        if change.kept:
            self.book.writes.pop(os.lstat(change.kept).st_ino, None)
            os.unlink(change.kept)

    # --- the power fails

    def lose(self, seed: int) -> str:
        """What was not synced is gone, or some of it; the answer says how much."""
        chance = random.Random(seed)
        with self._lock:
            # Sometimes a disk has written all, or nothing; mostly some.
            share = chance.choice([0.0, 0.0, 0.5, 0.9, 1.0])
            lost = 0
            files = {os.lstat(p).st_ino: p for p in self._files()}
            for inode, writes in self.book.writes.items():
                if inode not in files:
                    continue
                fh = os.open(files[inode], os.O_RDWR)
                try:
                    lost += take_back(fh, writes, lambda: chance.random() >= share)
                finally:
                    os.close(fh)
            self.book.writes.clear()
            stay = chance.randrange(len(self.book.changes) + 1)
            if share == 0.0:
                stay = 0
            undone = self.book.changes[stay:]
            for change in reversed(undone):
                self._take_back(change)
            for change in self.book.changes[:stay]:
                self._forget(change)
            self.book.changes = []
            self.book.count("losses")
        return f"{lost} sectors and {len(undone)} changes of directories lost"

    def _files(self) -> list[str]:
        found = []
        for top in (self._store, self._attic):
            for folder, _, names in os.walk(top):
                found += [os.path.join(folder, name) for name in names]
        return found

    def _take_back(self, change: Change) -> None:
        path = self._at(change.path)
        if change.kind == "create":
            os.unlink(path)
        elif change.kind == "mkdir":
            os.rmdir(path)
        elif change.kind == "rmdir":
            os.mkdir(path, 0o700)
        elif change.kind == "unlink":
            os.rename(change.kept, path)
        else:
            os.rename(self._at(change.other), path)
            if change.kept:
                os.rename(change.kept, self._at(change.other))

    def obey(self, line: str) -> str:
        """Carry out one command; the answer."""
        word, _, rest = line.strip().partition(" ")
        if word == "lose":
            return self.lose(int(rest))
        if word == "fsync_fails":
            self.fsync_fails = rest == "1"
        elif word == "full":
            self.full = rest == "1"
        elif word == "fsync_takes":
            self.fsync_takes_s = int(rest) / 1000
        elif word == "counts":
            return " ".join(f"{name}={n}" for name, n in sorted(self.book.counts.items()))
        else:
            return f"no such command: {word}"
        return "done"


def _listen(layer: LossyFs) -> None:
    for line in sys.stdin:
        try:
            answer = layer.obey(line)
        except Exception as error:  # whoever waits for the answer has to hear of it
            answer = f"failed: {error!r}"
        print(answer, flush=True)


def main() -> int:
    store, mount = sys.argv[1:]
    attic = store + ".attic"
    os.makedirs(attic, exist_ok=True)
    layer = LossyFs(store, attic)
    threading.Thread(target=_listen, args=(layer,), daemon=True).start()
    mfusepy.FUSE(
        layer,
        mount,
        foreground=True,
        nothreads=True,
        allow_other=True,
        default_permissions=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
        fsname="raft-lossy",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
