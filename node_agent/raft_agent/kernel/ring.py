"""Events of the program, from its ring buffer."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import struct
from typing import Self

import msgspec

from raft_agent.kernel import layout
from raft_agent.kernel.layout import Direction, EventKind, FlowKey, UnreadableError
from raft_agent.kernel.libbpf import Map, library

log = logging.getLogger("raft.kernel")

MOST_AT_ONCE = 256
"""Whoever makes events faster than they are read would otherwise never let `consume` return."""

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
        self._has_complained = False
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
        """The events that are there now, oldest first, up to MOST_AT_ONCE: then there may be more,
        and the file descriptor stays readable. Raises OSError."""
        assert self._ring is not None  # noqa: S101
        result = library().ring_buffer__consume(self._ring)
        read, self._read = self._read, []
        if result < 0 and len(read) < MOST_AT_ONCE:
            raise OSError(-result, f"can't read the kernel's events: {os.strerror(-result)}")
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
        try:
            self._read.append(decode(ctypes.string_at(data, size)))
        except UnreadableError as error:
            # An exception would be lost on its way through C. Once: of one version, all are so.
            if not self._has_complained:
                log.warning("%s", error)
            self._has_complained = True
        # libbpf counts this one as taken and goes no further.
        return 0 if len(self._read) < MOST_AT_ONCE else -errno.ENOBUFS


def decode(data: bytes) -> Event:
    """One struct raft_event. Raises UnreadableError."""
    try:
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
    except (struct.error, ValueError) as error:
        raise UnreadableError(f"an event: {error}") from None
