"""Maps that are made at run time, with BTF: many entries written and read with one call.

Batches need Linux 5.6; lpm_trie has them since then as well. What an older or odd kernel refuses is
done entry by entry.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from raft_agent.kernel.btf import Btf
from raft_agent.kernel.libbpf import Map, library, quick_library

HASH, LPM_TRIE = 1, 11  # enum bpf_map_type of <linux/bpf.h>
_NO_PREALLOC = 1  # BPF_F_NO_PREALLOC
RDONLY = 1 << 3  # BPF_F_RDONLY
_NAME_BYTES = 15  # BPF_OBJ_NAME_LEN less its end

# So many entries with one call: they take well below a millisecond.
BATCH = 256
# So few take less time than to get the interpreter back.
_QUICK = 16
_ENOTSUPP = 524  # of the kernel alone, so errno does not have it
_NO_BATCHES = frozenset({errno.EINVAL, errno.EOPNOTSUPP, _ENOTSUPP, errno.ENOSYS})


class Form(msgspec.Struct, frozen=True):
    """What a map is: readers that were built for another form can't use it."""

    kind: int
    key_size: int
    value_size: int
    max_entries: int

    @property
    def flags(self) -> int:
        """A trie can't be allocated in advance."""
        return _NO_PREALLOC if self.kind == LPM_TRIE else 0


class _CreateOptions(ctypes.Structure):
    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    )


class _GetOptions(ctypes.Structure):
    _fields_ = (("sz", ctypes.c_size_t), ("file_flags", ctypes.c_uint32))


class _MapInfo(ctypes.Structure):
    """struct bpf_map_info of <linux/bpf.h>, up to what Linux 5.10 has."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
    )
    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int
    btf_key_type_id: int


@functools.cache
def _library() -> ctypes.CDLL:
    found = library()
    pointer, text, fd, u32 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32
    for name, arguments in {
        "bpf_btf_load": (pointer, ctypes.c_size_t, pointer),
        "bpf_map_create": (ctypes.c_uint, text, u32, u32, u32, pointer),
        "bpf_map_update_batch": (fd, pointer, pointer, ctypes.POINTER(u32), pointer),
        "bpf_map_delete_batch": (fd, pointer, ctypes.POINTER(u32), pointer),
        "bpf_map_lookup_batch": (
            fd,
            pointer,
            pointer,
            pointer,
            pointer,
            ctypes.POINTER(u32),
            pointer,
        ),
        "bpf_obj_get_opts": (text, pointer),
    }.items():
        function = getattr(found, name)
        function.restype = ctypes.c_int
        function.argtypes = arguments
    return found


class TypedMap(Map):
    """One map, and the file descriptor that it is open by. All methods raise OSError."""

    def __init__(self, fd: int) -> None:
        try:
            super().__init__(fd)
            info = _MapInfo()
            size = ctypes.c_uint32(ctypes.sizeof(info))
            _check(
                library().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)),
                "ask the kernel about a map",
            )
        except BaseException:
            os.close(fd)
            raise
        self.map_id = info.id
        self.has_btf = info.btf_key_type_id != 0
        self.form = Form(info.type, info.key_size, info.value_size, info.max_entries)
        self._batches = True

    @classmethod
    def create(cls, name: str, form: Form, btf: Btf, key_type: int, value_type: int) -> TypedMap:
        """A new map, empty. A kernel without BTF gets it without."""
        blob = btf.blob()
        found = _library()
        options = _CreateOptions(sz=ctypes.sizeof(_CreateOptions), map_flags=form.flags)
        btf_fd = found.bpf_btf_load(blob, len(blob), None)
        if btf_fd >= 0:
            options.btf_fd = btf_fd
            options.btf_key_type_id, options.btf_value_type_id = key_type, value_type
        try:
            fd = found.bpf_map_create(
                form.kind,
                name.encode()[:_NAME_BYTES],
                form.key_size,
                form.value_size,
                form.max_entries,
                ctypes.byref(options),
            )
        finally:
            if btf_fd >= 0:
                os.close(btf_fd)
        _check(fd, f"make the map {name}")
        return cls(fd)

    @classmethod
    def open(cls, path: Path, *, flags: int = 0) -> TypedMap:
        """The map that is pinned there. `flags`: RDONLY to read it only."""
        options = _GetOptions(ctypes.sizeof(_GetOptions), flags)
        fd = _library().bpf_obj_get_opts(os.fsencode(path), ctypes.byref(options))
        _check(fd, f"open {path}")
        return cls(fd)

    def close(self) -> None:
        os.close(self.fd)

    def pin(self, path: Path) -> None:
        _check(library().bpf_obj_pin(self.fd, os.fsencode(path)), f"pin {path}")

    def update_many(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Set these, each of them or, where this raises, some."""
        for start in range(0, len(entries), BATCH):
            part = entries[start : start + BATCH]
            if not (self._batches and len(part) > 1 and self._update_batch(part)):
                for key, value in part:
                    self._set(key, value)

    def _set(self, key: bytes, value: bytes) -> None:
        try:
            self.update(key, value)
        except OSError as error:
            if error.errno != errno.ENOSPC or self.form.kind != LPM_TRIE:
                raise
            # Before Linux 6.13 a full trie takes not even another value for a key that it has.
            self.delete(key)
            self.update(key, value)

    def _update_batch(self, part: Sequence[tuple[bytes, bytes]]) -> bool:
        keys = b"".join([key for key, _ in part])
        values = b"".join([value for _, value in part])
        count = ctypes.c_uint32(len(part))
        update_batch = quick_library().bpf_map_update_batch
        if len(part) > _QUICK:
            update_batch = _library().bpf_map_update_batch
        result = update_batch(self.fd, keys, values, ctypes.byref(count), None)
        if result == -errno.ENOSPC:
            return False
        return self._was_done(result, "write")

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """Remove these; those that are not there are left out."""
        for key in keys:
            self.delete(key)

    def scan(self, count: int = BATCH) -> Iterator[list[tuple[bytes, bytes]]]:
        """All entries in pieces of about `count`; what changes meanwhile may be left out or come
        twice."""
        if self._batches:
            cursor: ctypes.Array[ctypes.c_char] | None = None
            while True:
                piece, cursor = self._lookup_batch(cursor, count)
                if not self._batches:
                    break
                yield piece
                if cursor is None:
                    return
        piece = []
        for item in self.items():
            piece.append(item)
            if len(piece) >= count:
                yield piece
                piece = []
        yield piece

    def _lookup_batch(
        self, cursor: ctypes.Array[ctypes.c_char] | None, count: int
    ) -> tuple[list[tuple[bytes, bytes]], ctypes.Array[ctypes.c_char] | None]:
        key_size, value_size = self.key_size, self.value_size
        keys = ctypes.create_string_buffer(key_size * count)
        values = ctypes.create_string_buffer(value_size * count)
        # Of a hash it is a number of 32 bits, of a trie a key.
        following = ctypes.create_string_buffer(max(key_size, 4))
        number = ctypes.c_uint32(count)
        result = _library().bpf_map_lookup_batch(
            self.fd, cursor, following, keys, values, ctypes.byref(number), None
        )
        if result == -errno.ENOSPC and count < self.max_entries:
            # One bucket of a hash has more than this.
            return self._lookup_batch(cursor, min(2 * count, self.max_entries))
        is_end = result == -errno.ENOENT
        if not is_end and not self._was_done(result, "read"):
            return [], None
        raw_keys, raw_values = keys.raw, values.raw
        piece = [
            (
                raw_keys[at * key_size : (at + 1) * key_size],
                raw_values[at * value_size : (at + 1) * value_size],
            )
            for at in range(number.value)
        ]
        return piece, None if is_end else following

    def _was_done(self, result: int, doing: str) -> bool:
        """False when this kernel has no batches for such a map: then they are not tried again."""
        if -result in _NO_BATCHES:
            self._batches = False
            return False
        _check(result, f"{doing} the map {self.name}")
        return True


def _check(result: int, doing: str) -> None:
    if result < 0:
        raise OSError(-result, f"can't {doing}: {os.strerror(-result)}")
