"""Connections of everybody who should not get in, and what is wrong with each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from cryptography import x509

from raft_agent import wire
from raft_agent.tls.channel import Channel
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Role
from raft_agent.transport.handshake import Hello, encode_hello
from raft_agent.wire import FrameError, FrameType
from tests.unit.tls.papers import Office, client, node

_PATIENCE_S = 60.0
_HELLO = encode_hello(FrameType.HELLO, Hello(1, 1, "", 7, "node-02", "127.0.0.1:1"))
_FRAME = wire.encode(FrameType.HEARTBEAT, bytes(32), sender=7, term=1, request_id=1)


class Papers:
    """The certificates of a cluster's nodes, and of those who are to be refused, in `directory`.

    `section`: [tls] of raft.toml for each of `names`; NAME stands for its own.
    """

    def __init__(self, directory: Path, names: list[str]) -> None:
        office = Office(directory)
        for name in names:
            office.issue(node(name, "127.0.0.1"))
        self.section = (
            f'[tls]\nca = "{office.ca}"\ncrl = "{office.crl}"\n'
            f'cert = "{directory}/NAME.pem"\nkey = "{directory}/NAME-key.pem"\n'
        )
        apart = directory / "intruders"
        apart.mkdir()
        office.directory = apart
        foreign = Office(apart, "foreign").issue(node("foreign-02"))
        self._contexts = {"foreign": _context(foreign, office.ca)}
        for kind, files in {
            "expired": office.issue(node("expired"), at_days=-10),
            "revoked": office.issue(node("revoked")),
            "client": office.issue(client("node-02", Role.ADMIN)),
            "other": office.issue(node("node-09")),
        }.items():
            self._contexts[kind] = _context(files, office.ca)
        pem = (apart / "revoked.pem").read_bytes()
        serial = x509.load_pem_x509_certificate(pem).serial_number
        office.crl.write_bytes(office.authority.revoke([serial]))

    def context(self, kind: str) -> ssl.SSLContext:
        return self._contexts[kind]


def _context(files: TlsFiles, authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(authority)
    context.load_cert_chain(files.cert, files.key)
    return context


class Intruder:
    """One connection, which ends when the node closes it."""

    def __init__(self, papers: Papers, address: tuple[str, int]) -> None:
        self._papers = papers
        self._address = address

    async def _open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._address)

    async def _plain(self, data: bytes) -> None:
        await self._open()
        self._writer.write(data)

    async def plain_hello(self) -> None:
        await self._plain(_HELLO)

    async def plain_request(self) -> None:
        await self._plain(wire.encode(FrameType.CLIENT_REQUEST, b"\x90"))

    async def garbage(self) -> None:
        await self._plain(bytes(range(256)))

    async def no_frames(self) -> None:
        """TLS as it is elsewhere."""
        await self._plain(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512))

    async def huge(self) -> None:
        await self._plain(wire.bare_header(FrameType.TLS_HANDSHAKE, 1 << 30))

    async def no_client_hello(self) -> None:
        await self._plain(wire.bare_header(FrameType.TLS_HANDSHAKE, 512) + bytes(512))

    async def stops_in_the_handshake(self) -> None:
        await self._open()
        channel = Channel(self._papers.context("other"), server_side=False)
        self._writer.write(channel.take()[:-1])

    async def send(self, *pieces: bytes) -> None:
        self._writer.writelines(pieces)
        await self._writer.drain()

    async def receive(self, channel: Channel) -> bytes:
        """What was sealed in the next bytes that hold anything."""
        data = b""
        while not data:
            data = channel.feed(await self._reader.read(1 << 16))
        return data

    async def shaken(self, kind: str) -> Channel:
        """The TLS handshake with a certificate of this kind, done."""
        await self._open()
        channel = Channel(self._papers.context(kind), server_side=False)
        while not channel.is_open:
            self._writer.write(channel.take())
            data = await self._reader.read(1 << 16)
            if not data:
                raise ConnectionError("closed")
            channel.feed(data)
        self._writer.write(channel.take())
        return channel

    async def _says_hello(self, kind: str) -> None:
        channel = await self.shaken(kind)
        self._writer.writelines(channel.seal([_HELLO]))

    async def foreign(self) -> None:
        await self._says_hello("foreign")

    async def expired(self) -> None:
        await self._says_hello("expired")

    async def revoked(self) -> None:
        await self._says_hello("revoked")

    async def client_as_node(self) -> None:
        await self._says_hello("client")

    async def name_of_another(self) -> None:
        await self._says_hello("other")

    async def differing_header(self) -> None:
        channel = await self.shaken("other")
        data = bytearray(b"".join(channel.seal([_FRAME])))
        data[16] ^= 1
        self._writer.write(bytes(data))

    async def cut_stream(self) -> None:
        channel = await self.shaken("other")
        self._writer.write(b"".join(channel.seal([_HELLO]))[:-1])
        self._writer.write_eof()

    async def garbage_records(self) -> None:
        channel = await self.shaken("other")
        self._writer.write(b"".join(channel.seal([_HELLO]))[:48] + bytes(4096))

    async def huge_record(self) -> None:
        await self.shaken("other")
        body = b"\x17\x03\x03\xff\xff" + bytes(0xFFFF)
        self._writer.write(wire.bare_header(FrameType.TLS_FRAME, len(body)) + body)

    async def end(self) -> None:
        """Read what comes until the node has closed, which it does before the patience ends."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while await self._reader.read(1 << 16):
                    pass
        except ConnectionError:
            pass
        finally:
            self._writer.transport.abort()


# What it does, and the reason under which the node counts it.
KINDS: dict[str, tuple[Callable[[Intruder], Awaitable[None]], str]] = {
    "plain hello": (Intruder.plain_hello, "tls_plain"),
    "plain request": (Intruder.plain_request, "tls_plain"),
    "garbage": (Intruder.garbage, "magic"),
    "TLS without frames": (Intruder.no_frames, "magic"),
    "huge frame": (Intruder.huge, "length"),
    "no ClientHello": (Intruder.no_client_hello, "tls_records"),
    "stops in the handshake": (Intruder.stops_in_the_handshake, "handshake_timeout"),
    "foreign authority": (Intruder.foreign, "tls_foreign"),
    "expired certificate": (Intruder.expired, "tls_expired"),
    "revoked certificate": (Intruder.revoked, "tls_revoked"),
    "client as node": (Intruder.client_as_node, "tls_role"),
    "name of another": (Intruder.name_of_another, "tls_name"),
    "clear header differs": (Intruder.differing_header, "tls_header"),
    "cut stream": (Intruder.cut_stream, "truncated"),
    "garbage records": (Intruder.garbage_records, "tls_records"),
    "huge record": (Intruder.huge_record, "tls_records"),
}


async def intrude(papers: Papers, address: tuple[str, int], kind: str) -> None:
    """One connection of this kind, to its end; the node must close it."""
    intruder = Intruder(papers, address)
    with contextlib.suppress(OSError, FrameError):
        await KINDS[kind][0](intruder)
    await intruder.end()


async def flood(papers: Papers, address: tuple[str, int], per_s: float, ends: asyncio.Event) -> int:
    """So many connections a second of all kinds in turn, until `ends`; how many there were."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    began = loop.time()
    for number, kind in enumerate(itertools.cycle(KINDS)):
        delay_s = began + number / per_s - loop.time()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        if ends.is_set():
            break
        task = asyncio.create_task(intrude(papers, address, kind))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return number
