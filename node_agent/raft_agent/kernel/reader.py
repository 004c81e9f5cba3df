"""Exported maps for other programs in Python: reads what the agent keeps in the kernel, without
asking it.

    from raft_agent.kernel.reader import ExportedMap

    with ExportedMap("/sys/fs/bpf/raft/default", "deny_v4", key="ipv4_prefix", value="u32") as deny:
        deny.get("203.0.113.5/32")               # 1, or None
        deny.get("203.0.113.5/32", fresh=True)   # raises StaleError when this copy is too old

It takes libbpf1, a pin that one may read in directories that one may enter, and CAP_BPF; without
CAP_BPF it works from Linux 5.19 on, and before where kernel.unprivileged_bpf_disabled is 0.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from raft_agent.kernel.export_layout import STATUS_KEY, STATUS_NAME, Status, currency_of
from raft_agent.kernel.typed_map import RDONLY, TypedMap
from raft_agent.machine.export_types import FieldType, key_type, value_type
from raft_agent.platform import boot_time_ns

_REVISION_BYTES = 8
# Texts of keys whose bytes are kept.
_KEPT_KEYS = 4096


class StaleError(Exception):
    """This copy is not as current as was asked for; `status` says how current it is."""

    def __init__(self, text: str, status: Status) -> None:
        super().__init__(text)
        self.status = status


class ExportedMap:
    """One exported map, and the status beside it.

    `directory`: <pin_dir>/<cluster name>. `name`: of the map. `key` and `value`: their types, as
    `raftctl export list` shows them; `with_revision`: whether values carry theirs. `version`: of
    the layout. Raises FieldError for a type that there is not, ValueError when the map has another
    layout, OSError when it can't be opened: PermissionError without the rights, FileNotFoundError
    when it is not exported.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        name: str,
        *,
        key: str,
        value: str,
        with_revision: bool = False,
        version: int = 1,
    ) -> None:
        self._value: FieldType = value_type(value)
        self._with_revision = with_revision
        encode = key_type(key).encode
        # Whoever asks often asks for the same keys again, and to read a text takes longer than the
        # kernel.
        self._encode = functools.lru_cache(_KEPT_KEYS)(lambda text: encode(text.encode()))
        place = Path(directory)
        self._map = _open(place / f"{name}_v{version}")
        try:
            sizes = (key_type(key).size, self._size())
            if (self._map.key_size, self._map.value_size) != sizes:
                raise ValueError(
                    f"{name} has keys of {self._map.key_size} and values of "
                    f"{self._map.value_size} bytes, not {sizes[0]} and {sizes[1]}"
                )
            self._status = _open(place / STATUS_NAME)
        except BaseException:
            self._map.close()
            raise
        self._lookup = self._map.lookup
        self._decode = self._decoder()

    def _size(self) -> int:
        if not self._with_revision:
            return self._value.size
        return -(-self._value.size // 8) * 8 + _REVISION_BYTES

    def close(self) -> None:
        self._map.close()
        self._status.close()

    def __enter__(self) -> ExportedMap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _decoder(self) -> Callable[[bytes], int | bytes]:
        """Of a field of the map, without the revision behind it."""
        size, decode = self._value.size, self._value.decode
        if not self._value.name.startswith("u"):
            return lambda field: decode(field[:size])
        if self._with_revision:
            return lambda field: int.from_bytes(field[:size], "little")
        return lambda field: int.from_bytes(field, "little")

    def status(self) -> Status:
        """How current this copy is."""
        return self._told(self._status.lookup(STATUS_KEY))

    def is_fresh(self) -> bool:
        """Whether this copy had, a bounded time ago, all that had been acknowledged."""
        return boot_time_ns() < self.status().fresh_until_ns

    def get(self, key: str, *, fresh: bool = False, at_index: int = 0) -> int | bytes | None:
        """The value at `key`, the store's key behind the prefix: a number, or bytes; None when
        there is none. Of a map of prefixes the longest that `key` lies in counts.

        `fresh`: only while this copy is fresh; `at_index`: only when everything up to this index of
        the log is in it. Raises StaleError, FieldError for what is no key of this map, OSError.
        """
        encoded = self._encode(key)
        if fresh or at_index:
            self._demand(fresh=fresh, at_index=at_index)
        field = self._lookup(encoded)
        return None if field is None else self._decode(field)

    def get_many(
        self, keys: Iterable[str], *, fresh: bool = False, at_index: int = 0
    ) -> list[int | bytes | None]:
        """As `get` for each of these, but one look at the status for all. They need not be of one
        moment."""
        encoded = list(map(self._encode, keys))
        if fresh or at_index:
            self._demand(fresh=fresh, at_index=at_index)
        decode = self._decode
        return [None if field is None else decode(field) for field in map(self._lookup, encoded)]

    def get_with_revision(
        self, key: str, *, fresh: bool = False, at_index: int = 0
    ) -> tuple[int | bytes, int] | None:
        """The same with the key's revision behind it; 0 when this map's values have none."""
        encoded = self._encode(key)
        if fresh or at_index:
            self._demand(fresh=fresh, at_index=at_index)
        field = self._lookup(encoded)
        if field is None:
            return None
        revision = int.from_bytes(field[-_REVISION_BYTES:], "little") if self._with_revision else 0
        return self._decode(field), revision

    def _demand(self, *, fresh: bool, at_index: int) -> None:
        value = self._status.lookup(STATUS_KEY)
        applied_index, fresh_until_ns = (0, 0) if value is None else currency_of(value)
        if fresh and boot_time_ns() >= fresh_until_ns:
            raise StaleError("this copy is not fresh", self._told(value))
        if applied_index < at_index:
            raise StaleError(
                f"this copy is at index {applied_index}, not yet at {at_index}", self._told(value)
            )

    @staticmethod
    def _told(value: bytes | None) -> Status:
        return Status() if value is None else Status.decode(value)


def _open(path: Path) -> TypedMap:
    try:
        return TypedMap.open(path, flags=RDONLY)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise PermissionError(
                error.errno,
                f"can't open {path}: it takes a pin that this user may read, in directories "
                "that it may enter, and CAP_BPF, Linux 5.19, or kernel.unprivileged_bpf_disabled=0",
            ) from error
        raise
