"""Exported maps in the kernel, and the status beside them: made, pinned, filled, kept right.

Used by one thread (`exporter.py`), by way of `export_keeper.py`. What a map should hold is kept
here as bytes, so that somebody else's writes are noticed and undone, and a restart changes nothing
but the difference.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import islice

from raft_agent.kernel.export_layout import (
    STATUS_FORM,
    STATUS_KEY,
    STATUS_NAME,
    Status,
    btf_of,
    form_of,
    pin_name,
    status_btf,
)
from raft_agent.kernel.export_place import KernelMap, Place
from raft_agent.kernel.typed_map import BATCH
from raft_agent.machine.entry import Entry
from raft_agent.machine.exports import MapChange, Shape

# No secret, and whoever reads a map of any group needs it.
_STATUS_MODE = 0o644


class ExportedMap:
    """One map at `place`. `wanted` is what it should hold; `is_known`: all of that is in there,
    and not only what has come so far; `is_mended`: the kernel's map has held it since."""

    def __init__(self, place: Place, shape: Shape) -> None:
        self.shape = shape
        self.wanted: dict[bytes, bytes] = {}
        self.is_known = False
        self.is_mended = False
        self._place = place
        self._name = pin_name(shape)
        self._map: KernelMap | None = None
        # Keys that were written since a comparison began, which has seen some of them before.
        self._touched: set[bytes] | None = None
        # Of such a write: then the comparison can't say that all is right.
        self._failure: OSError | None = None

    def forget(self) -> None:
        """What it should hold is about to come anew."""
        self.wanted = {}
        self.is_known = self.is_mended = False

    def fill(self, entries: Sequence[Entry]) -> None:
        """These are some of what it should hold."""
        shape = self.shape
        self.wanted.update(
            (shape.encode_key(entry.key), shape.encode_value(entry.value, entry.revision))
            for entry in entries
        )

    def note(self, changes: Sequence[MapChange]) -> None:
        """It should be changed like this; the kernel's map is not."""
        for change in changes:
            if change.value is None:
                self.wanted.pop(change.key, None)
            else:
                self.wanted[change.key] = change.value

    def write(self, changes: Sequence[MapChange]) -> None:
        """Do these, whose last word on each key counts; without a map they wait for `mend`. Raises
        OSError; `wanted` has them all the same."""
        self.note(changes)
        keys = dict.fromkeys(change.key for change in changes)
        if self._touched is not None:
            self._touched.update(keys)
        if self._map is None:
            return
        wanted = self.wanted
        try:
            # What goes makes room for what comes.
            self._map.delete_many([key for key in keys if key not in wanted])
            self._map.update_many([(key, wanted[key]) for key in keys if key in wanted])
        except OSError as error:
            self._failure = error
            raise

    def mend(self) -> Generator[None, None, int]:
        """Have the map, let it hold what is `wanted`, and pin it; in steps between which `write`
        may be called. Gives how many entries differed. Raises ExportError, OSError."""
        self._failure = None
        is_pinned = self._open()
        assert self._map is not None  # noqa: S101  # just opened
        try:
            differed = yield from self._compare(self._map)
        finally:
            self._touched = None
        if self._failure is not None:
            raise self._failure
        # Only now, so that nobody finds a map at its name that is still to be filled.
        group = self.shape.export.group
        mode = 0o640 if group else 0o600
        if is_pinned:
            self._place.permit(self._name, mode, group)
        else:
            self._place.pin(self._map, self._name, mode, group)
        self.is_mended = True
        return differed

    def _open(self) -> bool:
        """Have the kernel's map; whether it is what is pinned."""
        form = form_of(self.shape)
        pinned = self._place.open(self._name, form)
        if self._map is None:
            self._map = pinned
            if pinned is None:
                title = self.shape.export.map
                self._map = self._place.create(title, form, btf_of(self.shape))
            return pinned is not None
        if pinned is None:
            return False
        pinned.close()
        return pinned.map_id == self._map.map_id

    def _compare(self, found: KernelMap) -> Generator[None, None, int]:
        touched: set[bytes] = set()
        self._touched = touched
        missing = set(self.wanted)
        foreign = []
        for piece in found.scan():
            for key, value in piece:
                # One that comes twice was found right before.
                wanted = self.wanted.get(key)
                if wanted is None:
                    foreign.append(key)
                elif wanted == value:
                    missing.discard(key)
            yield
        differed = 0
        for some in _pieces(foreign):
            gone = [key for key in some if key not in self.wanted and key not in touched]
            found.delete_many(gone)
            differed += len(gone)
            yield
        for some in _pieces(list(missing)):
            puts = [
                (key, self.wanted[key]) for key in some if key in self.wanted and key not in touched
            ]
            found.update_many(puts)
            differed += len(puts)
            yield
        return differed

    def entries(self, limit: int) -> list[tuple[bytes, bytes]]:
        """What the kernel has, `limit` entries at most. Raises OSError."""
        if self._map is None:
            return []
        return list(islice((item for piece in self._map.scan() for item in piece), limit))

    def close(self) -> None:
        """Leave it to those who read it."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def remove(self) -> None:
        """Nobody finds it any more. Raises OSError."""
        self.close()
        self._place.unpin(self._name)


def _pieces(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


class StatusMap:
    """The pinned status at `place`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._map: KernelMap | None = None

    def ensure(self) -> None:
        """Raises ExportError, OSError."""
        pinned = self._place.open(STATUS_NAME, STATUS_FORM)
        if self._map is None and pinned is not None:
            self._map = pinned
        elif self._map is None or pinned is None or pinned.map_id != self._map.map_id:
            if pinned is not None:
                pinned.close()
            if self._map is None:
                self._map = self._place.create("raft_status", STATUS_FORM, status_btf())
            self._place.pin(self._map, STATUS_NAME, _STATUS_MODE)
            return
        elif pinned is not None:
            pinned.close()
        self._place.permit(STATUS_NAME, _STATUS_MODE)

    def read(self) -> Status | None:
        """What it says; None when it says nothing yet. Raises OSError."""
        value = None if self._map is None else self._map.lookup(STATUS_KEY)
        return None if value is None else Status.decode(value)

    def write(self, status: Status) -> bool:
        """Whether there is a map to write it to. Raises OSError."""
        if self._map is None:
            return False
        self._map.update(STATUS_KEY, status.encode())
        return True

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None


def forget_others(place: Place, names: set[str]) -> list[str]:
    """Take away the pins of maps that are exported no longer, or in another layout; their names."""
    gone = sorted(set(place.names()) - names - {STATUS_NAME})
    for name in gone:
        place.unpin(name)
    return gone
