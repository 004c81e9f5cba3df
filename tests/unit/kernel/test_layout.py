"""kernel/layout.py is what a C compiler makes of bpf/raft_maps.h."""

from __future__ import annotations

import enum
import ipaddress
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raft_agent import wire
from raft_agent.kernel import layout
from raft_agent.kernel.layout import FlowKey, Layout

C_HEADER = Path(__file__).parents[3] / "bpf" / "raft_maps.h"
LAYOUTS = [value for value in vars(layout).values() if isinstance(value, Layout)]
# Structs of the program's own.
PRIVATE = {"raft_packet"}
ENUMS: dict[str, type[enum.IntEnum]] = {
    "RAFT_": layout.Direction,
    "RAFT_SYNC_": layout.Sync,
    "RAFT_STAT_": layout.Stat,
    "RAFT_EVENT_": layout.EventKind,
    "RAFT_LOST_": layout.LostReason,
    "RAFT_FIREWALL_": layout.FirewallMode,
}
CONSTANTS = (
    "MAX_FLOWS",
    "FRAME_TYPES",
    "RECENT",
    "LATENCY_BUCKETS",
    "LATENCY_SHIFT",
    "PORT_WORDS",
    "MAX_FAULT_NS",
)


def asked_of_c(tmp_path: Path, expressions: list[str]) -> list[int]:
    """The values of C expressions."""
    lines = "\n".join(f'printf("%llu\\n", (unsigned long long)({text}));' for text in expressions)
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n"
        f'#include "{C_HEADER}"\nint main(void)\n{{\n{lines}\nreturn 0;\n}}\n'
    )
    program = tmp_path / "layout"
    subprocess.run(["cc", "-Wall", "-Werror", "-o", program, source], check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return [int(line) for line in output.split()]


needs_c = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="needs a C compiler and the Linux headers",
)


@needs_c
@pytest.mark.parametrize("struct", LAYOUTS, ids=lambda struct: struct.c_name)
def test_a_struct_is_laid_out_as_in_c(struct: Layout, tmp_path: Path) -> None:
    name = f"struct {struct.c_name}"
    expressions = [f"offsetof({name}, {field})" for field in struct.fields]
    expressions += [f"sizeof((({name} *)0)->{field})" for field in struct.fields]
    *found, size = asked_of_c(tmp_path, [*expressions, f"sizeof({name})"])
    offsets = [struct.offset(field) for field in struct.fields]
    assert found[: len(offsets)] == offsets
    assert found[len(offsets) :] == [
        end - start for start, end in zip(offsets, [*offsets[1:], struct.size], strict=True)
    ]
    assert size == struct.size


@needs_c
def test_constants_and_enums_are_those_of_c(tmp_path: Path) -> None:
    names = [f"RAFT_{name}" for name in CONSTANTS]
    names += [f"{prefix}{member.name}" for prefix, kind in ENUMS.items() for member in kind]
    expected = [getattr(layout, name) for name in CONSTANTS]
    expected += [member.value for kind in ENUMS.values() for member in kind]
    assert asked_of_c(tmp_path, names) == expected


def test_no_struct_and_no_field_of_the_header_is_left_out() -> None:
    text = re.sub(r"/\*.*?\*/", "", C_HEADER.read_text(), flags=re.DOTALL)
    structs = dict(re.findall(r"^struct (raft_\w+) \{\n(.*?)^\};", text, re.DOTALL | re.MULTILINE))
    assert structs.keys() - PRIVATE == {struct.c_name for struct in LAYOUTS}
    for struct in LAYOUTS:
        fields = re.findall(r"(\w+)(?:\[\w+\])?;", structs[struct.c_name])
        assert fields == list(struct.fields)


def test_every_frame_type_has_a_counter() -> None:
    assert max(wire.FrameType) < layout.FRAME_TYPES


def test_a_map_of_its_own_has_a_comment_that_says_what_it_is_for() -> None:
    text = C_HEADER.read_text()
    maps = re.findall(r"\*/\nstruct \{\n[^}]*\} (\w+) SEC", text)
    assert len(maps) == text.count('SEC(".maps")')


@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::1", "255.255.255.255", "::", "0.0.0.0"])
def test_a_flow_key_survives_encoding(address: str) -> None:
    ip = ipaddress.ip_address(address)
    key = FlowKey(ip, 5555, ip, 65_535)
    assert FlowKey.decode(key.encode()) == key


def test_an_ip4_address_is_mapped_as_sockets_do_it() -> None:
    mapped = layout.address_bytes(ipaddress.ip_address("192.0.2.1"))
    assert ipaddress.IPv6Address(mapped) == ipaddress.ip_address("::ffff:192.0.2.1")
