"""A data directory of another version is refused in one clear sentence, and left as it is."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pytest

from raft_agent.consensus import batch as batches
from raft_agent.storage.errors import StorageError
from raft_agent.storage.format import BLOCK_BYTES, SEGMENT_HEADER_SIZE, encode_promise
from raft_agent.storage.snapshot_format import snapshot_name
from raft_agent.storage.store import Store
from raft_agent.versions import Versions
from tests.golden.make import DATA, SNAPSHOT_INDEX, VERSION_1, contents

FIRST = Versions(1, 1)
SEGMENT = "log/00000000000000000001.seg"
SNAPSHOT = f"snapshots/{snapshot_name(SNAPSHOT_INDEX, 2)}"


def crc(data: bytes) -> bytes:
    return google_crc32c.value(data).to_bytes(4, "little")


def block(body_bytes: int) -> Callable[[bytes, int], bytes]:
    """What makes another version of a file that begins with two blocks with such a body."""

    def change(data: bytes, version: int) -> bytes:
        body = data[:8] + version.to_bytes(2, "little") + data[10:body_bytes]
        blocks = (body + crc(body)).ljust(BLOCK_BYTES, b"\0") * 2
        return blocks + data[2 * BLOCK_BYTES :]

    return change


def text(data: bytes, version: int) -> bytes:
    lines = data.replace(b"format = 1\n", b"format = %d\n" % version).rpartition(b"crc32c = ")[0]
    return lines + b"crc32c = %08x\n" % google_crc32c.value(lines)


def preamble(data: bytes, version: int) -> bytes:
    head = data[:8] + version.to_bytes(2, "little") + data[10:12]
    return head + crc(head) + data[16:]


def first_batch(data: bytes, version: int) -> bytes:
    begin = data.index(batches.MAGIC.to_bytes(4, "little"), SEGMENT_HEADER_SIZE)
    head = data[begin : begin + 4] + bytes([version]) + data[begin + 5 : begin + 36]
    head += crc(head)
    length = batches.decode_header(data, begin).payload_length
    tail = begin + batches.HEADER_SIZE + length
    end = tail + batches.HEADER_SIZE
    payload = data[begin + batches.HEADER_SIZE : tail]
    return data[:begin] + head + payload + head + data[end:]


FORMATS = {
    "vote": ("vote", block(48)),
    # A later version may have a longer header, with its checksum elsewhere.
    "longer vote": ("vote", block(56)),
    "identity": ("identity", text),
    "word": ("word", text),
    "promise": ("version", text),
    "last segment": ("last-segment", block(88)),
    "segment": (SEGMENT, block(88)),
    "longer segment": (SEGMENT, block(96)),
    "snapshot": (SNAPSHOT, preamble),
    "batch": (SEGMENT, first_batch),
}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    shutil.copytree(VERSION_1 / DATA, tmp_path / DATA)
    return tmp_path / DATA


def refusal(data_dir: Path, versions: Versions = FIRST) -> str:
    before = contents(data_dir)
    with pytest.raises(StorageError) as caught:
        Store.open(data_dir, versions=versions)
    after = contents(data_dir)
    after.pop("lock", None)
    before.pop("lock", None)
    assert after == before
    return str(caught.value)


@pytest.mark.parametrize(("name", "change"), FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("version", [2, 0], ids=["later", "older"])
def test_a_format_of_another_version_is_refused_and_nothing_is_touched(
    data_dir: Path, name: str, change: Callable[[bytes, int], bytes], version: int
) -> None:
    path = data_dir / name
    path.write_bytes(change(path.read_bytes(), version))
    said = refusal(data_dir)
    assert said.startswith(f"{data_dir}")
    assert f"of version {version}" in said
    assert "knows version 1" in said
    assert "damaged" not in said
    assert "Install" in said


def test_a_log_that_may_hold_what_a_later_version_brought_is_refused(data_dir: Path) -> None:
    (data_dir / "version").write_bytes(encode_promise(3))
    said = refusal(data_dir, Versions(1, 2))
    assert "what it holds is of version 3, and raft-agent" in said
    assert "knows versions 1 to 2. Install a raft-agent that knows version 3" in said


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_log_that_is_older_than_supported_is_refused(data_dir: Path, is_noted: bool) -> None:
    if not is_noted:
        (data_dir / "version").unlink()
    said = refusal(data_dir, Versions(2, 3))
    assert "of version 1" in said
    assert "Install an older raft-agent that knows version 1 and a later one" in said


def test_an_empty_directory_is_of_no_version(tmp_path: Path) -> None:
    Store.open(tmp_path / DATA, versions=Versions(2, 3)).close()


def test_a_promise_that_can_not_be_read_is_no_leave_to_start(data_dir: Path) -> None:
    (data_dir / "version").write_bytes(b"cluster_version = 1\n")
    assert "version: damaged" in refusal(data_dir)


def test_a_promise_holds_for_every_later_start(data_dir: Path) -> None:
    store = Store.open(data_dir, versions=Versions(1, 2))
    store.save_promise(2)
    store.close()
    assert "of version 2" in refusal(data_dir)
    store = Store.open(data_dir, versions=Versions(2, 3))
    assert store.recovered.promised_version == 2
    store.close()


def test_an_older_promise_takes_no_newer_one_back(data_dir: Path) -> None:
    store = Store.open(data_dir, versions=Versions(1, 3))
    store.save_promise(3)
    store.save_promise(2)
    store.close()
    store = Store.open(data_dir, versions=Versions(1, 3))
    assert store.recovered.promised_version == 3
    store.save_promise(2)
    store.close()
    assert "of version 3" in refusal(data_dir)


def test_promises_of_two_threads_are_written_one_after_the_other(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the leader changes within one fsync: both would write the same file."""
    both, writing, saved = threading.Event(), threading.Event(), []

    def save(_: Path, version: int) -> None:
        if writing.is_set():
            both.set()
        writing.set()
        saved.append((version, both.wait(0.2)))
        writing.clear()

    store = Store.open(data_dir, versions=Versions(1, 3))
    monkeypatch.setattr("raft_agent.storage.store.save_promise", save)
    threads = [threading.Thread(target=store.save_promise, args=(v,)) for v in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert (saved[-1][0], both.is_set()) == (3, False)
