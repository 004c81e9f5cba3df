"""The load generator's requests, encoded before the clock runs."""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from raft_agent import wire
from raft_agent.api import protocol

# Whole frames are kept ready up to this much memory; beyond it they are joined when sent.
_READY_FRAMES_BYTES = 64 << 20
_FIRST_SLOT = 1


@dataclass(frozen=True)
class Plan:
    """What the clients do. `op`: put, get or send; sizes in bytes; times in seconds. `rate`: how
    many requests a second all of them send together; 0: as many as are answered."""

    op: str
    clients: int
    pipeline: int
    key_size: int
    value_size: int
    keys: int
    duration_s: float
    warmup_s: float
    timeout_s: float
    forward: bool
    consistency: str
    rate: float = 0.0

    @property
    def writes(self) -> bool:
        return self.op != "get"


def key_name(number: int, size: int) -> str:
    """A key of exactly `size` characters that starts with bench/."""
    return f"bench/{number:0{size - len('bench/')}d}"


def smallest_key_size(keys: int) -> int:
    return len("bench/") + len(str(keys - 1))


def _request(plan: Plan, key: str, text: str) -> protocol.Request:
    if plan.op == "put":
        return protocol.Put(id=0, key=key, value=text.encode(), forward=plan.forward)
    if plan.op == "get":
        return protocol.Get(id=0, key=key, consistency=protocol.Consistency(plan.consistency))
    return protocol.Send(id=0, text=text, forward=plan.forward)


def _request_tails(plan: Plan, order: random.Random) -> list[bytes]:
    """For each key the encoded fields after the request's id, in random order."""
    text = "".join(order.choices(string.ascii_letters, k=plan.value_size))
    numbers = list(range(plan.keys))
    order.shuffle(numbers)
    if plan.op == "send":
        numbers = numbers[:1]  # messages have no key: they are all alike
    requests = [_request(plan, key_name(number, plan.key_size), text) for number in numbers]
    heads = len(_request_head(requests[0], 0))
    return [protocol.ENCODER.encode(request)[heads:] for request in requests]


def _request_head(request: protocol.Request, slot: int) -> bytes:
    """The array's head, the operation's name and the id; the fields follow."""
    encoded = protocol.ENCODER.encode(request)
    name = type(request).__struct_config__.tag
    head = encoded[:1] + protocol.ENCODER.encode(name)
    if not encoded.startswith(head):
        raise AssertionError("a request is an array of up to 15 fields that starts with its name")
    return head + protocol.ENCODER.encode(slot)


def _array_head(count: int) -> bytes:
    """MessagePack's head of an array of `count` elements."""
    if count < 16:
        return bytes([0x90 | count])
    return b"\xdc" + count.to_bytes(2, "big")


def _frame(count: int, parts: Sequence[bytes]) -> bytes:
    """One CLIENT_REQUEST frame. Without a checksum, as the Unix socket allows: the kernel carries
    the bytes, and the load generator should cost little beside the agent that it measures.
    """
    body = b"".join((_array_head(count), *parts))
    head = wire.HEADER.pack(
        wire.MAGIC,
        wire.VERSION,
        wire.FrameType.CLIENT_REQUEST,
        0,
        len(body),
        0,
        0,
        0,
        0,
        count,
        0,
    )
    return head + body


class Requests:
    """Makes frames for any slots of any connection. Slots count from 1 and are the requests' ids,
    each in flight at most once on a connection.
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        order = random.Random(seed)  # noqa: S311  # which key comes next, nothing secret
        tails = _request_tails(plan, order)
        kind = _request(plan, "", "")
        self._heads = [_request_head(kind, slot) for slot in range(plan.pipeline + 1)]
        self._next_tail: Callable[[], bytes] = itertools.cycle(tails).__next__
        # Half of what a frame may hold, so that heads need not be counted.
        self._per_frame = max(1, (wire.MAX_BODY_BYTES >> 1) // max(map(len, tails)))
        first = self._heads[_FIRST_SLOT]
        self.next_single: Callable[[], bytes]
        if sum(map(len, tails)) <= _READY_FRAMES_BYTES:
            ready = [_frame(1, (first, tail)) for tail in tails]
            self.next_single = itertools.cycle(ready).__next__
        else:
            self.next_single = lambda: _frame(1, (first, self._next_tail()))

    def frames(self, slots: Sequence[int]) -> Iterator[bytes]:
        """A request for each of the slots, in as few frames as their size allows."""
        heads = self._heads
        tail = self._next_tail
        for first in range(0, len(slots), self._per_frame):
            chosen = slots[first : first + self._per_frame]
            parts: list[bytes] = []
            for slot in chosen:
                parts.append(heads[slot])
                parts.append(tail())
            yield _frame(len(chosen), parts)
