"""The smallest programs that a kernel takes, for tests of where they are attached."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from raft_agent.kernel.tc import Programs

# <linux/bpf.h>
_PROG_LOAD = 5
_LINK_CREATE = 28
_SCHED_CLS = 3
TCX_INGRESS = 46
GO_ON = -1
TAKE = 0  # TC_ACT_OK, TCX_PASS: nobody behind it sees the packet

_libc = ctypes.CDLL(None, use_errno=True)
_NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]


def _bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, 128)
    fd = int(_libc.syscall(_NUMBER, command, buffer, 128))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "bpf(2)")
    return fd


def load(name: str, verdict: int = GO_ON) -> int:
    """A classifier that returns `verdict` for every packet; its file descriptor."""
    code = ctypes.create_string_buffer(
        struct.pack("<BBhi", 0xB7, 0, 0, verdict) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    )
    licence = ctypes.create_string_buffer(b"GPL")
    where = (ctypes.addressof(code), ctypes.addressof(licence))
    return _bpf(
        _PROG_LOAD,
        struct.pack("<IIQQIIQII16s", _SCHED_CLS, 2, *where, 0, 0, 0, 0, 0, name.encode()),
    )


@contextmanager
def pair() -> Iterator[Programs]:
    """An ingress and an egress program that do nothing."""
    programs = Programs(load("raft_ingress"), load("raft_egress"))
    try:
        yield programs
    finally:
        os.close(programs.ingress_fd)
        os.close(programs.egress_fd)


@contextmanager
def tcx_in_front(interface_index: int, name: str) -> Iterator[None]:
    """A TCX program on ingress that lets every packet in and shows it to nobody else.

    Raises OSError where the kernel has no TCX.
    """
    program = load(name, TAKE)
    try:
        link = _bpf(_LINK_CREATE, struct.pack("<IIII", program, interface_index, TCX_INGRESS, 0))
    finally:
        os.close(program)
    try:
        yield
    finally:
        os.close(link)
