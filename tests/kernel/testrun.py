"""BPF_PROG_TEST_RUN: the program on a packet that never was on a wire."""

from __future__ import annotations

import ctypes
import os

from raft_agent.kernel import libbpf
from raft_agent.kernel.layout import Direction
from raft_agent.kernel.libbpf import LoadedObject

GO_ON = 0xFFFF_FFFF  # TC_ACT_UNSPEC, -1
DROP = 2  # TC_ACT_SHOT
_PROGRAMS = {Direction.INGRESS: "raft_ingress", Direction.EGRESS: "raft_egress"}


class _Options(ctypes.Structure):
    """struct bpf_test_run_opts of <bpf/bpf.h>."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )
    retval: int
    duration: int


def shortest(packet: bytes) -> int:
    """How much of a packet the kernel wants at least to run a program on it."""
    return 14 + {b"\x08\x00": 20, b"\x86\xdd": 40}.get(packet[12:14], 0)


def verdict(program: LoadedObject, packet: bytes, direction: Direction) -> int:
    """What the program says to one packet, which begins with its Ethernet header."""
    return run_program(program.program_fd(_PROGRAMS[direction]), packet)[0]


def run_program(program_fd: int, packet: bytes, repeat: int = 1) -> tuple[int, int]:
    """(what the program says to the packet, nanoseconds that it takes on average)."""
    options = _Options(ctypes.sizeof(_Options), packet, data_size_in=len(packet), repeat=repeat)
    result = libbpf.library().bpf_prog_test_run_opts(program_fd, ctypes.byref(options))
    assert result == 0, f"{os.strerror(-result)}: {packet.hex()}"
    return options.retval, options.duration
