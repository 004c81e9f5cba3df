"""What a disk may give back: segments, small files, whole directories, snapshots."""

from __future__ import annotations

import functools
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from raft_agent.consensus import batch as batches
from raft_agent.consensus.types import Vote
from raft_agent.machine.blocks import SnapshotError, encode_block
from raft_agent.machine.machine import Machine
from raft_agent.storage.datadir import load_last_segment, load_vote, load_word
from raft_agent.storage.errors import StorageError
from raft_agent.storage.format import (
    SEGMENT_HEADER_SIZE,
    SYNC_MAGIC,
    SYNC_MARKER_SIZE,
    FormatError,
    decode_identity,
    decode_promise,
    decode_segment_header,
    decode_vote,
    decode_word,
    encode_identity,
    encode_promise,
    encode_segment_header,
    encode_sync_marker,
    encode_vote,
    encode_word,
    segment_name,
)
from raft_agent.storage.plan import plan_recovery
from raft_agent.storage.scan import batches_between, scan_segment
from raft_agent.storage.snapshot_files import verify
from raft_agent.storage.snapshot_format import (
    SnapshotHeader,
    SnapshotReader,
    encode_block_prefix,
    encode_end,
    encode_header,
    parse_snapshot_name,
)
from raft_agent.storage.store import Store
from tests.fuzz.target import Target
from tests.fuzz.targets.frames import mend_batches
from tests.fuzz.targets.machine import exercise
from tests.unit.storage.support import (
    CLUSTER,
    configuration,
    configuration_batch,
    make_log,
    one_by_one,
    snapshot_bytes,
    written,
)

# --- segments -------------------------------------------------------------------------------------

_HEADER = encode_segment_header(1, CLUSTER)


def scan(data: bytes) -> None:
    """Whatever a segment holds, it gets a verdict, and the batches before that are whole."""
    file = _HEADER + data
    found = scan_segment(file, 1)
    assert SEGMENT_HEADER_SIZE <= found.end_offset <= len(file)
    index = 1
    for batch in batches_between(file, SEGMENT_HEADER_SIZE, found.end_offset):
        assert batches.decode(batch.record).first_index == index
        index = batch.last_index + 1
    assert index == found.next_index
    try:
        plan = plan_recovery([(segment_name(1), file)], Vote())
    except StorageError as error:
        assert "log" in str(error)
        return
    assert plan.last_index == found.next_index - 1


def mend_groups(data: bytes) -> bytes:
    """Markers and batches with checksums that match, one after the other."""
    out = b""
    while len(data) > SYNC_MARKER_SIZE and data[0]:
        if data.startswith(SYNC_MAGIC):
            index = int.from_bytes(data[4:12], "little")
            out += encode_sync_marker(index, SEGMENT_HEADER_SIZE + len(out))
            data = data[SYNC_MARKER_SIZE:]
        end = data.find(SYNC_MAGIC)
        end = len(data) if end < 0 else end
        out += mend_batches(data[:end])
        data = data[end:]
        if not end:
            break
    return out + data


def _groups() -> list[bytes]:
    log = [configuration_batch(1), *make_log([30, 200, 0], first_index=2)]
    torn = one_by_one(log)
    return [
        one_by_one(log) + bytes(100),
        written([log[:2], log[2:]]),
        torn[:-30] + bytes(600),
        torn[:100] + bytes(len(torn) - 100),
    ]


# --- small files ----------------------------------------------------------------------------------

_DECODERS = (
    decode_segment_header,
    decode_vote,
    decode_identity,
    decode_word,
    decode_promise,
)
_BLOCK_BYTES = 4096


def small_files(data: bytes) -> None:
    """Vote, identity, word and the headers of segments are read, or refused as damaged."""
    if not data:
        return
    kind, is_mended = divmod(data[0], 2)
    content = data[1:]
    decode = _DECODERS[kind % len(_DECODERS)]
    if is_mended:
        crc = google_crc32c.value(content)
        if decode in (decode_identity, decode_word, decode_promise):
            content += b"crc32c = %08x\n" % crc
        else:
            content = (content + crc.to_bytes(4, "little"))[:_BLOCK_BYTES]
            content = content.ljust(_BLOCK_BYTES, b"\0") * 2
    try:
        assert decode(content) is not None
    except FormatError as error:
        assert str(error)
    for name in (content[:40].decode("latin-1"), f"{content[:20]!r}.snap"):
        parse_snapshot_name(name)


def _small_files() -> list[bytes]:
    header = encode_segment_header(5, CLUSTER)
    vote = encode_vote(Vote(3, 9, 2, 7))
    found = [b"\0" + header, b"\2" + vote, b"\4" + encode_identity(77), b"\6" + encode_word(300)]
    found += [b"\1" + header[:88], b"\3" + vote[:48]]
    found.append(b"\x08" + encode_promise(1))
    for start, text in (
        (b"\5", encode_identity(77)),
        (b"\7", encode_word(300)),
        (b"\x09", encode_promise(1)),
    ):
        found.append(start + text.rpartition(b"crc32c")[0])
    return found


# --- a directory ----------------------------------------------------------------------------------

_NAMES = (
    "log/00000000000000000001.seg",
    "log/00000000000000000004.seg",
    "vote",
    "identity",
    "word",
    "last-segment",
    "snapshots/00000000000000000003-00000000000000000001.snap",
    "log/next.tmp",
    "version",
)


@functools.cache
def _scratch() -> str | None:
    """Where syncing costs nothing."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108


def open_directory(data: bytes) -> None:
    """A data directory with changed files is opened, or refused; what was opened can be opened
    again, and holds the same."""
    root = Path(tempfile.mkdtemp(prefix="raft-fuzz-", dir=_scratch()))
    try:
        data_dir = root / "data"
        _lay_out(data_dir, data)
        try:
            store = Store.open(data_dir, segment_bytes=64 << 10)
        except StorageError as error:
            assert str(error)
            return
        held = store.recovered.log, store.recovered.vote, store.read(1, 1 << 40)
        store.close()
        again = Store.open(data_dir, segment_bytes=64 << 10)
        assert (again.recovered.log, again.recovered.vote, again.read(1, 1 << 40)) == held
        again.close()
        load_vote(data_dir)
        load_word(data_dir)
        load_last_segment(data_dir)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _lay_out(data_dir: Path, data: bytes) -> None:
    """A sound directory, with changes: (file, kind, place, bytes) each."""
    for name, content in _sound_directory().items():
        path = data_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    while len(data) >= 5:
        path = data_dir / _NAMES[data[0] % len(_NAMES)]
        kind, place, size = data[1] % 5, int.from_bytes(data[2:4], "little"), data[4]
        new, data = data[5 : 5 + size], data[5 + size :]
        content = path.read_bytes() if path.exists() else b""
        if kind == 0:
            content = content[:place] + new + content[place + len(new) :]
        elif kind == 1:
            content = content[:place]
        elif kind == 2:
            content = content + new
        elif kind == 3:
            content = content[:place] + bytes(512) + content[place + 512 :]
        else:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@functools.cache
def _sound_directory() -> dict[str, bytes]:
    log = [configuration_batch(1), *make_log([30, 40], first_index=2)]
    last = log[-1].last_index + 1
    later = make_log([50, 60], first_index=last, term=9)
    header = encode_segment_header(last, CLUSTER)
    return {
        _NAMES[0]: _HEADER + one_by_one(log),
        f"log/{segment_name(last)}": header + one_by_one(later) + bytes(700),
        "vote": encode_vote(Vote(20, 1, 0, 0)),
        "identity": encode_identity(1),
        "word": encode_word(300_000),
        "version": encode_promise(1),
        "last-segment": header,
    }


def _changes() -> list[bytes]:
    return [
        b"",
        bytes((0, 0, 9, 32, 3)) + b"abc",
        bytes((1, 1, 0, 33, 0)),
        bytes((2, 0, 3, 0, 1)) + b"x",
        bytes((3, 4, 0, 0, 0)),
        bytes((5, 4, 0, 0, 0)) + bytes((7, 2, 0, 0, 2)) + b"zz",
        bytes((6, 2, 0, 0, 4)) + b"SNAP",
        bytes((0, 3, 0, 33, 0)),
    ]


# --- snapshots ------------------------------------------------------------------------------------


def read_snapshot(data: bytes) -> None:
    """A snapshot is refused, or becomes a machine that goes on."""
    try:
        reader = SnapshotReader(io.BytesIO(data).read)
        blocks = list(reader.blocks())
        meta = reader.meta()
    except FormatError as error:
        assert str(error)
        return
    assert meta.size_bytes == len(data)
    restore(blocks, meta.index)


def restore(blocks: list[bytes], index: int) -> None:
    try:
        machine = Machine.restore(blocks)
    except SnapshotError as error:
        assert str(error)
        return
    if machine.last_applied != index:
        return  # the runtime refuses it
    twin = Machine.restore(blocks)
    assert machine.digest() == twin.digest()
    exercise(machine, twin)


def mend_snapshot(data: bytes) -> bytes:
    """Preamble, header, blocks and end with checksums that match."""
    preamble = data[:12].ljust(12, b"\0")
    out = preamble + _crc(preamble)
    at = 16
    fields = data[at : at + 28].ljust(28, b"\0")
    length = min(int.from_bytes(fields[:4], "little"), max(len(data) - at - 28, 0))
    body = length.to_bytes(4, "little") + fields[4:] + data[at + 28 : at + 28 + length]
    out += body + _crc(body)
    at += 28 + length + 4
    number = 0
    while len(data) - at > 20:
        length = min(int.from_bytes(data[at : at + 4], "little"), len(data) - at - 20)
        if not length:
            break
        payload = data[at + 8 : at + 8 + length]
        out += encode_block_prefix(number, payload) + payload
        at += 8 + length
        number += 1
    return out + encode_end(number)


def _crc(data: bytes) -> bytes:
    return google_crc32c.value(data).to_bytes(4, "little")


def blocks_of(machine: Machine) -> Iterator[bytes]:
    view = machine.begin_snapshot()
    while (portion := view.next_items(2)) is not None:
        yield encode_block(portion)
    view.close()


def _machine_file(machine: Machine) -> bytes:
    data = encode_header(SnapshotHeader(machine.last_applied, 1, 1, configuration()))
    number = 0
    for number, block in enumerate(blocks_of(machine), start=1):
        data += encode_block_prefix(number - 1, block) + block
    return data + encode_end(number)


def _snapshots() -> list[bytes]:
    from tests.fuzz.targets.machine import full_machine  # noqa: PLC0415

    return [snapshot_bytes(5, size_bytes=80), _machine_file(full_machine())]


def verify_file(data: bytes) -> None:
    """The same as a file, as at a start."""
    with tempfile.NamedTemporaryFile(prefix="raft-fuzz-", dir=_scratch()) as file:
        file.write(data)
        file.flush()
        try:
            assert verify(Path(file.name)).size_bytes == len(data)
        except StorageError as error:
            assert file.name in str(error)


TARGETS = (
    Target("segments", scan, _groups, mend_groups),
    Target("small_files", small_files, _small_files),
    Target("data_directory", open_directory, _changes, max_bytes=512),
    Target("snapshots", read_snapshot, _snapshots, mend_snapshot),
    Target("snapshot_files", verify_file, _snapshots, mend_snapshot),
)
