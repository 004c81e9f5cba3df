"""What a process wrote where and when it was on disk, read from strace's files (strace(1), -ff)."""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import msgspec

from raft_agent import wire
from raft_agent.consensus import batch, types
from raft_agent.transport import codec

STRACE = (
    *("strace", "-D", "-f", "-ff", "-ttt", "-T", "-y", "-xx", "-s", "1000000"),
    *("-e", "trace=pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,fdatasync,fsync"),
)

_CALL = re.compile(r"^(\d+\.\d+) (\w+)\((\d+)<([^>]*)>(.*?)\)\s+= (-?\d+).*<([\d.]+)>$")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_MAGIC = struct.pack("<I", batch.MAGIC)


class Call(msgspec.Struct, frozen=True):
    """One finished system call; times in seconds since 1970."""

    start_s: float
    end_s: float
    name: str
    fd: int
    path: str
    data: bytes
    result: int


def calls(trace: Path) -> list[Call]:
    """All calls of one agent, from the strace files `trace`.PID, by their start."""
    found = [call for file in trace.parent.glob(f"{trace.name}.*") for call in _calls_in(file)]
    return sorted(found, key=lambda call: call.start_s)


def _calls_in(file: Path) -> Iterator[Call]:
    for line in file.read_text().splitlines():
        match = _CALL.match(line)
        if match is None:
            continue
        start, name, fd, path, arguments, result, took = match.groups()
        data = b"".join(map(_unescape, _STRING.findall(arguments)))
        where = _unescape(path).decode()
        end_s = float(start) + float(took)
        yield Call(float(start), end_s, name, int(fd), where, data, int(result))


def _unescape(text: str) -> bytes:
    """Undo -xx, which writes every byte as \\xNN, in the paths of -y too."""
    return bytes.fromhex(text.replace("\\x", ""))


class Durable:
    """When which index was on disk: the log's batches, by the fdatasync that followed them."""

    def __init__(self, traced: list[Call]) -> None:
        self.times_s: list[float] = []
        self.indexes: list[int] = []
        written: dict[str, list[tuple[float, int]]] = {}
        highest = 0
        for call in sorted(traced, key=lambda call: call.end_s):
            if not call.path.endswith(".seg"):
                continue
            if call.name in ("fdatasync", "fsync"):
                for end_s, index in written.get(call.path, []):
                    # Only what was written before the call began is sure to be covered.
                    if end_s <= call.start_s:
                        highest = max(highest, index)
                self.times_s.append(call.end_s)
                self.indexes.append(highest)
            else:
                written.setdefault(call.path, []).extend(
                    (call.end_s, header.last_index) for header in _headers(call.data)
                )

    def index_at(self, moment_s: float) -> int:
        """The highest index that was durable at that moment."""
        position = bisect_right(self.times_s, moment_s)
        return self.indexes[position - 1] if position else 0


def _headers(data: bytes) -> Iterator[batch.BatchHeader]:
    offset = data.find(_MAGIC)
    while offset >= 0:
        try:
            header = batch.decode_header(data, offset)
        except batch.BatchError:
            offset = data.find(_MAGIC, offset + 1)
            continue
        yield header
        offset = data.find(_MAGIC, offset + header.size)


def messages_sent(traced: list[Call]) -> Iterator[tuple[float, types.Message]]:
    """Every Raft message that the process wrote to a socket, with the start of that call."""
    readers: dict[tuple[int, str], wire.FrameReader] = {}
    kinds = frozenset(int(kind) for kind in wire.FrameType)
    for call in traced:
        if "socket" not in call.path and "TCP" not in call.path:
            continue
        if call.name not in ("write", "writev", "sendto", "sendmsg") or call.result <= 0:
            continue
        if (call.fd, call.path) not in readers and not call.data.startswith(b"RAFT"):
            continue  # the socket pair by which signals wake the loop
        reader = readers.setdefault((call.fd, call.path), wire.FrameReader(kinds))
        for frame in reader.feed(call.data[: call.result]):
            if frame.type in codec.CALL_FRAMES | codec.REPLY_FRAMES:
                yield call.start_s, codec.decode_message(frame)
