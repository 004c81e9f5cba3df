"""What `raftctl rebuild` has done to a data directory at the next start.

Identity, term and vote stay. Snapshots that are damaged go; those that are intact were compared
with a majority's state before they got their names. A log that is damaged is cut in front of its
first damage, and what stood behind that may have been acknowledged: until a leader has filled the
log again up to where it ended, this member neither stands for election nor votes for a log that
ends before that (`Vote`, floor).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from raft_agent.consensus import batch as batches
from raft_agent.consensus.types import Configuration, SnapshotMeta, Vote
from raft_agent.storage.datadir import (
    IDENTITY_NAME,
    LAST_SEGMENT_NAME,
    LOG_NAME,
    SNAPSHOTS_NAME,
    VOTE_NAME,
    DirectoryLock,
    load_identity,
    load_vote,
)
from raft_agent.storage.errors import START_ANEW, StorageError
from raft_agent.storage.files import replace_file, sync_directory
from raft_agent.storage.format import (
    SEGMENT_HEADER_SIZE,
    FormatError,
    decode_segment_header,
    encode_segment_header,
    encode_vote,
    parse_segment_name,
)
from raft_agent.storage.judge import Verdict, decode_configuration
from raft_agent.storage.log import cut_file
from raft_agent.storage.scan import scan_segment
from raft_agent.storage.snapshot_files import DamagedSnapshotError, verify
from raft_agent.storage.snapshot_format import parse_snapshot_name
from raft_agent.storage.snapshots import open_snapshots

REQUEST_NAME = "rebuild"

_MAGIC_BYTES = batches.MAGIC.to_bytes(4, "little")


class _Damage(msgspec.Struct, frozen=True):
    """The segment number `place` is no part of the log from byte `offset` on."""

    place: int
    offset: int
    reason: str


class _Findings(msgspec.Struct, frozen=True):
    """`names`: of all segments, of which `kept` stay; `newest`: the latest intact snapshot."""

    names: list[str]
    kept: list[str]
    damage: _Damage | None
    newest: SnapshotMeta | None


def request_mending(data_dir: Path, last_term: int = 0, last_index: int = 0) -> None:
    """Have the directory mended at the next start. (`last_term`, `last_index`): where the log is
    known to end; zeros: it is not known. Blocks; raises OSError."""
    replace_file(data_dir / REQUEST_NAME, f"{last_term} {last_index}\n".encode())


class InUseError(Exception):
    """An agent runs on that data directory: the one of the member `name`, "" when not known."""

    def __init__(self, data_dir: Path, name: str) -> None:
        super().__init__(str(data_dir))
        self.name = name


class UnusableError(Exception):
    """The data directory can't be used, nor mended; str() says why, `advice` what to do."""

    def __init__(self, error: StorageError) -> None:
        super().__init__(f"{error.path}: {error.what}" if error.path else error.what)
        self.advice = error.advice


class OnlyVoterError(Exception):
    """The log or its snapshot is damaged, and nobody else has it; str() says where."""


def request_offline(data_dir: Path, *, force: bool = False) -> None:
    """The same for a directory that no agent runs on. Raises InUseError, FileNotFoundError when it
    is none, OnlyVoterError unless `force`, UnusableError, OSError."""
    (data_dir / IDENTITY_NAME).stat()
    try:
        lock = DirectoryLock(data_dir)
    except StorageError:
        raise InUseError(data_dir, _member_name(data_dir)) from None
    try:
        found = _survey(data_dir)
        if not force:
            _check_refillable(data_dir, found.names, found.damage)
        request_mending(data_dir)
    except StorageError as error:
        if not force and _is_only_voter(data_dir):
            raise OnlyVoterError(str(UnusableError(error))) from error
        raise UnusableError(error) from error
    finally:
        lock.release()


def check_refillable(data_dir: Path) -> None:
    """Raises OnlyVoterError when the log is damaged and this member the only voter, by the newest
    configuration that can still be read, in front of the damage or behind it. Blocks; raises
    OSError and StorageError."""
    _check_refillable(data_dir, *_look_for_damage(data_dir))


def _check_refillable(data_dir: Path, names: list[str], damage: _Damage | None) -> None:
    if damage is not None and _is_only_voter(data_dir):
        path = data_dir / LOG_NAME / names[damage.place]
        raise OnlyVoterError(f"{path}, byte {damage.offset}: {damage.reason}")


def _is_only_voter(data_dir: Path) -> bool:
    newest = _newest_configuration(data_dir)
    voters = {*newest.voters, *newest.voters_outgoing} if newest is not None else set()
    return voters == {load_identity(data_dir)}


def _newest_configuration(data_dir: Path) -> Configuration | None:
    """The newest one that can be read. Changes nothing, since an agent may run."""
    found: list[tuple[int, Configuration]] = []
    snapshots = data_dir / SNAPSHOTS_NAME
    names = (path.name for path in snapshots.iterdir()) if snapshots.is_dir() else iter(())
    for name in sorted(filter(parse_snapshot_name, names), reverse=True):
        with contextlib.suppress(DamagedSnapshotError):
            meta = verify(snapshots / name)
            found.append((meta.configuration_index, meta.configuration))
            break
    for name in _segment_names(data_dir / LOG_NAME):
        found += _configurations((data_dir / LOG_NAME / name).read_bytes())
    return max(found, key=lambda item: item[0])[1] if found else None


def _member_name(data_dir: Path) -> str:
    """Whose directory it is; empty when that can't be told."""
    with contextlib.suppress(StorageError, OSError):
        configuration = _newest_configuration(data_dir)
        member_id = load_identity(data_dir)
        for member in configuration.members if configuration is not None else ():
            if member.id == member_id:
                return member.name
    return ""


def mend(data_dir: Path) -> list[str]:
    """Do what was requested, if it was; a sentence for each thing that was done. A crash on the way
    leaves the request. Blocks; raises OSError and StorageError."""
    request = data_dir / REQUEST_NAME
    try:
        noted = request.read_text("ascii", "replace").split()
    except FileNotFoundError:
        return []
    known_end = (0, 0)
    with contextlib.suppress(ValueError):
        last_term, last_index = map(int, noted)
        known_end = (last_term, last_index)
    done = _mend_log(data_dir, known_end)
    request.unlink()
    sync_directory(data_dir)
    return done


def _survey(data_dir: Path) -> _Findings:
    """What mending has to do. Raises StorageError when what would be left is no beginning:
    neither a log from index 1 on nor a snapshot from which it goes on."""
    directory = data_dir / LOG_NAME
    names, damage = _look_for_damage(data_dir)
    kept = names
    if damage is not None:
        kept = names[: damage.place + (damage.offset > SEGMENT_HEADER_SIZE)]
    snapshots = open_snapshots(data_dir / SNAPSHOTS_NAME)
    snapshots.store.close()
    newest = next(iter(snapshots.intact), None)
    if damage is not None and not kept and newest is None:
        raise StorageError(
            f"nothing of the log is left in front of its damage: {damage.reason}",
            str(directory / names[damage.place]),
            damage.offset,
            START_ANEW,
        )
    first_index = (parse_segment_name(kept[0]) or 0) if kept else 0
    if first_index > (newest.index if newest is not None else 0) + 1:
        what = f"the log begins with index {first_index}, and no snapshot up to there is intact"
        raise StorageError(what, str(directory / kept[0]), advice=START_ANEW)
    if not names and newest is None and snapshots.damaged:
        what = "the snapshot is damaged, and there is neither a log nor another one"
        raise StorageError(what, snapshots.damaged[0].path, advice=START_ANEW)
    return _Findings(names, kept, damage, newest)


def _mend_log(data_dir: Path, known_end: tuple[int, int]) -> list[str]:
    found = _survey(data_dir)
    names, kept, damage = found.names, found.kept, found.damage
    if damage is None:
        return []
    directory = data_dir / LOG_NAME
    path = directory / names[damage.place]
    vote, _ = load_vote(data_dir)
    doubted = ((directory / name).read_bytes() for name in names[damage.place :])
    last_entry = _last_entry(doubted, damage.offset) or (vote.term + 1, 0)
    floor = max((vote.floor_term, vote.floor_index), known_end, last_entry)
    # The promise is on the medium before anything goes that it stands for.
    replace_file(data_dir / VOTE_NAME, encode_vote(Vote(vote.term, vote.voted_for, *floor)))
    replace_file(data_dir / LAST_SEGMENT_NAME, _last_segment(directory, kept, found.newest))
    for name in reversed(names[len(kept) :]):
        (directory / name).unlink()
        sync_directory(directory)
    if len(kept) > damage.place:
        cut_file(path, damage.offset)
    return [
        f"{path}, byte {damage.offset}: {damage.reason}; the log was cut there. This node does not "
        f"stand for election and votes as if its log ended at term {floor[0]}, index {floor[1]}, "
        "until a leader has filled it again"
    ]


def _look_for_damage(data_dir: Path) -> tuple[list[str], _Damage | None]:
    """The names of all segments, and where the log stops being intact."""
    directory = data_dir / LOG_NAME
    names = _segment_names(directory)
    # One after the other: all of a log may be more than there is memory.
    return names, _first_damage(names, ((directory / name).read_bytes() for name in names))


def _segment_names(directory: Path) -> list[str]:
    if not directory.is_dir():
        return []
    return sorted(p.name for p in directory.iterdir() if parse_segment_name(p.name) is not None)


def _configurations(data: bytes) -> list[tuple[int, Configuration]]:
    """(index, configuration) of all intact entries of that kind, wherever they stand."""
    found = []
    at = SEGMENT_HEADER_SIZE
    while (at := data.find(_MAGIC_BYTES, at)) >= 0:
        with contextlib.suppress(batches.BatchError):
            if batches.decode_header(data, at).kind == batches.BatchKind.CONFIGURATION:
                batch = batches.decode(data, at)
                configuration = decode_configuration(bytes(batch.payload))
                if configuration is not None and configuration.voters:
                    found.append((batch.first_index, configuration))
        at += 1
    return found


def _last_segment(directory: Path, kept: list[str], newest: SnapshotMeta | None) -> bytes:
    """What the file of that name has to say of the log that is left."""
    if not kept and newest is not None:
        cluster_id = newest.configuration.cluster_id
        return encode_segment_header(newest.index + 1, cluster_id, is_to_come=True)
    with (directory / kept[0]).open("rb") as file:
        cluster_id = decode_segment_header(file.read(SEGMENT_HEADER_SIZE)).cluster_id
    return encode_segment_header(parse_segment_name(kept[-1]) or 0, cluster_id)


def _first_damage(names: list[str], contents: Iterable[bytes]) -> _Damage | None:
    """Where the log stops being intact. A torn end is no damage: the start knows what to do."""
    last_term, next_index = 0, 0
    for place, (name, data) in enumerate(zip(names, contents, strict=True)):
        try:
            header = decode_segment_header(data)
        except FormatError as error:
            if not any(data):
                continue
            return _Damage(place, 0, f"is no segment of a log: {error}")
        if header.first_index != parse_segment_name(name):
            return _Damage(place, 0, "has the header of another segment")
        if place and header.first_index != next_index:
            return _Damage(place, 0, f"entries before index {header.first_index} are missing")
        scan = scan_segment(data, header.first_index, last_term)
        is_last = place == len(names) - 1
        if scan.verdict is Verdict.BROKEN or (scan.verdict is not Verdict.CLEAN and not is_last):
            return _Damage(place, scan.end_offset, scan.reason)
        last_term, next_index = scan.last_term, scan.next_index
    return None


def _last_entry(contents: Iterable[bytes], offset: int) -> tuple[int, int] | None:
    """(term, index) behind which these segments, the first one from byte `offset` on, certainly had
    no entry: by the headers that can still be read. Without any of them (None) all that is certain
    is that no entry is of a later term than the vote."""
    found = (0, 0)
    for place, data in enumerate(contents):
        at = offset if place == 0 else SEGMENT_HEADER_SIZE
        while (at := data.find(_MAGIC_BYTES, at)) >= 0:
            with contextlib.suppress(batches.BatchError):
                header = batches.decode_header(data, at)
                found = max(found, (header.term, header.last_index))
            at += 1
    return found if found != (0, 0) else None
