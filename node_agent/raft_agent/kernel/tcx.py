"""Which TCX programs an interface has. They run before every tc filter, since Linux 6.6, and one
that returns a verdict keeps the packet from us (Cilium's do).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

# <linux/bpf.h>
_PROG_GET_FD_BY_ID = 13
_OBJ_GET_INFO_BY_FD = 15
_PROG_QUERY = 16
_TCX_INGRESS = 46
_TCX_EGRESS = 47
_ATTR_BYTES = 128
_MAX_PROGRAMS = 64
_NAME_OFFSET = 64  # struct bpf_prog_info, char name[16]
_INFO_BYTES = 80

# The number of bpf(2), which no C library wraps.
_SYSCALLS = {"x86_64": 321, "aarch64": 280}


def programs(interface_index: int) -> list[str]:
    """Their names, those of ingress first; empty where the kernel has no TCX or does not tell."""
    found = []
    for attach_type in (_TCX_INGRESS, _TCX_EGRESS):
        ids = (ctypes.c_uint32 * _MAX_PROGRAMS)()
        # struct query: target_ifindex, attach_type, query_flags, attach_flags, prog_ids, count
        query = struct.pack(
            "=IIIIQI", interface_index, attach_type, 0, 0, ctypes.addressof(ids), _MAX_PROGRAMS
        )
        answer = _bpf(_PROG_QUERY, query)
        if answer is not None:
            (count,) = struct.unpack_from("=I", answer[1], 24)
            found += [_name(ids[number]) for number in range(min(count, _MAX_PROGRAMS))]
    return found


def _name(program_id: int) -> str:
    opened = _bpf(_PROG_GET_FD_BY_ID, struct.pack("=I", program_id))
    if opened is None:
        return f"with id {program_id}"
    fd = opened[0]
    try:
        info = ctypes.create_string_buffer(_INFO_BYTES)
        attr = struct.pack("=IIQ", fd, _INFO_BYTES, ctypes.addressof(info))
        if _bpf(_OBJ_GET_INFO_BY_FD, attr) is None:
            return f"with id {program_id}"
        name = info.raw[_NAME_OFFSET:].split(b"\0", 1)[0].decode(errors="replace")
        return name or f"with id {program_id}"
    finally:
        os.close(fd)


def _bpf(command: int, attr: bytes) -> tuple[int, bytes] | None:
    """(what bpf(2) returned, the attributes as it left them); None when it failed."""
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        return None
    buffer = ctypes.create_string_buffer(attr, _ATTR_BYTES)
    result = ctypes.CDLL(None, use_errno=True).syscall(number, command, buffer, _ATTR_BYTES)
    return None if result < 0 else (result, buffer.raw)
