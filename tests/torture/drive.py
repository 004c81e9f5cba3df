"""A virtual disk with a cache of its own, which it empties when it is told to flush, and loses when
the power fails. A virtual machine reaches it as a network block device over a Unix socket.

The protocol is that of NetworkBlockDevice/nbd, doc/proto.md: the fixed newstyle handshake and
simple replies. What a write brought is in the cache until a flush comes, or is on the medium before
the answer when the write bears FUA. A virtual machine whose cache writes back hands the flushes of
its guest on.
"""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import struct
import threading
from pathlib import Path

SECTOR = 512

_MAGIC = b"NBDMAGIC"
_OPTION_MAGIC = b"IHAVEOPT"
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_EXPORT_NAME, _ABORT, _LIST, _INFO, _GO = 1, 2, 3, 6, 7
_ACK, _REPLY_INFO, _UNSUPPORTED = 1, 3, 0x80000001
_INFO_EXPORT = 0
_OPTION_REPLY = 0x3E889045565A9
_HAS_FLAGS, _SEND_FLUSH, _SEND_FUA = 1, 4, 8
_FLAGS = _HAS_FLAGS | _SEND_FLUSH | _SEND_FUA
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
FUA = 1
REQUEST = struct.Struct(">IHHQQI")
REQUEST_MAGIC = 0x25609513
REPLY = struct.Struct(">IIQ")
REPLY_MAGIC = 0x67446698


class Drive:
    """Serves one machine at a time on `path`. `image` is what is on the medium at first; a flush
    takes `flush_s` before anything of it is there, so that power can fail amid it."""

    def __init__(self, path: Path, image: bytes, flush_s: float = 0.0) -> None:
        assert len(image) % SECTOR == 0
        self.path = path
        self._flush_s = flush_s
        self._power_failed = threading.Event()
        self._medium = bytearray(image)
        self._seen = bytearray(image)
        self._unflushed: set[int] = set()
        self._machine: socket.socket | None = None
        self._is_idle = threading.Event()
        self._is_idle.set()
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def has_unflushed(self) -> bool:
        """Whether something would be lost now."""
        return bool(self._unflushed)

    def fail_power(self) -> None:
        """It does nothing any more until `power_returns`."""
        self._power_failed.set()

    def power_returns(self, chance: random.Random) -> int:
        """And the machine is gone. Of what was not flushed everything is lost, or each sector by
        chance; how many sectors."""
        self._is_idle.wait()
        self._power_failed.clear()
        with self._lock:
            # A drive may have written all of its cache by itself, or nothing; mostly some.
            kept = chance.choice([0.0, 0.0, 0.5, 0.9])
            lost = 0
            for sector in sorted(self._unflushed):
                if chance.random() < kept:
                    self._put_on_medium(sector)
                else:
                    lost += 1
            self._unflushed.clear()
            self._seen[:] = self._medium
        return lost

    def close(self) -> None:
        # Unlike close() this wakes up the thread that waits there.
        self._listener.shutdown(socket.SHUT_RDWR)
        if (machine := self._machine) is not None:
            # Whose connection may have ended just now.
            with contextlib.suppress(OSError):
                machine.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                self._machine, _ = self._listener.accept()
            except OSError:
                return
            self._is_idle.clear()
            with self._machine:
                try:
                    if self._agree(self._machine):
                        self._obey(self._machine)
                except (ConnectionError, EOFError):
                    pass
            self._machine = None
            self._is_idle.set()

    # --- the handshake

    def _agree(self, machine: socket.socket) -> bool:
        """Whether the machine wants to go on after it."""
        machine.sendall(_MAGIC + _OPTION_MAGIC + struct.pack(">H", _FIXED_NEWSTYLE | _NO_ZEROES))
        (client_flags,) = struct.unpack(">I", _receive(machine, 4))
        while True:
            magic, option, length = struct.unpack(">8sII", _receive(machine, 16))
            assert magic == _OPTION_MAGIC, magic
            _receive(machine, length)
            if option == _EXPORT_NAME:
                zeroes = b"" if client_flags & _NO_ZEROES else bytes(124)
                machine.sendall(struct.pack(">QH", len(self._medium), _FLAGS) + zeroes)
                return True
            if option in (_INFO, _GO):
                export = struct.pack(">HQH", _INFO_EXPORT, len(self._medium), _FLAGS)
                self._answer_option(machine, option, _REPLY_INFO, export)
                self._answer_option(machine, option, _ACK)
                if option == _GO:
                    return True
            elif option == _ABORT:
                self._answer_option(machine, option, _ACK)
                return False
            else:
                self._answer_option(machine, option, _UNSUPPORTED)

    def _answer_option(
        self, machine: socket.socket, option: int, kind: int, data: bytes = b""
    ) -> None:
        machine.sendall(struct.pack(">QIII", _OPTION_REPLY, option, kind, len(data)) + data)

    # --- reads, writes and flushes, one after the other

    def _obey(self, machine: socket.socket) -> None:
        while True:
            request = REQUEST.unpack(_receive(machine, REQUEST.size))
            magic, flags, kind, cookie, offset, length = request
            assert magic == REQUEST_MAGIC, request
            data = _receive(machine, length) if kind == WRITE else b""
            if kind == FLUSH:
                self._power_failed.wait(self._flush_s)
            if kind == DISCONNECT or self._power_failed.is_set():
                return
            error, answer = 0, b""
            with self._lock:
                if kind == READ:
                    answer = bytes(self._seen[offset : offset + length])
                elif kind == WRITE:
                    self._write(offset, data, is_durable=bool(flags & FUA))
                elif kind == FLUSH:
                    self._flush()
                else:
                    error = errno.EINVAL
            machine.sendall(REPLY.pack(REPLY_MAGIC, error, cookie) + answer)

    def _write(self, offset: int, data: bytes, *, is_durable: bool) -> None:
        self._seen[offset : offset + len(data)] = data
        sectors = range(offset // SECTOR, (offset + len(data) + SECTOR - 1) // SECTOR)
        if is_durable:
            self._medium[offset : offset + len(data)] = data
            self._unflushed.difference_update(sectors)
        else:
            self._unflushed.update(sectors)

    def _flush(self) -> None:
        for sector in self._unflushed:
            self._put_on_medium(sector)
        self._unflushed.clear()

    def _put_on_medium(self, sector: int) -> None:
        place = slice(sector * SECTOR, (sector + 1) * SECTOR)
        self._medium[place] = self._seen[place]


def _receive(machine: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = machine.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
