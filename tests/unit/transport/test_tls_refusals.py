"""Who is not let in under TLS, and what is not taken for whole."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from raft_agent import wire
from raft_agent.tls.channel import Channel
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Kind, Role
from raft_agent.transport.handshake import decode_hello, encode_hello
from raft_agent.transport.transport import PeerTarget
from raft_agent.wire import FrameType
from tests.unit.tls.papers import Office, client, node
from tests.unit.transport.nodes import (
    Node,
    RawListener,
    RawPeer,
    run,
    started,
)
from tests.unit.transport.tls_nodes import (
    HEARTBEAT_FRAME,
    TlsPeer,
    credentials,
    secure,
)

# --- who is not let in ----------------------------------------------------------------------------


async def refused(office_of_a: Office, files: TlsFiles, reason: str, kind: Kind) -> None:
    """Somebody with the certificate of `files` dials and says to be node 2; why that failed."""
    a = secure(office_of_a, 1)
    async with started(a):
        # Knows the authority in any case: it is the other side that has to refuse.
        context = credentials(files, kind).client_context()
        context.load_verify_locations(office_of_a.ca)
        try:
            peer = await TlsPeer.dial(a, context)
            await peer.send(encode_hello(FrameType.HELLO, Node(2).hello()))
            await a.until_refused(reason)
            await peer.closed()
        except ConnectionError:
            pass
        await a.until_refused(reason)
        assert a.transport.reject_counts == {reason: 1}
        assert a.transport.stats() == {}


def test_a_certificate_of_a_foreign_authority_is_refused(
    office: Office, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = Office(tmp_path, "foreign").issue(node("node-02"))
    run(lambda: refused(office, files, "tls_foreign", Kind.NODE))
    [line] = caplog.messages
    assert "was not signed by an authority of this cluster" in line


@pytest.mark.parametrize(("at_days", "reason"), [(-10, "tls_expired"), (10, "tls_not_yet_valid")])
def test_a_certificate_outside_of_its_time_is_refused(
    office: Office, at_days: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = office.issue(node("node-02"), at_days=at_days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(files.ca)
    context.load_cert_chain(files.cert, files.key)

    async def test() -> None:
        a = secure(office, 1)
        async with started(a):
            peer = await TlsPeer.dial(a, context)
            await a.until_refused(reason)
            peer.raw.close()

    run(test)
    assert len(caplog.messages) == 1


def test_a_revoked_certificate_is_refused(office: Office) -> None:
    files = office.issue(node("node-02"))
    serial = x509.load_pem_x509_certificate(Path(files.cert).read_bytes()).serial_number
    office.crl.write_bytes(office.authority.revoke([serial]))
    own = office.issue(node("node-01"), crl=True)

    async def test() -> None:
        a = Node(1, credentials=credentials(own))
        async with started(a):
            peer = await TlsPeer.dial(a, credentials(files).client_context())
            await peer.closed()
            assert a.transport.reject_counts == {"tls_revoked": 1}

    run(test)


def test_a_client_is_no_node(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    files = office.issue(client("node-02", Role.ADMIN))
    run(lambda: refused(office, files, "tls_role", Kind.CLIENT))
    assert "'node-02' has the certificate of client node-02 (admin)" in caplog.messages[0]


def test_a_node_that_says_another_name_is_refused(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    files = office.issue(node("node-03"))
    run(lambda: refused(office, files, "tls_name", Kind.NODE))
    assert "'node-02' has the certificate of node node-03" in caplog.messages[0]


def test_the_refused_node_is_told_why(office: Office) -> None:
    """Who has a certificate of this cluster is; strangers are not."""

    async def test() -> None:
        a = secure(office, 1)
        async with started(a):
            context = credentials(office.issue(node("node-03"))).client_context()
            peer = await TlsPeer.dial(a, context)
            await peer.send(encode_hello(FrameType.HELLO, Node(2).hello()))
            hello = decode_hello(await peer.receive())
            assert "has the certificate of node node-03" in hello.refusal
            await peer.closed()

    run(test)


@pytest.mark.parametrize("answers_as", ["another node", "a client"])
def test_who_dials_a_node_and_finds_somebody_else_says_nothing(
    office: Office, answers_as: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even who it is itself."""
    other = node("node-03") if answers_as == "another node" else client("node-02", Role.ADMIN)
    kind = Kind.NODE if answers_as == "another node" else Kind.CLIENT
    files = office.issue(other)

    async def test() -> None:
        a = secure(office, 1)
        listener = RawListener()
        async with started(a):
            a.transport.set_peers([PeerTarget("node-02", listener.address, 2)])
            raw = await listener.accept()
            peer = TlsPeer(
                raw, Channel(credentials(files, kind).server_context(), server_side=True)
            )
            if kind is Kind.NODE:
                await peer.shake()
                await peer.closed()
                await a.until_refused("tls_name")
                assert "node-03" in a.transport.problem(2)
            else:
                with pytest.raises(wire.FrameError, match="not for this purpose"):
                    await peer.shake()
                await a.until_refused("tls_purpose")
        listener.close()

    run(test)
    assert len(caplog.messages) >= 1


def test_a_listener_of_a_foreign_authority_is_not_talked_to(office: Office, tmp_path: Path) -> None:
    foreign = Office(tmp_path, "foreign")

    async def test() -> None:
        a, b = secure(office, 1), secure(foreign, 2)
        async with started(a, b):
            a.transport.set_peers([b.target()])
            await a.until_refused("tls_foreign")
            await b.until_refused("tls_refused")
            assert "not signed by an authority of this cluster" in a.transport.problem(2)

    run(test)


# --- what comes under TLS -------------------------------------------------------------------------


async def member(a: Node, office: Office) -> TlsPeer:
    """A connection of node 2 to `a`, whose handshake is done."""
    peer = await TlsPeer.dial(a, credentials(office.issue(node("node-02"))).client_context())
    await peer.send(encode_hello(FrameType.HELLO, Node(2).hello()))
    assert decode_hello(await peer.receive()).refusal == ""
    return peer


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: flipped(data, 16), "tls_header"),
        (lambda data: flipped(data, 24), "tls_header"),
        (lambda data: flipped(data, -1), "tls_records"),
        (lambda data: data[:48] + bytes(len(data) - 48), "tls_records"),
        (lambda data: data + data, "tls_records"),
        (lambda data: data[:8] + (1 << 31).to_bytes(4, "little") + data[12:], "length"),
    ],
    ids=["another sender", "another term", "a bit", "garbage", "sent twice", "huge"],
)
def test_what_was_changed_on_its_way_closes_the_connection_with_one_line(
    office: Office,
    change: Callable[[bytes], bytes],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        a = secure(office, 1)
        async with started(a):
            peer = await member(a, office)
            await peer.raw.send(change(b"".join(peer.channel.seal([HEARTBEAT_FRAME]))))
            await peer.closed()
            assert a.transport.reject_counts == {reason: 1}

    run(test)
    assert len(caplog.messages) == 1
    assert "'node-02'" in caplog.messages[0]


def test_a_stream_that_is_cut_within_a_record_is_noticed(office: Office) -> None:
    async def test() -> None:
        a = secure(office, 1)
        async with started(a):
            peer = await member(a, office)
            await peer.raw.send(b"".join(peer.channel.seal([HEARTBEAT_FRAME]))[:-1])
            peer.raw.close()
            await a.until_refused("truncated")
            assert a.told.empty()

    run(test)


def test_the_first_frame_is_short_under_tls_too(office: Office) -> None:
    async def test() -> None:
        a = secure(office, 1)
        async with started(a):
            context = credentials(office.issue(node("node-02"))).client_context()
            peer = await TlsPeer.dial(a, context)
            await peer.send(wire.encode(FrameType.HELLO, bytes(20_000), sender=2))
            await peer.closed()
            assert a.transport.reject_counts == {"length": 1}

    run(test)


@pytest.mark.parametrize("sent", ["nothing", "half of the handshake", "no hello"])
def test_whoever_stops_within_the_handshake_is_not_waited_for(office: Office, sent: str) -> None:
    async def test() -> None:
        a = secure(office, 1)
        context = credentials(office.issue(node("node-02"))).client_context()
        async with started(a):
            if sent == "no hello":
                peer = await TlsPeer.dial(a, context)
            else:
                raw = await RawPeer.dial(a)
                peer = TlsPeer(raw, Channel(context, server_side=False))
                if sent != "nothing":
                    await raw.send(peer.channel.take()[:-1])
            await peer.closed()
            assert a.transport.reject_counts == {"handshake_timeout": 1}
            assert a.transport.strangers.count == 0

    run(test)
