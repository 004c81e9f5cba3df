"""One machine's kernel, as far as exported maps are pinned there: it outlives the agent's process
and forgets all when the machine loses power. Whoever looks on is asked after each single change.
"""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable, Iterator, Sequence

from raft_agent.kernel.btf import Btf
from raft_agent.kernel.export_layout import STATUS_KEY, STATUS_NAME, Status
from raft_agent.kernel.export_place import ExportError, KernelMap
from raft_agent.kernel.typed_map import Form

_SCANNED_AT_ONCE = 2


class Killed(BaseException):  # as KeyboardInterrupt
    """The agent is killed here, between two calls of the kernel."""


class SimMap:
    """A hash, or a trie of which only the keys matter."""

    def __init__(self, kernel: SimKernel, number: int, form: Form) -> None:
        self.map_id = number
        self.form = form
        self.entries: dict[bytes, bytes] = {}
        self._kernel = kernel

    def lookup(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def update(self, key: bytes, value: bytes) -> None:
        if len(key) != self.form.key_size or len(value) != self.form.value_size:
            raise OSError(errno.EINVAL, "a key or a value of another size")
        if key not in self.entries and len(self.entries) >= self.form.max_entries:
            raise OSError(errno.E2BIG, "the map is full")
        self._kernel.calls()
        self.entries[key] = value
        self._kernel.has_changed()

    def update_many(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        for key, value in entries:
            self._kernel.may_refuse()
            self.update(key, value)

    def delete_many(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._kernel.calls()
            self.entries.pop(key, None)
            self._kernel.has_changed()

    def scan(self) -> Iterator[list[tuple[bytes, bytes]]]:
        keys = iter(tuple(self.entries))
        while some := list(itertools.islice(keys, _SCANNED_AT_ONCE)):
            yield [(key, self.entries[key]) for key in some if key in self.entries]

    def close(self) -> None:
        """A pinned map lives on."""


class SimKernel:
    """A Place. `looked_at` is called after each change that a reader could see. `refuses`: the
    probability that it has no memory for an entry; `dies_in`: after so many calls the agent is
    killed."""

    def __init__(self, rng: random.Random, looked_at: Callable[[], None]) -> None:
        self._rng = rng
        self._looked_at = looked_at
        self._numbers = itertools.count(1)
        self._pins: dict[str, SimMap] = {}
        self.refuses = 0.0
        self.dies_in: int | None = None

    # --- what goes wrong

    def calls(self) -> None:
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.dies_in = None
                raise Killed

    def may_refuse(self) -> None:
        if self.refuses and self._rng.random() < self.refuses:
            raise OSError(errno.ENOMEM, "no memory")

    def has_changed(self) -> None:
        self._looked_at()

    # --- what a reader finds

    @property
    def status(self) -> Status | None:
        found = self._pins.get(STATUS_NAME)
        value = None if found is None else found.lookup(STATUS_KEY)
        return None if value is None else Status.decode(value)

    def maps(self) -> Iterator[tuple[str, dict[bytes, bytes]]]:
        """All but the status, by the names of their pins."""
        for name, found in self._pins.items():
            if name != STATUS_NAME:
                yield name, found.entries

    # --- a Place

    def prepare(self) -> None:
        """It is always there."""

    def names(self) -> list[str]:
        return sorted(self._pins)

    def open(self, name: str, form: Form) -> SimMap | None:
        found = self._pins.get(name)
        if found is not None and found.form != form:
            raise ExportError(f"{name} has another layout")
        return found

    def create(self, title: str, form: Form, btf: tuple[Btf, int, int]) -> SimMap:
        del title, btf
        self.may_refuse()
        return SimMap(self, next(self._numbers), form)

    def pin(self, found: KernelMap, name: str, mode: int, group: str = "") -> None:
        if not isinstance(found, SimMap):
            raise TypeError(f"{found} is no simulated map")
        self.calls()
        self._pins[name] = found
        self.has_changed()
        self.permit(name, mode, group)

    def permit(self, name: str, mode: int, group: str = "") -> None:
        """Everybody may do everything."""

    def unpin(self, name: str) -> None:
        self.calls()
        self._pins.pop(name, None)
        self.has_changed()
