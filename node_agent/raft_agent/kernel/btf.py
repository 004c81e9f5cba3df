"""BTF for maps whose types are known at run time only, so that `bpftool map dump` prints fields.

The format is that of Documentation/bpf/btf.rst: a header, types that are numbered from 1 on, and a
table of strings.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_ARRAY = struct.Struct("<III")
_MEMBER = struct.Struct("<III")
_MAGIC = 0xEB9F
_INT, _ARRAY_KIND, _STRUCT = 1, 3, 4


class Btf:
    """Types are added one by one; each method gives the number of the new one."""

    def __init__(self) -> None:
        self._types: list[bytes] = []
        self._strings = bytearray(b"\0")
        self._names: dict[str, int] = {"": 0}

    def integer(self, size: int) -> int:
        """An unsigned integer of so many bytes, called as in <linux/types.h>."""
        head = _TYPE.pack(self._name(f"__u{8 * size}"), _INT << 24, size)
        return self._add(head + struct.pack("<I", 8 * size))

    def bytes_array(self, size: int) -> int:
        """So many bytes."""
        element, index = self.integer(1), self.integer(4)
        return self._add(_TYPE.pack(0, _ARRAY_KIND << 24, 0) + _ARRAY.pack(element, index, size))

    def structure(self, name: str, size: int, members: Sequence[tuple[str, int, int]]) -> int:
        """A struct of `size` bytes with these members: (name, type, offset in bytes)."""
        head = _TYPE.pack(self._name(name), _STRUCT << 24 | len(members), size)
        return self._add(
            head
            + b"".join(
                _MEMBER.pack(self._name(member), kind, 8 * offset)
                for member, kind, offset in members
            )
        )

    def blob(self) -> bytes:
        """What the kernel takes."""
        types = b"".join(self._types)
        header = _HEADER.pack(
            _MAGIC, 1, 0, _HEADER.size, 0, len(types), len(types), len(self._strings)
        )
        return header + types + bytes(self._strings)

    def _add(self, encoded: bytes) -> int:
        self._types.append(encoded)
        return len(self._types)

    def _name(self, name: str) -> int:
        if name not in self._names:
            self._names[name] = len(self._strings)
            self._strings += name.encode() + b"\0"
        return self._names[name]
