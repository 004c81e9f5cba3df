"""Events of the program, from its ring buffer."""

from __future__ import annotations

import ctypes
import os
from typing import Self

import msgspec

from raft_agent.kernel import layout
from raft_agent.kernel.layout import Direction, EventKind, FlowKey
from raft_agent.kernel.libbpf import Map, library

_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class Event(msgspec.Struct, frozen=True):
    """Something changed. `detail` depends on the kind, see enum raft_event_kind of raft_maps.h;
    `time_ns` is on CLOCK_MONOTONIC.
    """

    kind: EventKind
    time_ns: int
    flow: FlowKey
    direction: Direction
    term: int
    sender: int
    detail: int


class EventRing:
    """The reading end. `loop.add_reader(ring.fileno(), …)` tells when there is something."""

    def __init__(self, events: Map) -> None:
        """Raises OSError."""
        self._read: list[Event] = []
        self._function = _SAMPLE(self._take)  # must live as long as the ring buffer
        self._ring: int | None = library().ring_buffer__new(events.fd, self._function, None, None)
        if self._ring is None:
            code = ctypes.get_errno()
            raise OSError(code, f"can't read the kernel's events: {os.strerror(code)}")

    def fileno(self) -> int:
        """Readable when there are events."""
        assert self._ring is not None  # noqa: S101
        return int(library().ring_buffer__epoll_fd(self._ring))

    def consume(self) -> list[Event]:
        """All events that are there now, oldest first. Raises OSError."""
        assert self._ring is not None  # noqa: S101
        result = library().ring_buffer__consume(self._ring)
        if result < 0:
            raise OSError(-result, f"can't read the kernel's events: {os.strerror(-result)}")
        read, self._read = self._read, []
        return read

    def close(self) -> None:
        """Does nothing the second time."""
        if self._ring is not None:
            library().ring_buffer__free(self._ring)
            self._ring = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, _: int | None, data: int, size: int) -> int:
        self._read.append(decode(ctypes.string_at(data, size)))
        return 0


def decode(data: bytes) -> Event:
    """One struct raft_event."""
    time_ns, term, sender, kind, detail, flow, direction = layout.EVENT.unpack(data)
    return Event(
        EventKind(kind),
        time_ns,
        FlowKey.decode(flow),
        Direction(direction),
        term,
        sender,
        detail,
    )
