"""Exported maps as other programs read them: in C by the header, in Python by the reader."""

from __future__ import annotations

import contextlib
import ctypes
import grp
import ipaddress
import os
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from raft_agent.kernel import export_layout, libbpf
from raft_agent.kernel.export_layout import STATUS_NAME, ExportState, NodeRole, Status
from raft_agent.kernel.export_place import PinDirectory
from raft_agent.kernel.exported import ExportedMap as Written
from raft_agent.kernel.exported import StatusMap
from raft_agent.kernel.reader import ExportedMap, StaleError
from raft_agent.kernel.typed_map import TypedMap
from raft_agent.machine.commands import AddExport, Put
from raft_agent.machine.export_types import FieldError
from raft_agent.machine.exports import Export
from raft_agent.machine.machine import Machine
from raft_agent.platform import boot_time_ns
from tests.kernel import harness, packets
from tests.kernel.exporting import expected, mended, pins
from tests.kernel.testrun import run_program
from tests.unit.machine.batches import apply

__all__ = ["pins"]

ROOT = Path(__file__).parents[2]
DENY = Export("fw/deny/", "deny_v4", "lpm_trie", "ipv4_prefix", "u32", 10_000)
PORTS = Export("ports/", "ports", "hash", "u32", "bytes[4]", 100, with_revision=True)
_MADE_BEFORE = Path("/deny.bpf.o")
XDP_DROP, XDP_PASS = 1, 2
SECOND_NS = 1_000_000_000


class Copy:
    """Two maps and their status, as an agent keeps them."""

    def __init__(self, directory: Path, ports: Export = PORTS) -> None:
        directory.mkdir(mode=0o711)
        self.directory = directory
        self.machine = Machine()
        apply(self.machine, AddExport(DENY), AddExport(ports))
        place = PinDirectory(directory)
        self.maps = {shape.export.map: Written(place, shape) for shape in self.machine.exports}
        self.state = StatusMap(place)
        self.state.ensure()
        self.put()

    def put(self, *commands: Put) -> None:
        if commands:
            apply(self.machine, *commands)
        for name, found in self.maps.items():
            found.wanted = expected(self.machine, name)
            mended(found)
        self.say(fresh_for_ns=SECOND_NS * 60)

    def say(self, *, fresh_for_ns: int) -> None:
        index = self.machine.last_applied
        until_ns = boot_time_ns() + fresh_for_ns
        self.state.write(Status(index, index, 3, 7, until_ns, NodeRole.LEADER, ExportState.READY))

    def close(self) -> None:
        for found in self.maps.values():
            found.close()
        self.state.close()


@pytest.fixture
def copy(pins: Path) -> Iterator[Copy]:
    made = Copy(pins)
    yield made
    made.close()


def deny_of(copy: Copy) -> ExportedMap:
    return ExportedMap(copy.directory, "deny_v4", key="ipv4_prefix", value="u32")


def test_python_reads_keys_by_their_text(copy: Copy) -> None:
    copy.put(Put("fw/deny/203.0.113.0/24", b"7"), Put("ports/80", b"web"))
    with deny_of(copy) as deny:
        assert deny.get("203.0.113.5/32") == 7
        assert deny.get("203.0.114.5/32") is None
        with pytest.raises(FieldError):
            deny.get("203.0.113.5/24")
    with ExportedMap(
        copy.directory, "ports", key="u32", value="bytes[4]", with_revision=True
    ) as ports:
        assert ports.get("80") == b"web"
        assert ports.get_with_revision("80") == (b"web", 2)
        assert ports.get("81") is None


def test_python_reads_a_fresh_copy_only_when_it_asks_for_one(copy: Copy) -> None:
    copy.put(Put("fw/deny/203.0.113.0/24", b"7"))
    with deny_of(copy) as deny:
        assert deny.is_fresh()
        assert deny.get("203.0.113.5/32", fresh=True) == 7
        copy.say(fresh_for_ns=-1)
        assert not deny.is_fresh()
        assert deny.get("203.0.113.5/32") == 7
        with pytest.raises(StaleError) as stale:
            deny.get("203.0.113.5/32", fresh=True)
        assert stale.value.status.applied_index == copy.machine.last_applied


def test_python_reads_what_is_at_an_index_or_later(copy: Copy) -> None:
    copy.put(Put("fw/deny/203.0.113.0/24", b"7"))
    index = copy.machine.last_applied
    with deny_of(copy) as deny:
        assert deny.get("203.0.113.5/32", at_index=index) == 7
        with pytest.raises(StaleError, match=f"at index {index}, not yet at {index + 1}"):
            deny.get("203.0.113.5/32", at_index=index + 1)


def test_python_reads_many_with_one_look_at_the_status(copy: Copy) -> None:
    copy.put(Put("fw/deny/203.0.113.0/24", b"7"), Put("fw/deny/198.51.100.0/24", b"8"))
    addresses = ["198.51.100.1/32", "192.0.2.1/32", "203.0.113.1/32", "198.51.100.1/32"]
    with deny_of(copy) as deny:
        assert deny.get_many(addresses) == [8, None, 7, 8]
        assert deny.get_many(addresses, fresh=True) == [8, None, 7, 8]
        assert deny.get_many([]) == []
        with pytest.raises(FieldError):
            deny.get_many([*addresses, "203.0.113.5/24"])
        copy.say(fresh_for_ns=-1)
        with pytest.raises(StaleError):
            deny.get_many(addresses, fresh=True)


def test_python_does_not_read_a_map_of_another_layout(copy: Copy) -> None:
    with pytest.raises(ValueError, match="values of 4 bytes, not 8 and 8"):
        ExportedMap(copy.directory, "deny_v4", key="ipv4_prefix", value="u64")
    with pytest.raises(FileNotFoundError):
        ExportedMap(copy.directory, "other", key="u32", value="u32")


def test_a_reader_can_not_write(copy: Copy) -> None:
    opened = TypedMap.open(copy.directory / "ports_v1", flags=1 << 3)
    with pytest.raises(PermissionError):
        opened.update(bytes(4), bytes(16))
    opened.close()


# --- without rights -------------------------------------------------------------------------------

_AS_NOBODY = """
import os, sys
from raft_agent.kernel.reader import ExportedMap  # before the rights to read it go
from raft_agent.kernel import libbpf
libbpf.library()
os.setgroups([int(sys.argv[2])])
os.setgid(65534)
os.setuid(65534)
try:
    types = {"key": "u32", "value": "bytes[4]", "with_revision": True}
    with ExportedMap(sys.argv[1], "ports", **types) as ports:
        print(ports.get("80"), ports.is_fresh())
except OSError as error:
    print(f"{type(error).__name__}: {error}")
"""
_SYSCTL = Path("/proc/sys/kernel/unprivileged_bpf_disabled")


def read_without_rights(directory: Path, group: int) -> str:
    return harness.run(sys.executable, "-c", _AS_NOBODY, directory, str(group)).strip()


@pytest.fixture
def for_a_group(pins: Path) -> Iterator[tuple[Path, int]]:
    """Maps whose pins a group may read, in directories that everybody may enter."""
    made = Copy(pins, msgspec.structs.replace(PORTS, group="games"))
    made.put(Put("ports/80", b"web"))
    enter = [made.directory, *made.directory.parents]
    modes = {place: place.stat().st_mode & 0o7777 for place in enter}
    for place, mode in modes.items():
        if not mode & 0o001:
            place.chmod(mode | 0o011)
    yield made.directory, grp.getgrnam("games").gr_gid
    for place, mode in modes.items():
        if place.stat().st_mode & 0o7777 != mode:
            place.chmod(mode)
    made.close()


@contextlib.contextmanager
def unprivileged_bpf(value: int) -> Iterator[None]:
    before = _SYSCTL.read_text().strip()
    if before == "1":
        pytest.skip("kernel.unprivileged_bpf_disabled is 1, which stays until the next boot")
    _SYSCTL.write_text(f"{value}\n")
    try:
        yield
    finally:
        _SYSCTL.write_text(f"{before}\n")


@pytest.mark.parametrize("unprivileged_bpf_disabled", [0, 2])
def test_a_group_reads_without_rights_where_the_kernel_allows_it(
    for_a_group: tuple[Path, int], unprivileged_bpf_disabled: int
) -> None:
    """Up to Linux 5.18 the setting forbids all calls; since then those that make something."""
    directory, group = for_a_group
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    with unprivileged_bpf(unprivileged_bpf_disabled):
        said = read_without_rights(directory, group)
    if release >= (5, 19) or unprivileged_bpf_disabled == 0:
        assert said == "b'web' True"
    else:
        assert said.startswith("PermissionError")
        assert "CAP_BPF" in said


def test_who_is_not_in_the_group_does_not_read(for_a_group: tuple[Path, int]) -> None:
    directory, _ = for_a_group
    said = read_without_rights(directory, 65534)
    assert said.startswith("PermissionError")
    assert "a pin that this user may read" in said


# --- in C -----------------------------------------------------------------------------------------


def test_the_header_has_the_layout_of_the_status() -> None:
    text = (ROOT / "bpf" / "raft_export.h").read_text()
    (body,) = re.findall(r"struct raft_status \{(.*?)\};", text, re.DOTALL)
    fields = re.findall(r"__u(\d+) (\w+);", body)
    assert [name for _, name in fields] == list(Status.__struct_fields__)
    code = "<" + "".join({"64": "Q", "32": "I"}[size] for size, _ in fields)
    assert struct.calcsize(code) == len(Status().encode())
    assert len({name for _, name in fields}) == len(fields)
    for kind, prefix in ((NodeRole, "RAFT_"), (ExportState, "RAFT_EXPORT_")):
        for member in kind:
            name = "NO_ROLE" if member is NodeRole.NONE else member.name
            assert re.search(rf"\b{prefix}{name} = {member.value}\b", text), name
    assert export_layout.STATUS_NAME == STATUS_NAME
    assert export_layout.currency_of(Status(1, 2, 3, 4, 5).encode()) == (1, 5)


@pytest.fixture(scope="module")
def deny_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's program, compiled as its README says; where there is no compiler, by whoever
    made this machine."""
    if _MADE_BEFORE.exists():
        return _MADE_BEFORE
    made = tmp_path_factory.mktemp("deny") / "deny.bpf.o"
    harness.run("make", "-s", "-C", ROOT / "examples" / "deny-list", f"OBJECT={made}")
    return made


def load(path: Path, copy: Copy) -> tuple[int, int]:
    """(object, program's file descriptor), with the maps of the copy."""
    bpf = libbpf.library()
    handle = bpf.bpf_object__open_file(bytes(path), None)
    assert handle
    reuse = bpf.bpf_map__reuse_fd
    reuse.argtypes = [ctypes.c_void_p, ctypes.c_int]
    bpf.bpf_object__next_map.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    found = bpf.bpf_object__next_map(handle, None)
    while found:
        name = bpf.bpf_map__name(found).decode()
        if "." not in name:  # .rodata is its own
            pinned = TypedMap.open(copy.directory / name)
            assert reuse(found, pinned.fd) == 0
            pinned.close()
        found = bpf.bpf_object__next_map(handle, found)
    assert bpf.bpf_object__load(handle) == 0
    return handle, bpf.bpf_program__fd(bpf.bpf_object__next_program(handle, None))


def test_a_program_drops_what_the_cluster_denies_while_its_copy_is_fresh(
    copy: Copy, deny_object: Path
) -> None:
    copy.put(Put("fw/deny/203.0.113.0/24", b"1"))
    handle, program = load(deny_object, copy)
    try:

        def verdict(source: str) -> int:
            segment = packets.ip4(packets.tcp(), source=ipaddress.ip_address(source).packed)
            return run_program(program, packets.ethernet(segment))[0]

        assert verdict("203.0.113.5") == XDP_DROP
        assert verdict("203.0.114.5") == XDP_PASS
        copy.put(Put("fw/deny/203.0.114.0/24", b"1"))
        assert verdict("203.0.114.5") == XDP_DROP
        copy.say(fresh_for_ns=-1)
        assert verdict("203.0.113.5") == XDP_PASS  # the default of the example
    finally:
        libbpf.library().bpf_object__close(handle)
