"""The data directory: its lock, the member's identity, and the vote file's first appearance."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path

from raft_agent.consensus.types import Vote
from raft_agent.storage.errors import START_ANEW, StorageError
from raft_agent.storage.files import make_directory, replace_file
from raft_agent.storage.format import (
    FormatError,
    SegmentHeader,
    decode_identity,
    decode_segment_header,
    decode_vote,
    decode_word,
    encode_identity,
    encode_promise,
    encode_vote,
    encode_word,
)

LOCK_NAME = "lock"
IDENTITY_NAME = "identity"
VOTE_NAME = "vote"
WORD_NAME = "word"
PROMISE_NAME = "version"
LAST_SEGMENT_NAME = "last-segment"
LOG_NAME = "log"
SNAPSHOTS_NAME = "snapshots"

_LONGEST_WORD_US = 600_000_000  # the longest election timeout that can be set


class DirectoryLock:
    """Keeps a second agent out of the directory for as long as this object is not released.

    flock(2) goes with the open file: it ends with the process, however that ends.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        path = data_dir / LOCK_NAME
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            if not isinstance(error, BlockingIOError):
                raise
            raise StorageError(
                f"another agent uses this data directory (process {holder or 'unknown'})",
                str(data_dir),
                advice="Stop that one first, or give this one a data_dir of its own",
            ) from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the number
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def check(self) -> None:
        """Raises StorageError when the directory is not at its place any more: what is written to
        its open files from now on, no start will find.
        """
        own = os.fstat(self._fd)
        try:
            there = (self.data_dir / LOCK_NAME).stat()
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
            raise StorageError(
                "the data directory was removed, moved or replaced while the agent ran",
                str(self.data_dir),
                advice="Nothing that this node acknowledges could be found again, so it "
                f"acknowledges nothing. Stop it, and put the directory back. {START_ANEW}",
            )

    def release(self) -> None:
        """Let others in. May be called more than once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def make_data_dir(data_dir: Path) -> None:
    """Create the directory and those above it, durably. Raises OSError."""
    missing = [path for path in (data_dir, *data_dir.parents) if not path.exists()]
    for path in reversed(missing):
        make_directory(path, 0o700)


def load_identity(data_dir: Path) -> int:
    """The member id that was born with this directory; an empty directory gets one.

    The vote file is born first, so that one that is missing later is known to be lost. Raises
    StorageError and OSError.
    """
    path = data_dir / IDENTITY_NAME
    try:
        return decode_identity(path.read_bytes())
    except FormatError as error:
        raise StorageError(f"damaged: {error}", str(path), advice=START_ANEW) from None
    except FileNotFoundError:
        _check_unborn(data_dir, path)
    replace_file(data_dir / VOTE_NAME, encode_vote(Vote()))
    member_id = secrets.randbelow((1 << 64) - 1) + 1
    replace_file(path, encode_identity(member_id))
    return member_id


def load_vote(data_dir: Path) -> tuple[Vote, list[str]]:
    """Term and vote as they were saved last, and what to warn of. Raises StorageError, OSError."""
    path = data_dir / VOTE_NAME
    advice = (
        "Without it this member could vote twice in one term. If a copy of exactly this moment "
        f"exists put it back; otherwise: {START_ANEW}"
    )
    try:
        record = decode_vote(path.read_bytes())
    except FileNotFoundError:
        raise StorageError("the vote file is missing", str(path), advice=advice) from None
    except FormatError as error:
        raise StorageError(f"damaged: {error}", str(path), advice=advice) from None
    if record.intact_copies == 2:
        return record.vote, []
    replace_file(path, encode_vote(record.vote))
    return record.vote, [f"{path}: one of its two copies was damaged and is written anew"]


def load_word(data_dir: Path) -> tuple[int, list[str]]:
    """For how many microseconds this member may have promised a leader not to vote before it was
    started now (0: never), and what to warn of. Raises OSError."""
    path = data_dir / WORD_NAME
    try:
        return decode_word(path.read_bytes()), []
    except FileNotFoundError:
        return 0, []
    except FormatError as error:
        return _LONGEST_WORD_US, [
            f"{path}: damaged: {error}. This member votes for nobody in its first ten minutes: it "
            "may have promised a leader so"
        ]


def save_word(data_dir: Path, word_us: int) -> None:
    """Durably. Blocks; raises OSError."""
    replace_file(data_dir / WORD_NAME, encode_word(word_us))


def save_promise(data_dir: Path, version: int) -> None:
    """Durably. Blocks; raises OSError."""
    replace_file(data_dir / PROMISE_NAME, encode_promise(version))


def load_last_segment(data_dir: Path) -> SegmentHeader | None:
    """The header of the segment that the log had come to, or was to begin with, when `last-segment`
    was written; the log may have gone on since. None when that is not known. Raises OSError.
    """
    try:
        return decode_segment_header((data_dir / LAST_SEGMENT_NAME).read_bytes())
    except (FileNotFoundError, FormatError):
        # A crash at a first start leaves none. A damaged one only takes this one check away.
        return None


def _check_unborn(data_dir: Path, path: Path) -> None:
    """Raise StorageError when a directory without an identity has been used before."""
    log_dir = data_dir / LOG_NAME
    used = log_dir.exists() and any(entry.suffix == ".seg" for entry in log_dir.iterdir())
    used = used or (data_dir / LAST_SEGMENT_NAME).exists()
    snapshots_dir = data_dir / SNAPSHOTS_NAME
    used = used or (snapshots_dir.exists() and any(snapshots_dir.iterdir()))
    vote_path = data_dir / VOTE_NAME
    if vote_path.exists() and not used:
        used = load_vote(data_dir)[0] != Vote()
    if used:
        raise StorageError(
            "the identity file is missing, but this directory has been used: whose votes and "
            "entries these are is not known",
            str(path),
            advice=START_ANEW,
        )
