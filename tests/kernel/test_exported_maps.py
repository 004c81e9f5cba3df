"""Exported maps in the kernel: what the machine says, and nothing else."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from raft_agent.kernel.btf import Btf
from raft_agent.kernel.export_jobs import UNKNOWN_INDEX
from raft_agent.kernel.export_layout import STATUS_NAME, ExportState, Status, form_of, pin_name
from raft_agent.kernel.export_place import ExportError, PinDirectory
from raft_agent.kernel.exported import ExportedMap, forget_others
from raft_agent.kernel.exporter import Exporter
from raft_agent.kernel.typed_map import HASH, RDONLY, Form, TypedMap
from raft_agent.machine.commands import AddExport, Delete, Put, RemoveExport
from raft_agent.machine.exports import Export, MapChange, Shape
from tests.kernel import harness
from tests.kernel.exporting import (
    DENY,
    PORTS,
    TIMEOUT_S,
    Running,
    expected,
    machine_with,
    mended,
    pins,
    shape_of,
)
from tests.unit.machine.batches import apply

__all__ = ["pins"]


@pytest.fixture
def running(pins: Path) -> Iterator[Running]:
    made = Running(pins, machine_with(DENY, PORTS))
    yield made
    made.exporter.stop()


def test_what_is_put_below_the_prefix_stands_in_the_map(running: Running) -> None:
    running.apply(Put("fw/deny/203.0.113.0/24", b"1"), Put("ports/80", b"web"), Put("x", b""))
    assert running.kernel("deny_v4") == {b"\x18\0\0\0\xcb\0\x71\0": b"\x01\0\0\0"}
    assert running.kernel("ports") == expected(running.machine, "ports")
    running.apply(Delete("fw/deny/203.0.113.0/24"))
    assert running.kernel("deny_v4") == {}
    assert running.status().applied_index == running.machine.last_applied
    assert running.status().state == ExportState.READY


def test_a_key_that_comes_where_another_goes_finds_room_in_a_full_map(pins: Path) -> None:
    running = Running(pins, machine_with(msgspec.structs.replace(PORTS, max_entries=2)))
    try:
        running.apply(Put("ports/1", b""), Put("ports/2", b""))
        for number in range(3, 30):
            running.apply(Delete(f"ports/{number - 2}"), Put(f"ports/{number}", b""))
            assert running.kernel("ports") == expected(running.machine, "ports")
        assert running.exporter.problems == {}
    finally:
        running.exporter.stop()


def test_maps_outlive_the_agent_and_a_restart_changes_the_difference_only(pins: Path) -> None:
    machine = machine_with(DENY)
    first = Running(pins, machine)
    first.apply(*[Put(f"fw/deny/10.{n}.0.0/16", b"1") for n in range(200)])
    first.exporter.stop()
    assert first.status().state == ExportState.STOPPED
    before = TypedMap.open(pins / "deny_v4_v1")
    assert len(first.kernel("deny_v4")) == 200
    apply(machine, Delete("fw/deny/10.7.0.0/16"), Put("fw/deny/10.8.0.0/16", b"2"))
    second = Running(pins, machine)
    try:
        assert second.kernel("deny_v4") == expected(machine, "deny_v4")
        assert dict(before.items()) == expected(machine, "deny_v4")  # the same map still
        assert second.told == []
    finally:
        second.exporter.stop()
        before.close()


def test_what_somebody_else_writes_is_undone_and_told(running: Running, pins: Path) -> None:
    running.apply(Put("ports/80", b"web"), Put("ports/22", b"ssh"))
    found = TypedMap.open(pins / "ports_v1")
    try:
        found.update(b"\x50\0\0\0", bytes(16))
        found.update(b"\x01\0\0\0", bytes(16))
        found.delete(b"\x16\0\0\0")
    finally:
        found.close()
    running.exporter._keeper._mend_at = 0.001  # due since long ago
    running.beat()
    running.wait(lambda: bool(running.told))
    assert running.told == [("export_repaired", {"map": "ports", "entries": 3})]
    assert running.kernel("ports") == expected(running.machine, "ports")


def test_a_map_of_another_layout_with_the_name_is_left_alone(pins: Path) -> None:
    pins.mkdir()
    btf = Btf()
    u32 = btf.integer(4)
    foreign = TypedMap.create("foreign", Form(HASH, 4, 4, 7), btf, u32, u32)
    foreign.pin(pins / "ports_v1")
    foreign.update(bytes(4), b"mine")
    running = Running(pins, machine_with(DENY, PORTS))
    try:
        assert "another layout" in running.exporter.problems["ports"]
        assert running.told[0][0] == "export_degraded"
        running.apply(Put("fw/deny/10.0.0.0/8", b"1"), Put("ports/80", b"web"))
        assert running.kernel("deny_v4") == expected(running.machine, "deny_v4")
        assert foreign.lookup(bytes(4)) == b"mine"
        running.beat(1 << 60)
        assert running.status().state == ExportState.DEGRADED
        assert running.status().fresh_until_ns == 0
    finally:
        running.exporter.stop()
        foreign.close()


def test_freshness_is_told_once_the_maps_are_filled(running: Running) -> None:
    running.beat(12345)
    status = running.status()
    assert (status.term, status.leader_id, status.role) == (3, 7, 1)
    assert status.fresh_until_ns == 12345
    running.declare(anew=True, fill=False)
    running.beat(23456)
    # What was true of the old entries stays so.
    assert running.status().fresh_until_ns == 12345
    assert running.status().state == ExportState.FILLING
    running.complete()
    assert running.status().fresh_until_ns == 23456


def test_others_stay_fresh_while_a_map_is_added_which_nobody_finds_half_filled(
    running: Running, pins: Path
) -> None:
    more = Export("more/", "more", "hash", "u32", "u32", 1000)
    apply(running.machine, *[Put(f"more/{number}", b"1") for number in range(600)])
    apply(running.machine, AddExport(more))
    running.declare(fill=False)
    running.fill("more")
    running.hand_over(Put("ports/80", b"web"), Delete("more/7"))
    running.beat(12345)
    assert not (pins / "more_v1").exists()
    assert running.status().fresh_until_ns == 12345
    assert running.status().applied_index == running.machine.last_applied
    assert running.kernel("ports") == expected(running.machine, "ports")
    running.complete()
    assert running.kernel("more") == expected(running.machine, "more")
    assert len(running.kernel("more")) == 599


def test_a_restart_tells_how_far_the_maps_are_and_leaves_them_until_all_has_come(
    pins: Path,
) -> None:
    machine = machine_with(DENY)
    first = Running(pins, machine)
    first.apply(Put("fw/deny/10.0.0.0/8", b"1"))
    first.beat(12345)
    first.exporter.stop()
    found: list[int] = []
    seen = threading.Event()

    class Silent:
        def found(self, index: int) -> None:
            found.append(index)
            seen.set()

        def happened(self, kind: str, **facts: int | str) -> None:
            raise AssertionError(kind, facts)

        def written(self, index: int, changes: list[tuple[Shape, MapChange]]) -> None:
            raise AssertionError(index, changes)

    exporter = Exporter(pins, Silent())
    exporter.start()
    assert seen.wait(TIMEOUT_S)
    exporter.stop()
    assert found == [machine.last_applied]
    assert first.kernel("deny_v4") == expected(machine, "deny_v4")
    assert first.status().applied_index == machine.last_applied
    assert first.status().fresh_until_ns == 12345
    (pins / STATUS_NAME).unlink()
    second = Running(pins, machine)
    second.exporter.stop()
    assert second.found_index == UNKNOWN_INDEX


def test_a_map_that_can_not_be_written_keeps_the_index_back(pins: Path) -> None:
    running = Running(pins, machine_with(DENY, PORTS))
    try:
        before = running.machine.last_applied
        closed = running.exporter._keeper._maps["ports"]
        assert closed._map is not None
        good, closed._map = closed._map, TypedMap.open(pins / "ports_v1", flags=RDONLY)
        running.apply(Put("ports/80", b"web"))
        running.beat(1 << 60)
        assert list(running.exporter.problems) == ["ports"]
        status = running.status()
        assert (status.applied_index, status.writing_index) == (
            before,
            running.machine.last_applied,
        )
        assert (status.state, status.fresh_until_ns) == (ExportState.DEGRADED, 0)
        closed._map.close()
        closed._map = good
        running.exporter._keeper._mend_at = 0.001
        running.beat(1 << 60)
        running.settle()
        assert running.exporter.problems == {}
        assert running.status().applied_index == running.machine.last_applied
        assert running.status().fresh_until_ns == 1 << 60
        assert [kind for kind, _ in running.told] == ["export_degraded", "export_mended"]
    finally:
        running.exporter.stop()


def test_a_full_trie_takes_another_value_for_a_key_that_it_has(pins: Path) -> None:
    running = Running(pins, machine_with(msgspec.structs.replace(DENY, max_entries=2)))
    try:
        running.apply(Put("fw/deny/10.0.0.0/8", b"1"), Put("fw/deny/11.0.0.0/8", b"1"))
        running.apply(Put("fw/deny/10.0.0.0/8", b"2"))
        running.apply(Put("fw/deny/10.0.0.0/8", b"3"), Put("fw/deny/11.0.0.0/8", b"3"))
        assert running.kernel("deny_v4") == expected(running.machine, "deny_v4")
        assert running.exporter.problems == {}
    finally:
        running.exporter.stop()


def test_writes_that_never_end_do_not_keep_somebody_elses_from_being_found(
    running: Running, pins: Path
) -> None:
    running.apply(*[Put(f"ports/{number}", b"x") for number in range(900)])
    found = TypedMap.open(pins / "ports_v1")
    found.update(b"\x50\0\0\0", bytes(16))
    found.close()
    running.exporter._keeper._mend_at = 0.001
    for number in range(100_000):
        running.hand_over(Put(f"ports/{number % 50}", b"%d" % (number % 7)))
        if running.told:
            break
    running.settle()
    assert running.told == [("export_repaired", {"map": "ports", "entries": 1})]
    assert running.kernel("ports") == expected(running.machine, "ports")


def test_a_status_that_somebody_else_wrote_is_put_right(running: Running, pins: Path) -> None:
    running.beat(12345)
    before = running.status()
    found = TypedMap.open(pins / STATUS_NAME)
    found.update(bytes(4), Status(1 << 40, 1 << 40, 9, 9, 1 << 62).encode())
    found.close()
    running.exporter._keeper._mend_at = 0.001
    running.beat(12345)
    running.settle()
    assert running.status() == before


def test_what_was_written_is_told(running: Running) -> None:
    running.apply(Put("ports/80", b"web"), Put("elsewhere", b""))
    assert running.writes == [(running.machine.last_applied, [("ports", b"\x50\0\0\0")])]


def test_an_export_that_is_removed_takes_its_pin_away(running: Running, pins: Path) -> None:
    assert (pins / "ports_v1").exists()
    apply(running.machine, RemoveExport("ports"))
    running.declare()
    assert not (pins / "ports_v1").exists()
    assert (pins / "deny_v4_v1").exists()
    assert (pins / STATUS_NAME).exists()


def test_another_layout_has_another_pin(running: Running, pins: Path) -> None:
    running.apply(Put("ports/80", b"1"))
    apply(
        running.machine,
        RemoveExport("ports"),
        AddExport(msgspec.structs.replace(PORTS, value="u32")),
    )
    running.declare()
    assert sorted(path.name for path in pins.iterdir()) == [
        "deny_v4_v1",
        "ports_v2",
        STATUS_NAME,
    ]
    assert running.kernel("ports") == expected(running.machine, "ports")


def test_a_pin_that_somebody_removed_comes_back(running: Running, pins: Path) -> None:
    running.apply(Put("ports/80", b"web"))
    before = TypedMap.open(pins / "ports_v1")
    (pins / "ports_v1").unlink()
    running.exporter._keeper._mend_at = 0.001
    running.beat()
    after = TypedMap.open(pins / "ports_v1")
    assert before.map_id == after.map_id
    before.close()
    after.close()
    assert running.kernel("ports") == expected(running.machine, "ports")


def test_a_map_is_for_its_owner_or_its_group(pins: Path) -> None:
    running = Running(pins, machine_with(DENY, msgspec.structs.replace(PORTS, group="nogroup")))
    try:
        assert (pins / "deny_v4_v1").stat().st_mode & 0o777 == 0o600
        assert (pins / "ports_v1").stat().st_mode & 0o777 == 0o640
        assert (pins / "ports_v1").group() == "nogroup"
    finally:
        running.exporter.stop()
    other = Running(pins, machine_with(msgspec.structs.replace(DENY, group="no-such-group")))
    try:
        assert "no group no-such-group" in other.exporter.problems["deny_v4"]
    finally:
        other.exporter.stop()


def test_a_place_that_is_no_bpf_file_system_is_told_and_nothing_ends(tmp_path: Path) -> None:
    running = Running(tmp_path / "pins", machine_with(DENY))
    try:
        assert running.exporter.problems
        running.apply(Put("fw/deny/10.0.0.0/8", b"1"))
        assert running.exporter.status.state == ExportState.DEGRADED
    finally:
        running.exporter.stop()


_WITHOUT_LOCKED_MEMORY = """
import ctypes, resource, struct, sys
from pathlib import Path
from raft_agent.kernel.export_keeper import Keeper
from raft_agent.kernel.export_place import PinDirectory

class Silent:
    def found(self, index): pass
    def happened(self, kind, **facts): pass

resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
libc = ctypes.CDLL(None)
header, held = struct.pack("<Ii", 0x20080522, 0), ctypes.create_string_buffer(24)  # capget(2)
libc.capget(header, held)
words = [word & ~(1 << 24) if at < 3 else word  # CAP_SYS_RESOURCE, which could raise the limit
         for at, word in enumerate(struct.unpack("<6I", held.raw))]
assert libc.capset(header, struct.pack("<6I", *words)) == 0
keeper = Keeper(PinDirectory(Path(sys.argv[1])), Silent(), lambda: 0.0)
keeper.begin()
print(keeper.problems)
"""


def test_too_little_memory_to_lock_is_told_where_the_kernel_counts_it(pins: Path) -> None:
    """Linux 5.11 counts the memory of maps by control groups instead."""
    said = harness.run(sys.executable, "-c", _WITHOUT_LOCKED_MEMORY, pins).strip()
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if release >= (5, 11):
        assert said == "{}"
    else:
        assert "LimitMEMLOCK=infinity" in said


def test_all_entries_come_out_of_a_scan(pins: Path) -> None:
    machine = machine_with(DENY, PORTS)
    pins.mkdir()
    for name, put in (("ports", "ports/{}"), ("deny_v4", "fw/deny/10.0.{}.0/24")):
        count = 700 if name == "ports" else 200
        apply(machine, *[Put(put.format(number), b"1") for number in range(count)])
        found = ExportedMap(PinDirectory(pins), shape_of(machine, name))
        found.wanted = expected(machine, name)
        assert mended(found) == count
        assert dict(found.entries(1 << 20)) == expected(machine, name)
        assert len(found.entries(7)) == 7
        assert mended(found) == 0
        found.close()
    assert forget_others(PinDirectory(pins), {"ports_v1"}) == ["deny_v4_v1"]


def test_the_kernel_knows_the_types(pins: Path) -> None:
    machine = machine_with(DENY, PORTS)
    pins.mkdir()
    for shape in machine.exports:
        found = ExportedMap(PinDirectory(pins), shape)
        mended(found)
        opened = TypedMap.open(pins / pin_name(shape))
        assert opened.form == form_of(shape)
        assert opened.has_btf
        opened.close()
        found.close()


def test_an_error_names_what_is_in_the_way(pins: Path) -> None:
    pins.mkdir()
    btf = Btf()
    u32 = btf.integer(4)
    foreign = TypedMap.create("foreign", Form(HASH, 4, 4, 7), btf, u32, u32)
    foreign.pin(pins / "ports_v1")
    foreign.close()
    with pytest.raises(ExportError, match=r"rm .*ports_v1"):
        mended(ExportedMap(PinDirectory(pins), shape_of(machine_with(PORTS), "ports")))
