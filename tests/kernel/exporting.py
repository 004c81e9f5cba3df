"""An exporter with the machine that it follows, and what its maps should hold."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raft_agent.kernel.export_jobs import Ask, Beat, Change, Declare, Fill
from raft_agent.kernel.export_layout import STATUS_NAME, Status, pin_name
from raft_agent.kernel.exported import ExportedMap
from raft_agent.kernel.exporter import Exporter
from raft_agent.kernel.typed_map import TypedMap
from raft_agent.machine.commands import AddExport, Command
from raft_agent.machine.exports import Export, MapChange, Shape
from raft_agent.machine.machine import Machine
from tests.kernel import harness
from tests.unit.machine.batches import apply

TIMEOUT_S = 10.0
DENY = Export("fw/deny/", "deny_v4", "lpm_trie", "ipv4_prefix", "u32", 1000)
PORTS = Export("ports/", "ports", "hash", "u32", "bytes[4]", 1000, with_revision=True)


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    """A place on a BPF file system of the test's own, where the directory is not made yet."""
    mounted = tmp_path / "bpf"
    mounted.mkdir()
    harness.run("mount", "-t", "bpf", "bpf", mounted)
    yield mounted / "default"
    harness.run("umount", mounted)


def machine_with(*exports: Export) -> Machine:
    machine = Machine()
    apply(machine, *map(AddExport, exports))
    machine.exports.track(wanted=True)
    return machine


def shape_of(machine: Machine, name: str) -> Shape:
    shape = machine.exports.get(name)
    assert shape is not None
    return shape


def expected(machine: Machine, name: str) -> dict[bytes, bytes]:
    shape = shape_of(machine, name)
    entries, _ = machine.list(shape.export.prefix, 1 << 62)
    return {
        shape.encode_key(entry.key): shape.encode_value(entry.value, entry.revision)
        for entry in entries
    }


def mended(found: ExportedMap) -> int:
    """Mend it in one go; how many entries differed."""
    steps = found.mend()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return int(end.value)


def status_at(pins: Path) -> Status:
    """What another program finds there of how fresh the maps are."""
    found = TypedMap.open(pins / STATUS_NAME)
    try:
        value = found.lookup(bytes(4))
    finally:
        found.close()
    assert value is not None
    return Status.decode(value)


class Running:
    """An exporter, and the machine that it follows."""

    def __init__(self, pins: Path, machine: Machine) -> None:
        self.machine = machine
        self.told: list[tuple[str, dict[str, object]]] = []
        self.writes: list[tuple[int, list[tuple[str, bytes]]]] = []
        self.pins = pins
        self.found_index = -1
        self._moved = threading.Condition()
        self.exporter = Exporter(pins, self)
        self.exporter.start()
        self.wait(lambda: self.found_index >= 0)
        self.declare(anew=True)

    def found(self, index: int) -> None:
        with self._moved:
            self.found_index = index
            self._moved.notify_all()

    def happened(self, kind: str, **facts: int | str) -> None:
        with self._moved:
            self.told.append((kind, facts))
            self._moved.notify_all()

    def written(self, index: int, changes: list[tuple[Shape, MapChange]]) -> None:
        with self._moved:
            named = [(shape.export.map, change.key) for shape, change in changes]
            self.writes.append((index, named))
            self._moved.notify_all()

    def declare(self, *, anew: bool = False, fill: bool = True) -> None:
        self.exporter.put(Declare(tuple(self.machine.exports), anew))
        self.machine.exports.changes = []
        if fill:
            self.fill(*[shape.export.map for shape in self.machine.exports])
            self.complete()

    def fill(self, *names: str) -> None:
        for name in names:
            prefix = shape_of(self.machine, name).export.prefix
            self.exporter.put(Fill(name, self.machine.list(prefix, 1 << 62)[0]))

    def complete(self) -> None:
        self.exporter.put(Change([], self.machine.last_applied, completes=True))
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is to be done."""
        while self.ask("no such map") and self.exporter._keeper._mending is not None:
            pass

    def ask(self, name: str, limit: int = 1 << 20) -> list[tuple[bytes, bytes]] | str:
        asked: list[list[tuple[bytes, bytes]] | str] = []

        def answer(found: list[tuple[bytes, bytes]] | str, _index: int) -> None:
            with self._moved:
                asked.append(found)
                self._moved.notify_all()

        self.exporter.put(Ask(name, limit, answer))
        self.wait(lambda: bool(asked))
        return asked[0]

    def beat(self, fresh_until_ns: int = 0) -> None:
        self.exporter.put(Beat(self.machine.last_applied, 3, 7, 1, fresh_until_ns))
        self.settle()

    def hand_over(self, *commands: Command) -> None:
        apply(self.machine, *commands)
        changes, self.machine.exports.changes = self.machine.exports.changes, []
        self.exporter.put(Change(changes, self.machine.last_applied))

    def apply(self, *commands: Command) -> None:
        self.hand_over(*commands)
        self.settle()

    def wait(self, holds: Callable[[], bool]) -> None:
        with self._moved:
            assert self._moved.wait_for(holds, TIMEOUT_S)

    def kernel(self, name: str) -> dict[bytes, bytes]:
        """What another program finds at the pin."""
        found = TypedMap.open(self.pins / pin_name(shape_of(self.machine, name)))
        try:
            return dict(found.items())
        finally:
            found.close()

    def status(self) -> Status:
        return status_at(self.pins)
