"""What the kernel counts on real TCP connections is what was sent."""

from __future__ import annotations

import ipaddress
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from raft_agent.kernel import faults
from raft_agent.kernel.counters import Counters
from raft_agent.kernel.layout import Direction, Sync
from raft_agent.wire import FrameType
from tests.kernel import frames, harness
from tests.kernel.frames import Stream
from tests.kernel.harness import Link
from tests.kernel.packets import ethernet, ip4, tcp


@pytest.fixture(autouse=True)
def _one_cpu() -> Iterator[None]:
    """A thread that moves to another CPU between two sends may overtake itself: the packets of the
    first still wait in a queue of the CPU that it left. Rightly the program calls that a gap.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def send_all(
    sender: socket.socket, receiver: socket.socket, data: bytes, pieces: list[int]
) -> None:
    """`data` in sends of `pieces` bytes in turn (all of it when there are none), and received."""

    def send() -> None:
        at = turn = 0
        while at < len(data):
            size = pieces[turn % len(pieces)] if pieces else len(data)
            sender.sendall(data[at : at + size])
            at += size
            turn += 1

    thread = threading.Thread(target=send)
    thread.start()
    received = bytearray()
    while len(received) < len(data):
        part = receiver.recv(1 << 20)
        assert part
        received += part
    thread.join()
    assert received == data


def assert_counted(counters: Counters, stream: Stream) -> None:
    assert counters.sync == Sync.YES
    assert {kind: count.frames for kind, count in counters.types.items()} == stream.frames
    assert {kind: count.bytes for kind, count in counters.types.items()} == stream.bytes
    assert counters.entries == stream.entries
    assert counters.stream_bytes == len(stream.data)
    assert (counters.sync_lost, counters.bad_headers, counters.gaps) == (0, 0, 0)


def one_by_one(number: int, size: int) -> tuple[Stream, list[int]]:
    stream = frames.appends([size] * number)
    return stream, [size + 48]


def mixed(number: int) -> tuple[Stream, list[int]]:
    chance = random.Random(number)
    sizes = [chance.choice((0, 1, 16, 47, 1400, 4096, 65_536, 70_001)) for _ in range(number)]
    return frames.appends(sizes), [chance.randrange(1, 9000) for _ in range(50)]


SHAPES: dict[str, Callable[[], tuple[Stream, list[int]]]] = {
    "heartbeats one by one": lambda: one_by_one(300, 24),
    "2,000 small frames at once": lambda: (frames.appends([32] * 2000), []),
    "20,000 bare headers at once": lambda: (frames.appends([0] * 20_000), []),
    "4 KiB": lambda: (frames.appends([4096] * 500), []),
    "64 KiB": lambda: (frames.appends([65_536] * 100), []),
    "8 MiB": lambda: (frames.appends([8 << 20] * 3), []),
    "odd sizes in odd pieces": lambda: mixed(300),
    "a byte at a time": lambda: (frames.appends([5] * 20), [1]),
    "headers cut everywhere": lambda: (frames.appends([13] * 200), [47]),
}


@pytest.mark.parametrize("offloads", [True, False], ids=["offloads", "no offloads"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_frame_is_counted_on_both_ends(link: Link, shape: str, offloads: bool) -> None:
    link.set_offloads(on=offloads)
    stream, pieces = SHAPES[shape]()
    left, right = link.connect()
    send_all(left, right, stream.data, pieces)
    assert_counted(link.left.flow(left).egress, stream)
    assert_counted(link.right.flow(right).ingress, stream)
    assert not link.left.flow(left).ingress.types


def test_with_loss_the_kernel_says_how_many_bytes_it_did_not_see_in_frames() -> None:
    with harness.linked(faults_enabled=1) as link:
        link.set_offloads(on=False)
        left, right = link.connect()
        assert link.right.program is not None
        remote = ipaddress.ip_address(link.left.address)
        faults.inject(link.right.program.map("faults"), remote, Direction.INGRESS, 20, 60)
        stream = frames.appends([700] * 4000)
        send_all(left, right, stream.data, [748])
        faults.heal(link.right.program.map("faults"))
        stream.add(FrameType.HEARTBEAT, 24)
        send_all(left, right, stream.data[-72:], [])
        counters = link.right.flow(right).ingress
        assert counters.fault_drops > 20
        assert counters.sync_lost == counters.sync_regained > 5
        assert counters.sync == Sync.YES
        assert counters.stream_bytes == len(stream.data)
        assert harness.frame_bytes(counters) + counters.unparsed_bytes == len(stream.data)
        assert 1000 < counters.frames < 4000
        assert_counted(link.left.flow(left).egress, stream)


def test_a_device_without_a_link_header_is_read_too() -> None:
    with harness.linked_without_ethernet() as link:
        for ip6 in (False, True):
            stream, pieces = mixed(100)
            left, right = link.connect(ip6=ip6)
            send_all(left, right, stream.data, pieces)
            assert_counted(link.left.flow(left).egress, stream)
            assert_counted(link.right.flow(right).ingress, stream)


def test_ip6_is_walked_too(link: Link) -> None:
    stream, pieces = mixed(100)
    left, right = link.connect(ip6=True)
    send_all(right, left, stream.data, pieces)
    assert_counted(link.right.flow(right).egress, stream)
    assert_counted(link.left.flow(left).ingress, stream)


def test_a_packet_cut_off_anywhere_reaches_the_other_end(link: Link) -> None:
    """BPF_PROG_TEST_RUN takes no packet that ends within its IP header; a wire does."""
    whole = ethernet(ip4(tcp(frames.appends([10]).data)))
    lengths = range(14, len(whole))
    raw = socket.htons(0x0003)  # ETH_P_ALL of <linux/if_ether.h>
    with link.right.inside():
        reader = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, raw)
        reader.bind((link.right.interface, 0x0003))
        reader.settimeout(20)
    with link.left.inside():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, raw)
        sender.bind((link.left.interface, 0x0003))
    with reader, sender:
        wanted = []
        for length in lengths:
            # A mark that no other packet of this link has, in the source's MAC address.
            packet = whole[:6] + b"\x02mark" + bytes([length]) + whole[12:length]
            wanted.append(packet)
            sender.send(packet)
        found: list[bytes] = []
        while len(found) < len(wanted):
            packet = reader.recv(2048)
            if packet[6:11] == b"\x02mark":
                found.append(packet)
    assert found == wanted
