"""TLS inside frames: what a stranger sends instead of a handshake, and what somebody who has a
certificate, or who stands between the two sides, makes of frames."""

from __future__ import annotations

import functools
import ssl
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from raft_agent import wire
from raft_agent.tls.channel import MAX_HANDSHAKE_BYTES, Channel, check_start
from raft_agent.tls.credentials import Credentials
from raft_agent.tls.identity import Kind
from raft_agent.wire import HEADER_SIZE, FrameError, FrameType
from tests.fuzz.target import Target
from tests.unit.tls.papers import Office, node

_HANDSHAKE, _SEALED = int(FrameType.TLS_HANDSHAKE), int(FrameType.TLS_FRAME)
_LENGTH = slice(8, 12)

# A script is a byte (which side, in pieces of which size) and steps: what to do, how many bytes
# belong to it, and these.
_STEP = struct.Struct("<BH")
_HONEST, _HIDDEN, _OTHER_HEAD, _HANDSHAKE_HEAD, _CUT, _RAW = range(6)


@functools.cache
def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server and of a client, both with a node's certificate."""
    with TemporaryDirectory(prefix="raft-fuzz-") as directory:
        files = Office(Path(directory)).issue(node("node-01"))
        credentials = Credentials(files, Kind.NODE)
        return credentials.server_context(), credentials.client_context()


class _Intruder:
    """Who has finished the handshake with `victim`, and then does with TLS what no channel does."""

    def __init__(self, *, victim_serves: bool) -> None:
        mine, theirs = _contexts() if not victim_serves else _contexts()[::-1]
        self.victim = Channel(theirs, server_side=victim_serves)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = mine.wrap_bio(self._in, self._out, server_side=not victim_serves)
        for _ in range(3):
            self._in.write(b"".join(body for _, body in _frames(self.victim.take())))
            with suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
            self.victim.feed(_frame(_HANDSHAKE, self._out.read()))
        assert self.victim.is_open

    def records(self, plain: bytes) -> bytes:
        for start in range(0, len(plain), 1 << 14):
            self._tls.write(plain[start : start + (1 << 14)])
        return self._out.read()


def _frame(kind: int, body: bytes) -> bytes:
    return wire.bare_header(kind, len(body)) + body if body else b""


def _frames(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    while data:
        end = HEADER_SIZE + wire.body_length(data)
        yield data[:HEADER_SIZE], data[HEADER_SIZE:end]
        data = data[end:]


def _steps(script: bytes) -> Iterator[tuple[int, bytes]]:
    at = 1
    while len(script) - at >= _STEP.size:
        kind, size = _STEP.unpack_from(script, at)
        at += _STEP.size
        yield kind % 6, script[at : at + size]
        at += size


def _shown(head: bytes, length: int) -> bytes:
    """A clear header as it should be above a sealed frame that begins with `head`."""
    return head[:8] + length.to_bytes(4, "little") + bytes(4) + head[16:HEADER_SIZE]


def take_frames(script: bytes) -> None:
    """What was sealed whole under its own header arrives as it was; at the first frame of any other
    kind the channel is lost; and nothing ever arrives that was not sealed."""
    first = script[0] if script else 0
    intruder = _Intruder(victim_serves=bool(first & 1))
    piece = 1 + (first >> 1) * 8
    sealed = arrived = b""
    for kind, data in _steps(script):
        plain = b"" if kind == _RAW else data[HEADER_SIZE:] if kind == _OTHER_HEAD else data
        sealed += plain
        sent = data if kind == _RAW else _under_a_head(kind, data, intruder.records(plain))
        is_welcome = kind != _CUT and _is_welcome(sent, plain)
        try:
            for start in range(0, len(sent), piece):
                arrived += intruder.victim.feed(sent[start : start + piece])
        except FrameError as error:
            assert error.reason
            assert str(error).isprintable()
            assert not is_welcome
            # The other side is told why, in frames.
            for head, _ in _frames(intruder.victim.take()):
                assert wire.type_of(head) == _HANDSHAKE
            assert sealed.startswith(arrived)
            return
        assert sealed.startswith(arrived)
        if kind == _RAW:
            return
        assert is_welcome or kind == _CUT or not plain
        assert arrived == sealed or kind == _CUT
    assert intruder.victim.pending_bytes <= len(script) + HEADER_SIZE


def _is_welcome(sent: bytes, plain: bytes) -> bool:
    """Whether `sent` is a frame that carries the frame `plain` as it should."""
    if len(plain) < HEADER_SIZE or len(plain) != HEADER_SIZE + wire.body_length(plain):
        return False
    head, length = sent[:HEADER_SIZE], len(sent) - HEADER_SIZE
    if head == wire.bare_header(_SEALED, length):
        return True
    try:
        wire.check_form(head)
    except FrameError:
        return False
    return head == _shown(plain, length) and wire.type_of(head) not in (_HANDSHAKE, _SEALED)


def _under_a_head(kind: int, data: bytes, records: bytes) -> bytes:
    if kind == _HIDDEN or len(data) < HEADER_SIZE:
        return _frame(_SEALED, records)
    if kind == _HANDSHAKE_HEAD:
        return _frame(_HANDSHAKE, records)
    if kind == _OTHER_HEAD:
        head = bytearray(data[:HEADER_SIZE])
        head[_LENGTH] = len(records).to_bytes(4, "little")
        return bytes(head) + records
    if kind == _CUT:
        # The records of one frame under two headers.
        middle = len(records) // 2
        head = _shown(data, middle)
        return head + records[:middle] + _shown(data, len(records) - middle) + records[middle:]
    return _shown(data, len(records)) + records


def mend_script(script: bytes) -> bytes:
    """Give the frames that are to be sealed the form of frames, and lengths that fit."""
    out = script[:1]
    for kind, data in _steps(script):
        plain_at = HEADER_SIZE if kind == _OTHER_HEAD else 0
        plain = bytearray(data[plain_at:])
        if kind != _RAW and len(plain) >= HEADER_SIZE:
            plain[:4], plain[4] = wire.MAGIC.to_bytes(4, "little"), wire.VERSION
            plain[_LENGTH] = (len(plain) - HEADER_SIZE).to_bytes(4, "little")
            plain[44:48] = bytes(4)
        out += _STEP.pack(kind, len(data)) + data[:plain_at] + plain
    return out


def shake_hands(data: bytes) -> None:
    """Without a certificate nothing opens, nothing comes out, and little is kept; what is refused
    for its first bytes alone is refused by the handshake, too."""
    for is_server, context in zip((True, False), _contexts(), strict=True):
        channel = Channel(context, server_side=is_server)
        piece = 1 + (data[-1] if data else 0) * 4
        refusal = None
        try:
            for start in range(0, len(data), piece):
                assert channel.feed(data[start : start + piece]) == b""
                channel.take()
        except FrameError as error:
            refusal = error
            assert str(error).isprintable()
            channel.take()
        assert not channel.is_open
        assert channel.peer_certificate == b""
        assert refusal or channel.pending_bytes <= MAX_HANDSHAKE_BYTES + HEADER_SIZE
        if is_server:
            try:
                check_start(data)
            except FrameError:
                assert refusal is not None or len(data) < HEADER_SIZE + wire.body_length(data)


def _scripts() -> list[bytes]:
    beat = wire.encode(FrameType.HEARTBEAT, b"how far", sender=7, term=3, request_id=9, count=1)
    large = wire.encode(FrameType.APPEND_ENTRIES, bytes(9000), sender=7, term=3)
    several = [
        [(_HONEST, beat), (_HIDDEN, beat), (_HONEST, large)],
        [(_OTHER_HEAD, beat[:HEADER_SIZE] + beat)],
        [(_OTHER_HEAD, wire.bare_header(_SEALED, 0) + beat), (_HONEST, beat)],
        [(_OTHER_HEAD, large[:HEADER_SIZE] + beat)],
        [(_HONEST, beat), (_HANDSHAKE_HEAD, beat)],
        [(_CUT, beat)],
        [(_HONEST, beat + beat)],
        [(_HONEST, beat), (_RAW, beat)],
        [(_HONEST, beat), (_RAW, _frame(_SEALED, bytes(40)))],
    ]
    return [
        bytes((first,)) + b"".join(_STEP.pack(kind, len(data)) + data for kind, data in steps)
        for first, steps in enumerate(several, 60)
    ]


def _client_hello() -> bytes:
    """Always the same one (RFC 8446 §4.1.2): supported_versions, supported_groups,
    signature_algorithms and key_share for x25519."""
    extensions = (
        (43, b"\x02\x03\x04"),
        (10, b"\x00\x02\x00\x1d"),
        (13, b"\x00\x02\x04\x03"),
        (51, b"\x00\x24\x00\x1d\x00\x20" + bytes((9, *range(1, 32)))),
    )
    block = b"".join(struct.pack(">HH", kind, len(body)) + body for kind, body in extensions)
    start = b"\x03\x03" + bytes(range(32)) + b"\x00" + b"\x00\x04\x13\x01\x13\x02" + b"\x01\x00"
    hello = start + struct.pack(">H", len(block)) + block
    return b"\x16\x03\x01" + struct.pack(">HBxH", len(hello) + 4, 1, len(hello)) + hello


def _handshakes() -> list[bytes]:
    hello = _frame(_HANDSHAKE, _client_hello())
    alert = _frame(_HANDSHAKE, b"\x15\x03\x03\x00\x02\x02\x30")
    return [
        hello,
        hello + alert,
        alert,
        hello[:200],
        b"RAFT" + hello,
        _frame(_HANDSHAKE, bytes(600)),
    ]


TARGETS = (
    Target("tls_frames", take_frames, _scripts, mend_script),
    Target("tls_handshakes", shake_hands, _handshakes),
)
