"""Backups, as files that need no agent: written safely, checked, and made into a new cluster.

A backup is a snapshot file (`storage/snapshot_format.py`): every block in it has a checksum.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec

from raft_agent import platform
from raft_agent.consensus.generations import generation_of
from raft_agent.consensus.types import Configuration, Generation, Member, Vote
from raft_agent.machine.blocks import Section, SnapshotError, SnapshotVersionError
from raft_agent.machine.numbers import next_floor
from raft_agent.machine.snapshot import survey
from raft_agent.storage.datadir import (
    IDENTITY_NAME,
    LAST_SEGMENT_NAME,
    LOCK_NAME,
    LOG_NAME,
    SNAPSHOTS_NAME,
    VOTE_NAME,
    DirectoryLock,
    make_data_dir,
    save_promise,
)
from raft_agent.storage.errors import StorageError, in_words
from raft_agent.storage.files import make_directory, replace_file, sync_directory, write_all
from raft_agent.storage.format import (
    UnknownVersionError,
    encode_identity,
    encode_segment_header,
    encode_vote,
)
from raft_agent.storage.snapshot_format import (
    SNAPSHOT_VERSION,
    SnapshotDamageError,
    SnapshotHeader,
    SnapshotReader,
    encode_block_prefix,
    encode_end,
    encode_header,
    snapshot_name,
)

_BUFFER_BYTES = 1 << 20
_SYNC_EVERY_BYTES = 8 << 20
# FAT and exFAT, for instance, on a stick.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
_OTHER_COPY = "Use another copy of it: no part of a damaged backup is restored"


class BackupError(Exception):
    """A backup can't be written or used; `offset` is the byte at which it is damaged, else -1."""

    def __init__(self, what: str, path: Path, offset: int = -1, hint: str = "") -> None:
        self.offset = offset
        self.hint = hint
        at = f", byte {offset}" if offset >= 0 else ""
        super().__init__(f"{path}{at}: {what}")


class BackupMember(msgspec.Struct, frozen=True):
    """`role`: "voter" or "learner"."""

    name: str
    id: str
    address: str
    role: str


class BackupInfo(msgspec.Struct, frozen=True):
    """What a backup holds: all that was applied up to the log entry `index` of `term`. `version`:
    of the state's format, `file_version`: of the file's. `time_ms`: the log's time, since 1970.
    `checksum`: CRC32C of the file, 8 hexadecimal digits.
    """

    cluster_id: str
    index: int
    term: int
    revision: int
    time_ms: int
    keys: int
    messages: int
    leases: int
    sessions: int
    members: list[BackupMember]
    size_bytes: int
    checksum: str
    version: int
    file_version: int


class NewBackup:
    """A backup that is being written: under a temporary name, readable by its owner alone, until
    `finish`. Raises BackupError.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        """`force`: a file of that name is replaced."""
        self._path = path
        self._force = force
        if not force:
            self._refuse_existing()
        self._part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        self.size_bytes = 0
        self._synced_bytes = 0
        try:
            self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise BackupError(f"can't be written: {error.strerror}", path) from None

    def append(self, data: bytes) -> None:
        """Write what comes next."""
        with self._in_words():
            self.size_bytes = write_all(self._fd, [data], self.size_bytes)
            if self.size_bytes - self._synced_bytes >= _SYNC_EVERY_BYTES:
                platform.sync_data(self._fd)
                self._synced_bytes = self.size_bytes

    def finish(self) -> BackupInfo:
        """Read back and check all of it, make it durable, and give it its name."""
        with self._in_words():
            platform.sync_file(self._fd)
        info = inspect(self._part)
        with self._in_words():
            if self._force:
                self._part.replace(self._path)
            else:
                self._name_it()
            sync_directory(self._path.parent)
        self.close()
        return info

    def _name_it(self) -> None:
        """Unlike a rename alone this replaces nobody's file that has come meanwhile."""
        try:
            os.link(self._part, self._path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            self._part.replace(self._path)
        else:
            self._part.unlink()

    def close(self) -> None:
        """Remove what has not got its name. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(OSError):
                self._part.unlink()

    def _refuse_existing(self) -> None:
        if self._path.exists():
            what = "is there already"
            raise BackupError(what, self._path, hint="Give another name, or --force to replace it")

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            self._refuse_existing()
            raise
        except OSError as error:
            raise BackupError(f"can't be written: {error.strerror}", self._path) from None


def inspect(path: Path) -> BackupInfo:
    """Read the whole file and check all of it. Raises BackupError."""
    with _reading(path) as (reader, size_bytes):
        header, counts = survey(reader.blocks())
        meta = reader.meta()
    configuration = reader.header.configuration
    return BackupInfo(
        configuration.cluster_id,
        meta.index,
        meta.term,
        # A generation's numbers begin behind its floor, whatever was given out before.
        max(header.revision, generation_of(configuration).floor),
        header.time_ms,
        counts.get(Section.KEYS, 0),
        counts.get(Section.MESSAGES, 0),
        counts.get(Section.LEASES, 0),
        counts.get(Section.SESSIONS, 0),
        [
            BackupMember(
                member.name,
                f"{member.id:016x}",
                member.address,
                "learner" if member.id in configuration.learners else "voter",
            )
            for member in sorted(configuration.members, key=lambda member: member.name)
        ],
        size_bytes,
        f"{meta.checksum:08x}",
        header.version,
        SNAPSHOT_VERSION,
    )


class Restored(msgspec.Struct, frozen=True):
    """A data directory that was made from a backup: of the only member of a new cluster.
    `revision`: the store's, from which it goes on.
    """

    cluster_id: str
    member_id: str
    name: str
    address: str
    data_dir: str
    index: int
    revision: int


def restore(path: Path, data_dir: Path, name: str, address: str) -> Restored:
    """Make the backup at `path` into a new cluster, whose only member is `name` at `address`
    ("host:port"), in `data_dir`, which is empty or not there.

    The identity comes last, so that no agent starts on what a crash has left unfinished. Raises
    BackupError.
    """
    found = inspect(path)
    member_id = secrets.randbelow((1 << 64) - 1) + 1
    cluster_id = secrets.token_hex(16)
    try:
        make_data_dir(data_dir)
        others = [entry.name for entry in data_dir.iterdir() if entry.name != LOCK_NAME]
        if others and others != ["lost+found"]:
            hint = "Give one that is empty or not there yet: nothing is ever overwritten"
            raise BackupError(f"is not empty: it holds {sorted(others)[0]}", data_dir, hint=hint)
        lock = DirectoryLock(data_dir)
        try:
            with _reading(path) as (reader, _):
                former = generation_of(reader.header.configuration)
                floor = next_floor(found.revision, former.floor, found.index, found.index)
                member = Member(member_id, name, address)
                configuration = Configuration(
                    cluster_id, (member,), (member_id,), generation=Generation(floor=floor)
                )
                header = SnapshotHeader(found.index, found.term, found.index, configuration)
                if found.version > 1:
                    save_promise(data_dir, found.version)
                _write_data_dir(data_dir, header, reader, member_id)
        finally:
            lock.release()
    except (OSError, StorageError) as error:
        raise BackupError(f"can't be made a data directory: {in_words(error)}", data_dir) from None
    return Restored(
        cluster_id,
        f"{member_id:016x}",
        name,
        address,
        str(data_dir),
        found.index,
        max(floor, found.revision),
    )


def _write_data_dir(
    data_dir: Path, header: SnapshotHeader, reader: SnapshotReader, member_id: int
) -> None:
    snapshots = data_dir / SNAPSHOTS_NAME
    make_directory(snapshots, 0o700)
    make_directory(data_dir / LOG_NAME, 0o700)
    target = snapshots / snapshot_name(header.index, header.term)
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        offset = write_all(fd, [encode_header(header)], 0)
        blocks = 0
        for payload in reader.blocks():
            offset = write_all(fd, [encode_block_prefix(blocks, payload), payload], offset)
            blocks += 1
        write_all(fd, [encode_end(blocks)], offset)
        platform.sync_file(fd)
    finally:
        os.close(fd)
    sync_directory(snapshots)
    cluster_id = header.configuration.cluster_id
    begins = encode_segment_header(header.index + 1, cluster_id, is_to_come=True)
    replace_file(data_dir / LAST_SEGMENT_NAME, begins)
    replace_file(data_dir / VOTE_NAME, encode_vote(Vote(header.term)))
    replace_file(data_dir / IDENTITY_NAME, encode_identity(member_id))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[tuple[SnapshotReader, int]]:
    try:
        with path.open("rb", buffering=_BUFFER_BYTES) as file:
            yield SnapshotReader(file.read), os.fstat(file.fileno()).st_size
    except SnapshotDamageError as error:
        raise BackupError(f"damaged: {error}", path, error.offset, _OTHER_COPY) from None
    except (UnknownVersionError, SnapshotVersionError) as error:
        raise BackupError(str(error), path, hint=error.advice) from None
    except SnapshotError as error:
        raise BackupError(f"damaged: {error}", path, hint=_OTHER_COPY) from None
    except OSError as error:
        raise BackupError(f"can't be read: {error.strerror}", path) from None
