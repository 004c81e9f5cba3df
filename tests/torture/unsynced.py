"""What a file has got since its last sync, and how a disk takes back some of it.

Each sector has what was synced or what was written last. A cut is in the journal of a file system
or it isn't: either the file ends there, or all is back that was cut, and what was written behind
the cut afterwards is gone with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

SECTOR = 512
_NOWHERE = sys.maxsize


@dataclass(frozen=True)
class Written:
    """A write that is not on the medium: what stood there, and how long the file was. `cuts`: there
    the file ends now, and `before` is what stood behind."""

    offset: int
    length: int
    before: bytes
    size_before: int
    cuts: bool = False

    def pieces(self, end: int) -> Iterator[tuple[int, int, int]]:
        """(sector, from, to) of each sector that it is in, up to `end`."""
        behind = min(self.offset + self.length, end)
        if behind <= self.offset:
            return
        for sector in range(self.offset // SECTOR, -(-behind // SECTOR)):
            yield sector, max(sector * SECTOR, self.offset), min((sector + 1) * SECTOR, behind)

    def undo(self, file: int, start: int, stop: int) -> None:
        """Put back what stood between these offsets."""
        if start < stop:
            part = self.before[start - self.offset : stop - self.offset]
            # Where the file ended before there was nothing; a hole reads as zeros.
            os.pwrite(file, part.ljust(stop - start, b"\0"), start)


def take_back(file: int, writes: Sequence[Written], is_lost: Callable[[], bool]) -> int:
    """Undo what is lost of these writes; how many sectors. `is_lost` is asked for each part."""
    if not writes:
        return 0
    cuts = [written for written in writes if written.cuts]
    if cuts and is_lost():
        size = writes[0].size_before if is_lost() else cuts[0].size_before
        lost = _without_cuts(file, writes, is_lost)
    else:
        short = cuts[-1].offset if cuts else writes[0].size_before
        size = short if is_lost() else os.fstat(file).st_size
        lost = _with_cuts(file, writes, is_lost)
    os.ftruncate(file, size)
    return lost


def _with_cuts(file: int, writes: Sequence[Written], is_lost: Callable[[], bool]) -> int:
    """Nothing that stood behind a cut comes back."""
    sectors: dict[int, bool] = {}
    end = _NOWHERE
    for written in reversed(writes):
        if written.cuts:
            end = min(end, written.offset)
            continue
        for sector, start, stop in written.pieces(end):
            if sector not in sectors:
                sectors[sector] = is_lost()
            if sectors[sector]:
                written.undo(file, start, stop)
    return sum(sectors.values())


def _without_cuts(file: int, writes: Sequence[Written], is_lost: Callable[[], bool]) -> int:
    """All that was cut comes back, in the place of what was written there since."""
    sectors: dict[int, bool] = {}
    returned: set[int] = set()
    for place, written in reversed([*enumerate(writes)]):
        cut = min((w.offset for w in writes[: place + 1] if w.cuts), default=_NOWHERE)
        for sector, start, stop in written.pieces(_NOWHERE):
            if stop > cut:
                returned.add(sector)
                written.undo(file, max(start, cut), stop)
            if start < cut:
                if sector not in sectors:
                    sectors[sector] = is_lost()
                if sectors[sector]:
                    written.undo(file, start, min(stop, cut))
    return len(returned | {sector for sector, is_gone in sectors.items() if is_gone})
