"""The structs of bpf/raft_maps.h as bytes; a test holds them against a C compiler's view.

Little endian without exception: the program is compiled for little-endian machines only.
"""

from __future__ import annotations

import enum
import errno
import ipaddress
import struct
from collections.abc import Mapping

import msgspec

MAX_FLOWS = 1024
FRAME_TYPES = 40
RECENT = 32
LATENCY_BUCKETS = 32
LATENCY_SHIFT = 11
PORT_WORDS = 1024
MAX_FAULT_NS = 300_000_000_000

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED_IPV4 = bytes(10) + b"\xff\xff"


class Layout:
    """One C struct: its name, and its fields with their struct codes, padding included."""

    def __init__(self, c_name: str, **fields: str) -> None:
        self.c_name = c_name
        self.fields: Mapping[str, str] = fields
        self._struct = struct.Struct("<" + "".join(fields.values()))
        self.size = self._struct.size
        self.pack = self._struct.pack
        self.unpack = self._struct.unpack
        self.unpack_from = self._struct.unpack_from
        self.iter_unpack = self._struct.iter_unpack

    def offset(self, field: str) -> int:
        """Bytes in front of `field`."""
        codes = list(self.fields.values())[: list(self.fields).index(field)]
        return struct.calcsize("<" + "".join(codes))


CONFIG = Layout(
    "raft_config", local_member_id="Q", raft_port="H", faults_enabled="B", reserved="5x"
)
FLOW_KEY = Layout("raft_flow_key", local="16s", remote="16s", local_port="H", remote_port="H")
TYPE_COUNT = Layout("raft_type_count", frames="Q", bytes="Q")
RECENT_FRAME = Layout("raft_recent", request_id="Q", time_ns="Q")
STAMP = Layout("raft_stamp", time_ns="Q", term="Q", sender="Q")
WALKER = Layout(
    "raft_walker",
    next_header="I",
    highest="I",
    lost_at="I",
    start="I",
    stray="I",
    sync="B",
    have="B",
    reserved="2x",
    sender="Q",
    header="128s",
)
HOT_COUNTERS = (
    "packets",
    "bytes",
    "segments",
    "payload_bytes",
    "stream_bytes",
    "last_ns",
    "term",
    "sender",
)
OTHER_COUNTERS = (
    "entries",
    "syn",
    "fin",
    "rst",
    "retransmissions",
    "retransmitted_bytes",
    "gaps",
    "gap_bytes",
    "strays",
    "fragments",
    "fault_drops",
    "sync_lost",
    "sync_regained",
    "unparsed_bytes",
    "bad_headers",
)
COUNTERS = Layout(
    "raft_counters",
    **dict.fromkeys(HOT_COUNTERS, "Q"),
    walker=f"{WALKER.size}s",
    append=f"{STAMP.size}s",
    **dict.fromkeys(OTHER_COUNTERS, "Q"),
    types=f"{FRAME_TYPES * TYPE_COUNT.size}s",
    recent=f"{RECENT * RECENT_FRAME.size}s",
    append_latency=f"{LATENCY_BUCKETS * 8}s",
    heartbeat_latency=f"{LATENCY_BUCKETS * 8}s",
)
FLOW = Layout("raft_flow", direction=f"{2 * COUNTERS.size}s")
EVENT = Layout(
    "raft_event",
    time_ns="Q",
    term="Q",
    sender="Q",
    kind="I",
    detail="I",
    flow=f"{FLOW_KEY.size}s",
    direction="B",
    reserved="3x",
)
VIEW = Layout("raft_view", term="Q", leader_term="Q", leader="Q")
CONTROL = Layout("raft_control", enforce_until_ns="Q", firewall_mode="I", reserved="4x")
PREFIX = Layout("raft_prefix", bits="I", address="16s")
ADDRESS = Layout("raft_address", words="16s")
STRANGER = Layout("raft_stranger", connections="Q", dropped="Q", first_ns="Q", last_ns="Q")
FAULT_KEY = Layout("raft_fault_key", remote="16s", direction="I")
FAULT = Layout("raft_fault", until_ns="Q", hits="Q", per_mille="I", reserved="4x")

INDEX = struct.Struct("<I")
"""The key of every array."""
U64 = struct.Struct("<Q")


class Direction(enum.IntEnum):
    """As this host sees it."""

    INGRESS = 0
    EGRESS = 1


class Sync(enum.IntEnum):
    """NONE: no packet seen; LOST: frames pass uncounted until a header starts a segment."""

    NONE = 0
    YES = 1
    LOST = 2


class Stat(enum.IntEnum):
    """What belongs to no flow. Behind EVENTS_LOST follows one counter for each EventKind."""

    NO_FLOW = 0
    UNREADABLE = 1
    LATER_FRAGMENTS = 2
    FIREWALL_ADMITTED = 3
    FIREWALL_AUDITED = 4
    FIREWALL_DROPPED = 5
    FAULT_DROPPED = 6
    EVENTS_LOST = 7


class EventKind(enum.IntEnum):
    """What changed."""

    NEW_LEADER = 1
    TERM_RAISED = 2
    UNKNOWN_SOURCE = 3
    BAD_HEADER = 4
    LOST_SYNC = 5
    FAULT_HIT = 6


class LostReason(enum.IntEnum):
    """Why a walker lost sync; a bad header has an event of its own."""

    GAP = 1
    TOO_MANY = 2
    UNREADABLE = 3


class FirewallMode(enum.IntEnum):
    """`[ebpf] firewall`."""

    OFF = 0
    AUDIT = 1
    ENFORCE = 2


class UnreadableError(OSError):
    """What the program in the kernel wrote is not laid out as this agent knows it: the two are of
    different versions."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EPROTO, f"can't read what the kernel's program wrote: {what}")


def address_bytes(address: IpAddress) -> bytes:
    """16 bytes; IPv4 as ::ffff:a.b.c.d."""
    return address.packed if address.version == 6 else _MAPPED_IPV4 + address.packed


def address_of(data: bytes) -> IpAddress:
    """The address that 16 bytes of a map stand for."""
    if data[:12] == _MAPPED_IPV4:
        return ipaddress.IPv4Address(data[12:])
    return ipaddress.IPv6Address(data)


class FlowKey(msgspec.Struct, frozen=True):
    """One TCP connection, as this host sees it."""

    local: IpAddress
    local_port: int
    remote: IpAddress
    remote_port: int

    def encode(self) -> bytes:
        """The key in the map `flows`."""
        return FLOW_KEY.pack(
            address_bytes(self.local),
            address_bytes(self.remote),
            self.local_port,
            self.remote_port,
        )

    @staticmethod
    def decode(data: bytes) -> FlowKey:
        """The flow that a key of the map `flows` stands for. Raises UnreadableError."""
        try:
            local, remote, local_port, remote_port = FLOW_KEY.unpack(data)
        except struct.error as error:
            raise UnreadableError(f"a flow's key: {error}") from None
        return FlowKey(address_of(local), local_port, address_of(remote), remote_port)
