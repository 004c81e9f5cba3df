"""What the kernel counts on real TCP connections is what was sent."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable

import pytest

from raft_agent.kernel.counters import Counters
from raft_agent.kernel.layout import Sync
from tests.kernel import frames
from tests.kernel.frames import Stream
from tests.kernel.harness import Link


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
