"""Power fails at three virtual machines at once, some times; `python -m tests.torture.power_loss`
does it for as often as one likes."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture import drive
from tests.torture.drive import SECTOR, Drive
from tests.torture.guests import missing
from tests.torture.planted import PLANTED, finds
from tests.torture.power_loss import lose_power

ROUNDS = 2
# A busy machine may come back too late for anything to be seen.
SEEDS = 3


class Machine:
    """What a virtual machine does at a drive: one request after the other."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._receive(18)
        self._socket.sendall(struct.pack(">I8sII", 1, b"IHAVEOPT", 1, 0))
        size, flags = struct.unpack(">QH", self._receive(10 + 124)[:10])
        assert size == 8 * SECTOR
        assert flags & 4

    def write(self, sector: int, byte: bytes, *, flags: int = 0) -> None:
        self._ask(drive.WRITE, sector * SECTOR, byte * SECTOR, flags)

    def flush(self) -> None:
        self._ask(drive.FLUSH, 0)

    def read(self) -> bytes:
        """The first byte of each sector."""
        self._ask(drive.READ, 0, length=8 * SECTOR)
        return self._receive(8 * SECTOR)[::SECTOR]

    def lose_power(self) -> None:
        self._socket.close()

    def _ask(
        self, kind: int, offset: int, data: bytes = b"", flags: int = 0, length: int = 0
    ) -> None:
        head = (drive.REQUEST_MAGIC, flags, kind, 7, offset, length or len(data))
        self._socket.sendall(drive.REQUEST.pack(*head) + data)
        answer = drive.REPLY.unpack(self._receive(drive.REPLY.size))
        assert answer == (drive.REPLY_MAGIC, 0, 7)

    def _receive(self, length: int) -> bytes:
        return self._socket.recv(length, socket.MSG_WAITALL)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Drive]:
    found = Drive(tmp_path / "drive", b"." * 8 * SECTOR)
    try:
        yield found
    finally:
        found.close()


def test_a_drive_keeps_what_was_flushed_and_loses_what_was_not(made: Drive) -> None:
    lost = set()
    for seed in range(10):
        machine = Machine(made.path)
        for sector in range(8):
            machine.write(sector, b"a")
        machine.flush()
        machine.write(0, b"b", flags=drive.FUA)
        for sector in range(4, 8):
            machine.write(sector, b"c")
        assert machine.read() == b"baaacccc"
        machine.lose_power()
        lost.add(made.power_returns(random.Random(seed)))
        machine = Machine(made.path)
        found = machine.read()
        machine.lose_power()
        assert found[:4] == b"baaa"
        assert set(found[4:]) <= {*b"ac"}
    assert 4 in lost
    assert len(lost) > 1


def test_a_drive_does_nothing_more_once_its_power_has_failed(made: Drive) -> None:
    machine = Machine(made.path)
    machine.write(0, b"a")
    made.fail_power()
    with pytest.raises(struct.error):
        machine.flush()
    machine.lose_power()
    made.power_returns(random.Random(1))
    machine = Machine(made.path)
    assert machine.read() == b"." * 8
    machine.lose_power()


needs_machines = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.mark.long
@needs_machines
def test_what_was_acknowledged_outlasts_power_failures_of_all_machines(tmp_path: Path) -> None:
    verdict = lose_power(tmp_path, ROUNDS)
    assert not verdict.complaints, verdict
    assert len(verdict.lost) == ROUNDS
    assert verdict.acknowledged > 0


@pytest.mark.long
@needs_machines
def test_a_log_that_is_never_synced_does_not_outlast_them(tmp_path: Path) -> None:
    (fault,) = (fault for fault in PLANTED if fault.name == "fsync_left_out")
    told = []
    for seed in range(1, SEEDS + 1):
        directory = tmp_path / str(seed)
        directory.mkdir()
        verdict = lose_power(directory, ROUNDS, seed, fault.edits)
        if finds(verdict.complaints):
            return
        told.append(verdict)
    pytest.fail(f"not found: {told}")
