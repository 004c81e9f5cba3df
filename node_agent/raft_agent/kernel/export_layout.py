"""What other programs see of exported maps: names, forms and the status. `bpf/raft_export.h` has
the same for programs in C; a test holds one against the other.
"""

from __future__ import annotations

import enum
import struct

import msgspec

from raft_agent.kernel.btf import Btf
from raft_agent.kernel.typed_map import HASH, LPM_TRIE, Form
from raft_agent.machine.export_types import FieldType
from raft_agent.machine.exports import Shape

STATUS_NAME = "raft_status_v1"
STATUS_KEY = bytes(4)

_STATUS = struct.Struct("<QQQQQII")
_STATUS_FIELDS = (
    "applied_index",
    "writing_index",
    "term",
    "leader_id",
    "fresh_until_ns",
    "role",
    "state",
)


class NodeRole(enum.IntEnum):
    """enum raft_node_role"""

    FOLLOWER = 0
    LEADER = 1
    CANDIDATE = 2
    LEARNER = 3
    NONE = 4


class ExportState(enum.IntEnum):
    """enum raft_export_state. DEGRADED: some map is not what the log says, and nothing is fresh.
    STOPPED: the agent has ended, and the maps stay as they are."""

    FILLING = 0
    READY = 1
    DEGRADED = 2
    STOPPED = 3


class Status(msgspec.Struct, frozen=True):
    """struct raft_status: everything up to `applied_index` is in the maps, and while a batch is
    written some of what is up to `writing_index`. `fresh_until_ns`: on CLOCK_BOOTTIME; 0: never.
    """

    applied_index: int = 0
    writing_index: int = 0
    term: int = 0
    leader_id: int = 0
    fresh_until_ns: int = 0
    role: int = NodeRole.NONE
    state: int = ExportState.FILLING

    def encode(self) -> bytes:
        return _STATUS.pack(*(getattr(self, name) for name in _STATUS_FIELDS))

    @classmethod
    def decode(cls, value: bytes) -> Status:
        return cls(*_STATUS.unpack(value))


_CURRENCY = struct.Struct("<Q24xQ8x")


def currency_of(value: bytes) -> tuple[int, int]:
    """(applied_index, fresh_until_ns) of an encoded Status, for who looks at each read."""
    applied_index, fresh_until_ns = _CURRENCY.unpack_from(value)
    return applied_index, fresh_until_ns


STATUS_FORM = Form(HASH, 4, _STATUS.size, 1)


def status_btf() -> tuple[Btf, int, int]:
    """(BTF, type of the key, type of the value)."""
    btf = Btf()
    u32, u64 = btf.integer(4), btf.integer(8)
    members, offset = [], 0
    for name, code in zip(_STATUS_FIELDS, _STATUS.format[1:], strict=True):
        size = struct.calcsize(code)
        members.append((name, u64 if size == 8 else u32, offset))
        offset += size
    return btf, u32, btf.structure("raft_status", _STATUS.size, members)


def pin_name(shape: Shape) -> str:
    """Below <pin_dir>/<cluster name>."""
    return f"{shape.export.map}_v{shape.version}"


def form_of(shape: Shape) -> Form:
    kind = LPM_TRIE if shape.export.kind == "lpm_trie" else HASH
    return Form(kind, shape.key.size, shape.value_size, shape.export.max_entries)


def btf_of(shape: Shape) -> tuple[Btf, int, int]:
    """(BTF, type of the key, type of the value)."""
    btf = Btf()
    key = _field(btf, shape.key)
    value = _field(btf, shape.value)
    if shape.export.with_revision:
        size = shape.value_size
        revision = btf.integer(8)
        members = [("value", value, 0), ("revision", revision, size - 8)]
        value = btf.structure(f"{shape.export.map}_value", size, members)
    return btf, key, value


def _field(btf: Btf, field: FieldType) -> int:
    if field.is_prefix:
        length, address = btf.integer(4), btf.bytes_array(field.size - 4)
        return btf.structure(
            field.name, field.size, [("prefixlen", length, 0), ("address", address, 4)]
        )
    if field.name.startswith("u"):
        return btf.integer(field.size)
    return btf.bytes_array(field.size)
