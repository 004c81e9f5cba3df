"""What clients and the nemesis did, one JSON object a line.

Times are of CLOCK_MONOTONIC in nanoseconds: it is the same for all processes of a machine, so the
lines of the clients and those of the nemesis can be put into one order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

Outcome = Literal["ok", "no", "unknown"]
WATCHES = ("key_watch", "message_watch")


class Record(msgspec.Struct, omit_defaults=True):
    """One operation of a client, from when it was asked until it was answered.

    `kind`: which part of the workload it belongs to; `op`, `key` and `args`: what was asked; `out`:
    what came back. `outcome` "ok": answered; "no": refused, or never sent, so that it has changed
    nothing and will not (`code` says why); "unknown": it may have happened, or may yet.
    `revision` is the store's after a write, or of what a read found; `index` a write's in the log.
    """

    client: int
    kind: str
    op: str
    called_ns: int
    returned_ns: int
    outcome: Outcome
    key: str = ""
    args: list[Any] = []
    out: Any = None
    revision: int = 0
    index: int = 0
    code: str = ""


class Deed(msgspec.Struct, omit_defaults=True):
    """One strike of the nemesis, or something that the run did besides (`kind` "run")."""

    kind: str
    began_ns: int
    ended_ns: int
    text: str = ""
    round: int = -1
    alone: bool = False


class Writer:
    """Appends to a file, line by line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._encoder = msgspec.json.Encoder()

    def add(self, record: Record | Deed) -> None:
        self._file.write(self._encoder.encode(record) + b"\n")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Acknowledged:
    """When the clients' writes were acknowledged, as their book grows: `times_ns`, in the order in
    which they noted it."""

    def __init__(self, history: Path) -> None:
        self._history = history
        self._read = 0
        self._decoder = msgspec.json.Decoder(Record)
        self.times_ns: list[int] = []

    def look(self) -> None:
        if not self._history.exists():
            return
        with self._history.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        self.times_ns += [
            record.returned_ns for record in self._decoder.decode_lines(whole) if is_write(record)
        ]

    def first_after(self, moment_ns: int) -> int | None:
        return min((time_ns for time_ns in self.times_ns if time_ns > moment_ns), default=None)


def is_write(record: Record) -> bool:
    """Whether a client's write was acknowledged. Watches tell of writes, too, and much later."""
    return record.outcome == "ok" and record.index > 0 and record.kind not in (*WATCHES, "end")


def acknowledged_ns(records: Sequence[Record]) -> list[int]:
    """When each write was acknowledged, in order."""
    return sorted(record.returned_ns for record in records if is_write(record))


def read_records(path: Path) -> list[Record]:
    """Nothing where clients never began."""
    return list(_read(path, msgspec.json.Decoder(Record))) if path.exists() else []


def read_deeds(path: Path) -> list[Deed]:
    return list(_read(path, msgspec.json.Decoder(Deed)))


def _read(path: Path, decoder: msgspec.json.Decoder[Any]) -> Iterator[Any]:
    with path.open("rb") as file:
        for line in file:
            # A process that was ended leaves a last line in parts.
            if line.endswith(b"\n"):
                yield decoder.decode(line)


def now_ns() -> int:
    return time.monotonic_ns()
