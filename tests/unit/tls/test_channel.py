"""TLS inside frames, without I/O: what is sealed, what is shown, and what is refused."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_agent import wire
from raft_agent.tls import channel as channel_module
from raft_agent.tls.channel import MAX_HANDSHAKE_BYTES, Channel
from raft_agent.tls.credentials import Credentials
from raft_agent.tls.identity import Kind
from raft_agent.wire import HEADER_SIZE, FrameError, FrameReader, FrameType
from tests.unit.tls.papers import Office, node

EVERYTHING = frozenset(FrameType)
HEARTBEAT = wire.encode(
    FrameType.HEARTBEAT, b"how far the log is", sender=7, term=3, request_id=9, count=1
)
LARGEST = wire.encode(FrameType.CLIENT_REQUEST, bytes(wire.MAX_BODY_BYTES))


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server and of a client."""
    files = Office(tmp_path_factory.mktemp("tls")).issue(node("node-01"))
    credentials = Credentials(files, Kind.NODE)
    return credentials.server_context(), credentials.client_context()


class Pair:
    """A server's and a client's channel, whose bytes go through the test's hands."""

    def __init__(
        self, contexts: tuple[ssl.SSLContext, ssl.SSLContext], *, clear_headers: bool = True
    ) -> None:
        self.server = Channel(contexts[0], server_side=True, clear_headers=clear_headers)
        self.client = Channel(contexts[1], server_side=False, clear_headers=clear_headers)

    def shake(self) -> Pair:
        while not (self.server.is_open and self.client.is_open):
            self.server.feed(self.client.take())
            self.client.feed(self.server.take())
        return self


@pytest.fixture
def pair(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Pair:
    return Pair(contexts).shake()


def sent(channel: Channel, *frames: bytes) -> bytes:
    return b"".join(channel.seal(frames))


def headers(data: bytes) -> list[tuple[int, ...]]:
    """Of the frames on the wire, as the kernel sees them."""
    found = []
    while data:
        found.append(wire.HEADER.unpack_from(data))
        data = data[HEADER_SIZE + wire.body_length(data) :]
    return found


def test_frames_arrive_as_they_were(pair: Pair) -> None:
    assert pair.server.feed(sent(pair.client, HEARTBEAT, HEARTBEAT)) == HEARTBEAT * 2
    assert pair.client.feed(sent(pair.server, HEARTBEAT)) == HEARTBEAT


def test_a_frame_may_be_sealed_in_pieces_and_several_as_one(pair: Pair) -> None:
    large = wire.encode(FrameType.APPEND_ENTRIES, bytes(range(256)) * 200, sender=7)
    everything = HEARTBEAT + large + HEARTBEAT
    for cuts in ((), (len(HEARTBEAT) + HEADER_SIZE, 20_000, 40_000), (len(HEARTBEAT), 30_000)):
        ends = (*cuts, len(everything))
        pieces = [everything[a:b] for a, b in zip((0, *cuts), ends, strict=True)]
        data = sent(pair.client, *pieces)
        assert [head[2] for head in headers(data)] == [9, 7, 9]
        assert pair.server.feed(data) == everything


def test_a_frame_that_is_not_whole_is_not_sealed(pair: Pair) -> None:
    with pytest.raises(ValueError, match="lacks 1 bytes"):
        pair.client.seal([HEARTBEAT[:-1]])


def test_each_frame_shows_a_header_of_its_own_that_differs_in_length_and_checksum(
    pair: Pair,
) -> None:
    other = wire.encode(FrameType.APPEND_ENTRIES, bytes(100_000), sender=7, term=4, count=5)
    data = sent(pair.client, HEARTBEAT, other)
    for shown, frame in zip(headers(data), (HEARTBEAT, other), strict=True):
        meant = wire.HEADER.unpack_from(frame)
        assert shown[:4] + shown[6:] == meant[:4] + meant[6:]
        assert shown[5] == 0
        assert shown[4] > meant[4] + HEADER_SIZE
    assert b"how far the log is" not in data


def test_without_clear_headers_only_lengths_are_shown(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    pair = Pair(contexts, clear_headers=False).shake()
    data = sent(pair.client, HEARTBEAT)
    [shown] = headers(data)
    assert shown == (wire.MAGIC, 1, FrameType.TLS_FRAME, 0, len(data) - HEADER_SIZE, *(0,) * 6)
    assert pair.server.feed(data) == HEARTBEAT


def test_one_side_may_hide_its_headers_and_the_other_show_them(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    pair = Pair(contexts)
    pair.server = Channel(contexts[0], server_side=True, clear_headers=False)
    pair.shake()
    assert pair.client.feed(sent(pair.server, HEARTBEAT)) == HEARTBEAT
    assert pair.server.feed(sent(pair.client, HEARTBEAT)) == HEARTBEAT


def test_the_largest_frame_fits(pair: Pair) -> None:
    data = sent(pair.client, LARGEST)
    assert wire.body_length(data) <= wire.MAX_SEALED_BYTES
    assert pair.server.feed(data) == LARGEST


def test_the_certificate_of_the_other_side_is_there_once_the_channel_is_open(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    pair = Pair(contexts)
    assert pair.server.peer_certificate == b""
    pair.shake()
    assert pair.server.peer_certificate == pair.client.peer_certificate != b""


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(1, 40_000), min_size=1, max_size=40))
def test_the_stream_may_be_cut_anywhere(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], cuts: list[int]
) -> None:
    """The handshake, too."""
    pair = Pair(contexts)
    frames = [HEARTBEAT, wire.encode(FrameType.SNAPSHOT_CHUNK, bytes(range(256)) * 150), HEARTBEAT]

    def pieces(data: bytes) -> list[bytes]:
        found = []
        turn = 0
        while data:
            size = cuts[turn % len(cuts)]
            found.append(data[:size])
            data = data[size:]
            turn += 1
        return found

    while not (pair.server.is_open and pair.client.is_open):
        for piece in pieces(pair.client.take()):
            pair.server.feed(piece)
        for piece in pieces(pair.server.take()):
            pair.client.feed(piece)
    reader = FrameReader(EVERYTHING)
    got = []
    for piece in pieces(sent(pair.client, *frames)):
        got += reader.feed(pair.server.feed(piece))
    assert pair.server.pending_bytes == 0
    expected = FrameReader(EVERYTHING).feed(b"".join(frames))
    assert got == expected


def test_a_channel_is_worn_once_its_keys_have_protected_too_much(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dialler's first, since it can dial anew."""
    monkeypatch.setattr(channel_module, "WORN_BYTES", 10_000)
    pair = Pair(contexts).shake()
    assert not pair.client.is_worn
    while not pair.client.is_worn:
        assert not pair.server.is_worn
        pair.server.feed(sent(pair.client, HEARTBEAT))
    assert not pair.server.is_worn
    for _ in range(100):
        pair.server.feed(sent(pair.client, HEARTBEAT))
    assert pair.server.is_worn


def test_a_large_frame_is_passed_on_as_it_comes_and_not_kept(pair: Pair) -> None:
    data = sent(pair.client, LARGEST)
    assert len(pair.server.feed(data[: 1 << 20])) > (1 << 20) - (64 << 10)
    assert pair.server.pending_bytes == 1 << 20


def test_close_notify_is_the_end_of_the_stream(pair: Pair) -> None:
    tls = pair.client._tls
    assert tls is not None
    data = sent(pair.client, HEARTBEAT)
    with pytest.raises(ssl.SSLWantReadError):
        tls.unwrap()
    assert pair.server.feed(data) == HEARTBEAT
    assert not pair.server.has_ended
    assert pair.server.feed(pair.client.take()) == b""
    assert pair.server.has_ended


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 10_000), new=st.binary(min_size=1, max_size=4), cut=st.integers(0, 10_000))
def test_whatever_is_changed_on_the_way_is_noticed(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], at: int, new: bytes, cut: int
) -> None:
    """What is delivered is always the beginning of what was sent."""
    pair = Pair(contexts).shake()
    frames = HEARTBEAT + wire.encode(FrameType.APPEND_ENTRIES, bytes(3000), sender=7) + HEARTBEAT
    data = bytearray(sent(pair.client, HEARTBEAT, frames[len(HEARTBEAT) : -len(HEARTBEAT)]))
    data[at % len(data) : at % len(data) + len(new)] = new
    got = b""
    try:
        for start in range(0, len(data), cut % len(data) + 1):
            got += pair.server.feed(bytes(data[start : start + cut % len(data) + 1]))
    except FrameError:
        pass
    assert frames.startswith(got)


# --- refused --------------------------------------------------------------------------------------


def refusal(channel: Channel, data: bytes) -> FrameError:
    with pytest.raises(FrameError) as caught:
        channel.feed(data)
    return caught.value


@pytest.mark.parametrize(
    ("at", "name"),
    [(5, "type"), (6, "flags"), (16, "sender"), (24, "term"), (32, "request id"), (40, "count")],
)
def test_a_clear_header_that_differs_from_the_sealed_one_is_refused(
    pair: Pair, at: int, name: str
) -> None:
    data = bytearray(sent(pair.client, HEARTBEAT))
    data[at] ^= 1
    error = refusal(pair.server, bytes(data))
    assert error.reason == "tls_header"
    assert f"says {name} " in str(error)


def test_a_clear_header_with_a_checksum_is_refused(pair: Pair) -> None:
    data = bytearray(sent(pair.client, HEARTBEAT))
    data[12] ^= 1
    error = refusal(pair.server, bytes(data))
    assert (error.reason, "checksum" in str(error)) == ("tls_header", True)


@pytest.mark.parametrize("at", [6, 12, 16, 24, 32, 40])
def test_a_frame_that_hides_its_header_says_nothing_else_in_its_place(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], at: int
) -> None:
    """Nobody believes it, but the program in the kernel reads it."""
    pair = Pair(contexts, clear_headers=False).shake()
    data = bytearray(sent(pair.client, HEARTBEAT))
    data[at] ^= 1
    assert refusal(pair.server, bytes(data)).reason == "tls_header"
    hello = bytearray(Pair(contexts).client.take())
    hello[at] ^= 1
    assert refusal(fresh(contexts), bytes(hello)).reason == "tls_header"


def test_two_frames_that_change_places_are_refused(pair: Pair) -> None:
    first = sent(pair.client, HEARTBEAT)
    second = sent(pair.client, HEARTBEAT)
    assert refusal(pair.server, second + first).reason == "tls_records"


def test_a_frame_that_comes_twice_is_refused(pair: Pair) -> None:
    data = sent(pair.client, HEARTBEAT)
    assert pair.server.feed(data) == HEARTBEAT
    assert refusal(pair.server, data).reason == "tls_records"


@pytest.mark.parametrize("at", [HEADER_SIZE, HEADER_SIZE + 3, HEADER_SIZE + 20, -1])
def test_records_that_were_touched_are_refused(pair: Pair, at: int) -> None:
    data = bytearray(sent(pair.client, HEARTBEAT))
    data[at] ^= 0xFF
    assert refusal(pair.server, bytes(data)).reason == "tls_records"


def with_body(frame: bytes, body: bytes) -> bytes:
    return frame[:8] + len(body).to_bytes(4, "little") + bytes(4) + frame[16:48] + body


def test_a_sealed_frame_with_two_frames_in_it_is_refused(pair: Pair) -> None:
    one, two = (sent(pair.client, HEARTBEAT)[HEADER_SIZE:] for _ in range(2))
    error = refusal(pair.server, with_body(HEARTBEAT, one + two))
    assert (error.reason, "more" in str(error)) == ("tls_header", True)


def test_a_sealed_frame_that_ends_early_is_refused(pair: Pair) -> None:
    long = wire.encode(FrameType.HEARTBEAT, bytes(40_000), sender=7, term=3, request_id=9, count=1)
    body = sent(pair.client, long)[HEADER_SIZE:]
    first_record = body[: 5 + int.from_bytes(body[3:5], "big")]
    error = refusal(pair.server, with_body(long, first_record))
    assert (error.reason, "less" in str(error)) == ("tls_header", True)


def test_a_sealed_frame_without_anything_in_it_is_refused(pair: Pair) -> None:
    assert refusal(pair.server, with_body(HEARTBEAT, b"")).reason == "tls_header"


def test_data_in_a_frame_of_the_handshake_is_refused(pair: Pair) -> None:
    body = sent(pair.client, HEARTBEAT)[HEADER_SIZE:]
    data = wire.bare_header(FrameType.TLS_HANDSHAKE, len(body)) + body
    assert refusal(pair.server, data).reason == "tls_header"


def test_a_plain_frame_after_the_handshake_is_refused(pair: Pair) -> None:
    assert refusal(pair.server, HEARTBEAT).reason == "tls_records"


def test_a_sealed_frame_that_is_too_large_is_refused_at_its_header(pair: Pair) -> None:
    head = wire.bare_header(FrameType.HEARTBEAT, wire.MAX_SEALED_BYTES + 1)
    assert refusal(pair.server, head).reason == "length"


def test_a_record_that_is_too_large_is_refused(pair: Pair) -> None:
    body = b"\x17\x03\x03\xff\xff" + bytes(70_000)
    assert refusal(pair.server, with_body(HEARTBEAT, body)).reason == "tls_records"


def fresh(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Channel:
    return Channel(contexts[0], server_side=True)


def test_a_plain_frame_where_tls_is_spoken_is_refused(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    error = refusal(fresh(contexts), wire.encode(FrameType.HELLO, b"", sender=7))
    assert error.reason == "tls_plain"
    assert "set [tls] at both ends" in str(error)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "magic"),
        (b"\x16\x03\x01\x02\x00\x01", "magic"),
        (wire.bare_header(FrameType.TLS_HANDSHAKE, 5) + b"hello", "tls_records"),
        (wire.bare_header(FrameType.TLS_HANDSHAKE, 0), "tls_records"),
        (wire.bare_header(FrameType.TLS_HANDSHAKE, 1 << 24), "length"),
        (
            wire.bare_header(FrameType.TLS_HANDSHAKE, 9) + b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
            "tls_records",
        ),
    ],
    ids=["http", "tls without frames", "no record", "nothing", "huge", "garbage"],
)
def test_what_is_no_handshake_is_refused(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], data: bytes, reason: str
) -> None:
    assert refusal(fresh(contexts), data).reason == reason


def test_what_begins_with_no_client_hello_costs_no_tls(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Untouchable:
        def wrap_bio(self, *_: object, **__: object) -> None:
            raise AssertionError("a TLS connection was made")

    channel = fresh(contexts)
    monkeypatch.setattr(channel, "_context", Untouchable())
    assert refusal(channel, wire.bare_header(37, 8) + b"\x16\x03\x01\x00\x03\x02ab")


def test_a_handshake_without_end_is_refused(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """A ClientHello may be as long as a record of 2^24 bytes says."""
    channel = fresh(contexts)
    body = b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(4000)
    channel.feed(wire.bare_header(FrameType.TLS_HANDSHAKE, len(body)) + body)
    more = wire.bare_header(FrameType.TLS_HANDSHAKE, 4096) + bytes(4096)
    refusal(channel, more * (MAX_HANDSHAKE_BYTES // 4096))


def test_who_has_no_certificate_is_refused_and_told_so(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    without = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    without.check_hostname = False
    without.verify_mode = ssl.CERT_NONE
    server, client = fresh(contexts), Channel(without, server_side=False)
    server.feed(client.take())
    client.feed(server.take())
    assert refusal(server, client.take()).reason == "tls_no_certificate"
    error = refusal(client, server.take())
    assert error.reason == "tls_refused"
    assert "asks for a certificate" in str(error)


def test_nothing_is_sealed_before_the_handshake_is_done(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    with pytest.raises(RuntimeError, match="before the handshake"):
        fresh(contexts).seal([HEARTBEAT])


def test_whatever_a_stranger_sends_ends_in_a_frame_error(tmp_path: Path) -> None:
    credentials = Credentials(Office(tmp_path).issue(node("node-01")), Kind.NODE)

    @settings(max_examples=200, deadline=None)
    @given(bodies=st.lists(st.binary(max_size=200), min_size=1, max_size=4))
    def feed(bodies: list[bytes]) -> None:
        channel = Channel(credentials.server_context(), server_side=True)
        try:
            for hello in bodies:
                body = b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + b"\x01" + hello
                head = wire.bare_header(FrameType.TLS_HANDSHAKE, len(body))
                assert channel.feed(head + body) == b""
        except FrameError:
            return
        assert not channel.is_open

    feed()
