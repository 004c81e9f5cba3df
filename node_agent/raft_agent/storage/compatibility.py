"""Whether this program may touch a data directory at all: asked before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from raft_agent.storage.datadir import (
    IDENTITY_NAME,
    LAST_SEGMENT_NAME,
    LOG_NAME,
    PROMISE_NAME,
    SNAPSHOTS_NAME,
    VOTE_NAME,
    WORD_NAME,
)
from raft_agent.storage.errors import START_ANEW, StorageError
from raft_agent.storage.format import (
    FormatError,
    UnknownVersionError,
    decode_identity,
    decode_promise,
    decode_segment_header,
    decode_vote,
    decode_word,
)
from raft_agent.storage.snapshot_format import SUFFIX, SnapshotReader
from raft_agent.versions import Versions, advise, other_version

_LARGEST_BYTES = 64 << 10  # of what is read here of a file

_READERS: dict[str, Callable[[bytes], object]] = {
    IDENTITY_NAME: decode_identity,
    VOTE_NAME: decode_vote,
    WORD_NAME: decode_word,
    PROMISE_NAME: decode_promise,
    LAST_SEGMENT_NAME: decode_segment_header,
}


def promised_version(data_dir: Path, known: Versions) -> int:
    """The cluster version that this directory's member has promised to know, 1 when it never
    promised any: nothing in its log needs a later one.

    Raises StorageError when that is none of `known`, or a file is of a format of another version.
    What is damaged is left to those who need it, but for the promise itself. Raises OSError.
    """
    for path, decode in _files(data_dir):
        try:
            decode(path)
        except UnknownVersionError as error:
            raise StorageError(str(error), str(path), advice=error.advice) from None
        except (FormatError, FileNotFoundError):
            continue
    promised = _promise_in(data_dir / PROMISE_NAME)
    if promised not in known and (data_dir / IDENTITY_NAME).exists():
        what = other_version("what it holds", promised, known)
        raise StorageError(what, str(data_dir), advice=advise(promised, known))
    return promised


def _promise_in(path: Path) -> int:
    try:
        return decode_promise(path.read_bytes())
    except FileNotFoundError:
        return 1
    except FormatError as error:
        raise StorageError(f"damaged: {error}", str(path), advice=START_ANEW) from None


def _files(data_dir: Path) -> Iterator[tuple[Path, Callable[[Path], object]]]:
    """Every file that says its version, and what looks for it."""
    for name, decode in _READERS.items():
        yield data_dir / name, partial(_read_beginning, decode)
    for path in sorted((data_dir / LOG_NAME).glob("*.seg")):
        yield path, partial(_read_beginning, decode_segment_header)
    for path in sorted((data_dir / SNAPSHOTS_NAME).glob(f"*{SUFFIX}")):
        yield path, _read_snapshot_header


def _read_beginning(decode: Callable[[bytes], object], path: Path) -> None:
    with path.open("rb") as file:
        decode(file.read(_LARGEST_BYTES))


def _read_snapshot_header(path: Path) -> None:
    with path.open("rb") as file:
        SnapshotReader(file.read)
