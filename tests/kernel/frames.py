"""Streams of frames with bodies of random bytes: what TLS leaves of them for the kernel to see."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from raft_agent import wire
from raft_agent.wire import FrameType

SENDER = 0x1122334455667788


@dataclass
class Stream:
    """Frames, and what a counter of them must come to."""

    data: bytes = b""
    frames: Counter[int] = field(default_factory=Counter)
    bytes: Counter[int] = field(default_factory=Counter)
    entries: int = 0

    def add(
        self,
        frame_type: FrameType,
        body_bytes: int,
        *,
        term: int = 1,
        request_id: int = 0,
        count: int = 0,
        sender: int = SENDER,
        chance: random.Random | None = None,
    ) -> bytes:
        """Another frame; its bytes."""
        body = (chance or random.Random(body_bytes)).randbytes(body_bytes)
        frame = wire.encode(
            frame_type, body, sender=sender, term=term, request_id=request_id, count=count
        )
        self.data += frame
        self.frames[frame_type] += 1
        self.bytes[frame_type] += len(frame)
        if frame_type == FrameType.APPEND_ENTRIES:
            self.entries += count
        return frame


def appends(sizes: list[int], *, seed: int = 1, term: int = 1) -> Stream:
    """AppendEntries with bodies of these sizes."""
    chance = random.Random(seed)
    stream = Stream()
    parts = [
        stream.add(
            FrameType.APPEND_ENTRIES,
            size,
            term=term,
            request_id=number,
            count=number % 7,
            chance=chance,
        )
        for number, size in enumerate(sizes, 1)
    ]
    stream.data = b"".join(parts)
    return stream
