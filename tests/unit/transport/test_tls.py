"""Members under TLS: who gets in, who does not, and what is said of it."""

from __future__ import annotations

import asyncio
import gc
import ssl
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from raft_agent import wire
from raft_agent.consensus import types
from raft_agent.tls.identity import Identity, Kind, Role
from raft_agent.tls.layer import Layer
from raft_agent.transport.transport import ProbeFailed
from raft_agent.wire import FrameType
from tests.unit.tls.papers import Office, client, node
from tests.unit.transport.nodes import (
    HEARTBEAT,
    Node,
    RawPeer,
    connect_all,
    run,
    started,
)
from tests.unit.transport.tls_nodes import (
    REQUEST,
    TlsPeer,
    credentials,
    secure,
)

# --- members --------------------------------------------------------------------------------------


@pytest.mark.parametrize("clear_headers", [True, False])
def test_members_exchange_messages_of_any_size(office: Office, clear_headers: bool) -> None:
    async def test() -> None:
        a, b = (secure(office, number, clear_headers=clear_headers) for number in (1, 2))
        async with started(a, b):
            await connect_all(a, b)
            a.transport.send(2, HEARTBEAT)
            assert await b.until("message") == ("message", 1, HEARTBEAT)
            large = types.BootstrapAsk(0, 1, "node-01", "x" * 3_000_000, ())
            a.transport.send(2, large)
            a.transport.send(2, HEARTBEAT)
            assert await b.told.get() == ("message", 1, large)
            assert await b.told.get() == ("message", 1, HEARTBEAT)
            assert a.transport.reject_counts == b.transport.reject_counts == {}

    run(test)


def test_snapshots_and_forwards_go_under_tls_too(office: Office) -> None:
    async def test() -> None:
        a, b = secure(office, 1), secure(office, 2)
        b.answer_forward = lambda body, reply: reply(body[::-1])
        async with started(a, b):
            await connect_all(a, b)
            piece = types.SnapshotChunk(3, 1, 2, 0, 9, 2, 1 << 26, 1, 0, bytes(1 << 20))
            a.transport.send(2, piece)
            assert await b.until("message") == ("message", 1, piece)
            assert a.transport.stats()[2].connected_bulk
            answers: asyncio.Queue[Any] = asyncio.Queue()
            a.transport.forward(2, b"abc", lambda *answer: answers.put_nowait(answer))
            assert await answers.get() == (b"cba", True)

    run(test)


def test_who_answers_at_an_address_is_told_under_tls(office: Office) -> None:
    async def test() -> None:
        a, b = secure(office, 1), secure(office, 2)
        async with started(a, b):
            hello = await a.transport.probe(f"127.0.0.1:{b.port}", 5.0)
            assert (hello.name, hello.member_id) == ("node-02", 2)
            assert a.transport.reject_counts == b.transport.reject_counts == {}

    run(test)


def test_who_asks_who_answers_hears_what_is_wrong_with_tls(office: Office, tmp_path: Path) -> None:
    foreign = Office(tmp_path, "foreign")

    async def test() -> None:
        a, b, c = secure(office, 1), secure(foreign, 2), Node(3)
        async with started(a, b, c):
            with pytest.raises(ProbeFailed, match=r":\d+: its certificate was not signed by"):
                await a.transport.probe(f"127.0.0.1:{b.port}", 5.0)
            with pytest.raises(ProbeFailed, match="closed the connection in the TLS handshake"):
                await a.transport.probe(f"127.0.0.1:{c.port}", 5.0)
            with pytest.raises(ProbeFailed, match=r"it speaks TLS, and \[tls\] is not set here"):
                await c.transport.probe(f"127.0.0.1:{a.port}", 5.0)

    run(test)


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux only")
def test_bytes_are_counted_as_they_went_over_the_network(office: Office) -> None:
    """The agent holds them against what the kernel's program has seen."""

    async def test() -> None:
        a, b = secure(office, 1), secure(office, 2)
        async with started(a, b):
            await connect_all(a, b)
            a.transport.send(2, types.BootstrapAsk(0, 1, "node-01", "x" * 100_000, ()))
            await b.until("message")
            for _ in range(3):
                a.transport.send(2, HEARTBEAT)
                await b.until("message")
            received = sum(flow.received_bytes or 0 for flow in b.transport.flows())
            assert b.transport.stats()[1].bytes_in == a.transport.stats()[2].bytes_out == received

    run(test)


def test_frames_of_one_turn_go_out_with_one_write(office: Office) -> None:
    """Several calls of the system would cost more than the encryption."""

    async def test() -> None:
        a, b = secure(office, 1), secure(office, 2)
        async with started(a, b):
            await connect_all(a, b)
            [connection] = a.transport._outbound.values()
            layer = connection._transport._layer
            writes: list[int] = []
            write = layer.tcp.writelines

            class Tcp:
                def __getattr__(self, name: str) -> Any:
                    return getattr(tcp, name)

                def writelines(self, pieces: list[bytes]) -> None:
                    writes.append(len(pieces))
                    write(pieces)

            tcp, layer.tcp = layer.tcp, Tcp()
            for _ in range(5):
                a.transport.send(2, HEARTBEAT)
            for _ in range(5):
                await b.until("message")
            assert writes == [10]

    run(test)


def test_a_connection_whose_keys_are_worn_is_made_anew(office: Office) -> None:
    async def test() -> None:
        a, b = secure(office, 1), secure(office, 2)
        async with started(a, b):
            await connect_all(a, b)
            [connection] = a.transport._outbound.values()
            connection._transport._layer.channel._worn_bytes = 0
            a.transport.send(2, HEARTBEAT)
            await a.until("down", 2)
            await a.until("up", 2)
            a.transport.send(2, HEARTBEAT)
            await b.until("message", 1, HEARTBEAT)
            assert a.transport.reject_counts == b.transport.reject_counts == {}

    run(test)


# --- with TLS and without -------------------------------------------------------------------------


def test_a_node_without_tls_and_one_with_it_each_say_what_is_wrong(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        a, b = secure(office, 1), Node(2)
        async with started(a, b):
            b.transport.set_peers([a.target()])
            await a.until_refused("tls_plain")
            await b.until_refused("tls_not_set")
            b.transport.set_peers([])
            a.transport.set_peers([b.target()])
            await b.until_refused("tls_not_set")
            await a.until_refused("tls_refused")
            assert "are [tls] and authorities the same at both ends?" in a.transport.problem(2)

    run(test)
    assert any("a plain frame of type 1 where TLS is spoken" in text for text in caplog.messages)
    assert any("it speaks TLS, and [tls] is not set here" in text for text in caplog.messages)


def test_a_client_without_tls_is_refused_with_a_clear_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        a = Node(1)
        async with started(a):
            peer = await RawPeer.dial(a)
            await peer.send(REQUEST)
            await peer.closed()
            assert a.transport.reject_counts == {"remote_client": 1}
            peer.close()

    run(test)
    assert "a client's request where none is served: set [tls]" in caplog.messages[0]


# --- remote clients -------------------------------------------------------------------------------


def test_a_clients_connection_goes_to_whoever_serves_clients(office: Office) -> None:
    files = office.issue(client("ann", Role.READER))

    async def test() -> None:
        a = secure(office, 1)
        async with started(a):
            peer = await TlsPeer.dial(a, credentials(files, Kind.CLIENT).client_context())
            await peer.send(REQUEST)
            assert await a.told.get() == ("client", Identity(Kind.CLIENT, "ann", Role.READER))
            assert await a.told.get() == ("request", REQUEST)
            assert (await peer.receive()).body == b"a request"
            assert a.transport.strangers.count == 0
            peer.raw.close()
            assert await a.told.get() == ("client lost", None)
            assert a.transport.reject_counts == {}

    run(test)


def test_a_node_may_ask_as_a_client_and_a_large_request_comes_through(office: Office) -> None:
    files = office.issue(node("node-02"))
    large = wire.encode(FrameType.CLIENT_REQUEST, bytes(2_000_000))

    async def test() -> None:
        a = secure(office, 1)
        async with started(a):
            peer = await TlsPeer.dial(a, credentials(files).client_context())
            await peer.send(large)
            assert await a.told.get() == ("client", Identity(Kind.NODE, "node-02"))
            got = b""
            while len(got) < len(large):
                got += (await a.told.get())[1]
            assert got == large
            peer.raw.close()

    run(test)


def test_a_client_that_says_that_it_sends_nothing_more_is_heard_out(office: Office) -> None:
    files = office.issue(client("ann", Role.READER))

    async def test() -> None:
        a = secure(office, 1)
        async with started(a):
            peer = await TlsPeer.dial(a, credentials(files, Kind.CLIENT).client_context())
            await peer.send(REQUEST)
            tls = peer.channel._tls
            assert tls is not None
            with pytest.raises(ssl.SSLWantReadError):
                tls.unwrap()
            await peer.raw.send(peer.channel.take())
            assert await a.until("request") == ("request", REQUEST)
            assert await a.told.get() == ("client lost", None)
            assert a.transport.reject_counts == {}
            peer.raw.close()

    run(test)


def test_clients_and_strangers_that_have_gone_leave_nothing_in_memory(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent runs without full garbage collections, so there must be no rings."""
    layers: list[weakref.ref[Layer]] = []
    connection_made = Layer.connection_made

    def made(layer: Layer, transport: asyncio.BaseTransport) -> None:
        layers.append(weakref.ref(layer))
        connection_made(layer, transport)

    monkeypatch.setattr(Layer, "connection_made", made)
    foreign = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    foreign.check_hostname = False
    foreign.verify_mode = ssl.CERT_NONE

    async def test() -> None:
        a = secure(office, 1)
        async with started(a):
            ann = credentials(office.issue(client("ann", Role.READER)), Kind.CLIENT)
            peer = await TlsPeer.dial(a, ann.client_context())
            await peer.send(REQUEST)
            await peer.receive()
            peer.raw.close()
            await a.until("client lost")
            await (await TlsPeer.dial(a, foreign)).closed()
            raw = await RawPeer.dial(a)
            await raw.send(REQUEST)
            await a.until_refused("tls_plain")
            raw.close()

    gc.collect()
    gc.disable()
    try:
        run(test)
        assert len(layers) == 3
        assert [layer() for layer in layers if layer() is not None] == []
    finally:
        gc.enable()


# --- certificates that change ---------------------------------------------------------------------


def test_a_connection_whose_certificate_is_revoked_ends_with_the_reload(office: Office) -> None:
    office.crl.write_bytes(office.authority.revoke([]))
    own = office.issue(node("node-01"), crl=True)
    other = office.issue(node("node-02"))
    ann = office.issue(client("ann", Role.READER))

    async def test() -> None:
        mine = credentials(own)
        a, b = Node(1, credentials=mine), Node(2, credentials=credentials(other))
        async with started(a, b):
            await connect_all(a, b)
            peer = await TlsPeer.dial(a, credentials(ann, Kind.CLIENT).client_context())
            await peer.send(REQUEST)
            await peer.receive()
            await a.until("request")
            serials = [
                x509.load_pem_x509_certificate(Path(files.cert).read_bytes()).serial_number
                for files in (other, ann)
            ]
            office.crl.write_bytes(office.authority.revoke(serials))
            mine.reload()
            assert a.transport.stats()[2].connected
            security = a.transport._local.security
            assert security is not None
            security.check_again()
            await peer.closed()
            assert {await a.told.get(), await a.told.get()} == {
                ("down", 2),
                ("client lost", "the certificate of client ann (reader) is revoked"),
            }
            await b.until("down", 1)
            await a.until_refused("tls_revoked")

    run(test)


def test_a_reload_touches_no_connection_and_the_next_one_has_the_other_certificate(
    office: Office,
) -> None:
    files = office.issue(node("node-01"))

    async def test() -> None:
        mine = credentials(files)
        a, b = Node(1, credentials=mine), secure(office, 2)
        async with started(a, b):
            await connect_all(a, b)
            peer = await TlsPeer.dial(a, credentials(files).client_context())
            before = peer.channel.peer_certificate
            peer.raw.close()
            office.issue(node("node-01"))
            mine.reload()
            security = a.transport._local.security
            assert security is not None
            security.check_again()
            peer = await TlsPeer.dial(a, credentials(files).client_context())
            assert peer.channel.peer_certificate != before
            peer.raw.close()
            a.transport.send(2, HEARTBEAT)
            await b.until("message", 1, HEARTBEAT)
            assert a.told.empty()

    run(test)
