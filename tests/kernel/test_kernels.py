"""The shipped object does on Debian's kernels what it does on this one."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

from raft_agent.kernel import layout
from raft_agent.kernel.counters import Counters, decode_flow
from raft_agent.kernel.layout import Direction, FlowKey, Sync
from tests.kernel import frames, harness, machines, packets
from tests.kernel.machines import Machine
from tests.kernel.packets import SYN, tcp
from tests.kernel.testrun import GO_ON, shortest, verdict

pytestmark = pytest.mark.long
# What differs from run to run.
TIMES = {"last_ns", "append_latency", "heartbeat_latency"}


def cases() -> list[tuple[Direction, bytes]]:
    """Packets of all kinds with frames in them, then cut off ones, then random ones."""
    chance = random.Random(40)
    found: list[tuple[Direction, bytes]] = []
    for _, wrap in packets.wrappings().values():
        stream = frames.appends([chance.randrange(100) for _ in range(40)]).data
        found.append((Direction.INGRESS, wrap(tcp(seq=0, flags=SYN))))
        at = 0
        while at < len(stream):
            size = chance.randrange(1, 900)
            packet = wrap(tcp(stream[at : at + size], seq=1 + at))
            found.append((Direction.INGRESS, packet))
            cut = chance.randrange(shortest(packet), len(packet) + 1)
            found.append((Direction(chance.randrange(2)), packet[:cut]))
            at += size
    for packet in packets.foreign(stream[:200]).values():
        found += [(direction, packet) for direction in Direction]
    for number in range(300):
        packet = bytearray(chance.choice(found[:500])[1])
        for _ in range(3):  # few: an LRU map that is full forgets what it likes
            packet[chance.randrange(14, len(packet))] = chance.randrange(256)
        found.append((Direction(number % 2), bytes(packet)))
    return found


def flows_of(entries: Iterator[tuple[bytes, bytes]]) -> dict[FlowKey, tuple[object, object]]:
    """All flows' counters, without times."""

    def comparable(counters: Counters) -> dict[str, object]:
        names = set(counters.__struct_fields__) - TIMES
        return {name: getattr(counters, name) for name in sorted(names)}

    found = {}
    for key, value in entries:
        flow = decode_flow(FlowKey.decode(key), value)
        found[flow.key] = (comparable(flow.ingress), comparable(flow.egress))
    return found


def printed(lines: list[str], name: str) -> Iterator[tuple[bytes, bytes]]:
    for line in lines:
        words = line.split()
        if words[:2] == ["map", name]:
            value = bytearray(layout.FLOW.size)
            for word in words[3:]:
                offset, number = (int(part, 16) for part in word.split(":"))
                layout.U64.pack_into(value, offset, number)
            yield bytes.fromhex(words[2]), bytes(value)


@pytest.mark.parametrize("machine", machines.MACHINES, ids=lambda machine: machine.name)
def test_the_object_loads_and_counts_on(machine: Machine) -> None:
    reason = machines.missing(machine)
    if reason is not None:
        pytest.skip(reason)
    wanted = cases()
    encoded = b"".join(
        struct.pack("<II", direction, len(packet)) + packet for direction, packet in wanted
    )
    chance = random.Random(41)
    stream = frames.appends([chance.choice((0, 10, 24, 500, 60_000)) for _ in range(500)])
    lines = machines.boot(machine, encoded, stream.data)
    assert not [line for line in lines if line.startswith("failed") or "libbpf:" in line]

    here = harness.load()
    for direction, packet in wanted:
        assert verdict(here, packet, direction) == GO_ON
    verdicts = {tuple(map(int, line.split()[1:])) for line in lines if line.startswith("verdict")}
    assert verdicts == {
        (direction, -1, sum(went == direction for went, _ in wanted)) for direction in Direction
    }
    divided = lines.index(next(line for line in lines[::-1] if line.startswith("load_ms")))
    assert flows_of(printed(lines[:divided], "flows")) == flows_of(here.map("flows").items())
    sums = {
        layout.INDEX.unpack(key)[0]: sum(count for (count,) in layout.U64.iter_unpack(value))
        for key, value in printed(lines[:divided], "stats")
    }
    assert sums == {stat: here.map("stats").lookup_sum(layout.INDEX.pack(stat)) for stat in sums}
    here.close()

    on_lo = [
        decode_flow(FlowKey.decode(key), value) for key, value in printed(lines[divided:], "flows")
    ]
    carried = [flow.egress for flow in on_lo if flow.key.remote_port == harness.PORT]
    carried += [flow.ingress for flow in on_lo if flow.key.local_port == harness.PORT]
    assert len(carried) == 2
    for counters in carried:
        assert (counters.sync, counters.sync_lost, counters.entries) == (
            *(Sync.YES, 0, stream.entries),
        )
        assert {kind: count.frames for kind, count in counters.types.items()} == stream.frames
        assert {kind: count.bytes for kind, count in counters.types.items()} == stream.bytes
