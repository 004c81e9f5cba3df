"""The program on packets of every kind: what it counts, and that it lets all of them pass."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from raft_agent import wire
from raft_agent.kernel import ports, ring
from raft_agent.kernel.counters import Counters, read_flow, read_stats
from raft_agent.kernel.layout import Direction, EventKind, LostReason, Stat, Sync
from raft_agent.kernel.libbpf import LoadedObject
from raft_agent.wire import FrameType
from tests.kernel import frames, harness, packets
from tests.kernel.packets import ACK, FIN, RST, SYN, ethernet, ip4, tcp
from tests.kernel.testrun import GO_ON, shortest, verdict

WRAPPINGS = packets.wrappings()
BODY = random.Random(1).randbytes(60)
FRAME = wire.encode(FrameType.APPEND_ENTRIES, BODY, sender=5, term=3, request_id=9, count=4)
IN, OUT = Direction.INGRESS, Direction.EGRESS


@pytest.fixture
def program() -> Iterator[LoadedObject]:
    loaded = harness.load()
    yield loaded
    loaded.close()


class Feed:
    """Segments of one TCP stream from the peer, one after the other."""

    def __init__(
        self,
        program: LoadedObject,
        wrap: Callable[[bytes], bytes] = lambda segment: ethernet(ip4(segment)),
        *,
        ip6: bool = False,
        start: int = 1000,
    ) -> None:
        self._program = program
        self._wrap = wrap
        self._key = packets.key(ip6=ip6)
        self.seq = start
        self.segment(flags=SYN)

    def segment(self, payload: bytes = b"", *, seq: int | None = None, flags: int = ACK) -> None:
        """One more; `seq` when it is not the next one's turn."""
        at = self.seq if seq is None else seq
        packet = self._wrap(tcp(payload, seq=at, flags=flags))
        assert verdict(self._program, packet, IN) == GO_ON
        if seq is None:
            self.seq += len(payload) + (flags & SYN > 0)

    @property
    def counters(self) -> Counters:
        flow = read_flow(self._program.map("flows"), self._key)
        assert flow is not None
        return flow.ingress


def events(program: LoadedObject) -> list[ring.Event]:
    with ring.EventRing(program.map("events")) as reader:
        return reader.consume()


@pytest.mark.parametrize("kind", WRAPPINGS)
def test_a_frame_is_found_behind_every_kind_of_header(program: LoadedObject, kind: str) -> None:
    is_ip6, wrap = WRAPPINGS[kind]
    feed = Feed(program, wrap, ip6=is_ip6)
    feed.segment(FRAME)
    counters = feed.counters
    assert (counters.packets, counters.syn) == (2, 1)
    assert counters.bytes == len(wrap(tcp())) + len(wrap(tcp(FRAME)))
    assert counters.payload_bytes == counters.stream_bytes == len(FRAME)
    assert counters.types[FrameType.APPEND_ENTRIES].frames == 1
    assert counters.types[FrameType.APPEND_ENTRIES].bytes == len(FRAME)
    assert (counters.entries, counters.term, counters.sender) == (4, 3, 5)
    assert counters.fragments == (2 if "first fragment" in kind or "four" in kind else 0)


@pytest.mark.parametrize("kind", WRAPPINGS)
def test_a_packet_cut_off_anywhere_passes_and_is_no_frame_without_its_whole_header(
    program: LoadedObject, kind: str
) -> None:
    is_ip6, wrap = WRAPPINGS[kind]
    start = len(wrap(tcp(FRAME)).partition(FRAME)[0])
    whole = wrap(tcp(FRAME, seq=1001))
    for length in range(shortest(whole), start + len(FRAME)):
        feed = Feed(program, wrap, ip6=is_ip6)
        before = feed.counters
        for direction in Direction:
            assert verdict(program, whole[:length], direction) == GO_ON
        after = feed.counters
        seen = max(length - start, 0)
        assert after.payload_bytes - before.payload_bytes == seen
        assert after.frames - before.frames == (seen >= wire.HEADER_SIZE)
        program.map("flows").delete(packets.key(ip6=is_ip6).encode())


@pytest.mark.parametrize("kind", packets.foreign(b""))
@pytest.mark.parametrize("direction", Direction)
def test_a_foreign_packet_passes_uncounted(
    program: LoadedObject, kind: str, direction: Direction
) -> None:
    assert verdict(program, packets.foreign(FRAME)[kind], direction) == GO_ON
    assert list(harness.read_flows(program.map("flows"))) == []
    stats = read_stats(program.map("stats"))
    assert stats.pop(Stat.LATER_FRAGMENTS) == ("later fragment" in kind)
    assert not any(stats.values())


def test_a_packet_on_our_port_without_its_whole_tcp_header_is_counted_as_unreadable(
    program: LoadedObject,
) -> None:
    packet = ethernet(ip4(tcp()))
    for length in range(len(packet) - 16, len(packet)):
        assert verdict(program, packet[:length], IN) == GO_ON
    assert verdict(program, ethernet(ip4(tcp()[:12] + b"\x40" + tcp()[13:])), IN) == GO_ON
    assert read_stats(program.map("stats"))[Stat.UNREADABLE] == 17
    assert list(harness.read_flows(program.map("flows"))) == []


def test_flags_are_counted(program: LoadedObject) -> None:
    feed = Feed(program)
    for flags in (ACK, ACK | FIN, ACK | FIN, RST):
        feed.segment(flags=flags)
    counters = feed.counters
    assert (counters.syn, counters.fin, counters.rst, counters.packets) == (1, 2, 1, 5)


def test_a_port_that_a_peer_listens_on_is_ours_too(program: LoadedObject) -> None:
    packet = ethernet(ip4(tcp(source=7001, target=50_000)))
    verdict(program, packet, IN)
    verdict(program, packet, OUT)
    assert list(harness.read_flows(program.map("flows"))) == []
    ports.set_peer_ports(program.map("peer_ports"), [7001])
    verdict(program, packet, IN)
    (flow,) = harness.read_flows(program.map("flows"))
    assert (flow.key.remote_port, flow.ingress.packets) == (7001, 1)
    # What leaves from 7001 here belongs to another agent on this host.
    verdict(program, packet, OUT)
    assert [flow.key.remote_port for flow in harness.read_flows(program.map("flows"))] == [7001]


# --- the TCP stream -------------------------------------------------------------------------------


def test_a_retransmission_is_counted_and_its_frames_are_not(program: LoadedObject) -> None:
    feed = Feed(program)
    feed.segment(FRAME)
    feed.segment(FRAME, seq=1001)
    counters = feed.counters
    assert (counters.frames, counters.retransmissions) == (1, 1)
    assert (counters.retransmitted_bytes, counters.stream_bytes) == (len(FRAME), len(FRAME))


def test_of_a_retransmission_with_more_only_the_new_part_counts(program: LoadedObject) -> None:
    feed = Feed(program)
    feed.segment(FRAME + FRAME[:20])
    feed.segment(FRAME + FRAME, seq=1001)
    counters = feed.counters
    assert (counters.frames, counters.retransmissions) == (2, 1)
    assert counters.sync == Sync.YES


def test_sequence_numbers_wrap(program: LoadedObject) -> None:
    feed = Feed(program, start=(1 << 32) - 150)
    for _ in range(4):
        feed.segment(FRAME)
    assert (feed.counters.frames, feed.counters.sync_lost) == (4, 0)


def test_a_gap_within_a_body_does_not_matter(program: LoadedObject) -> None:
    feed = Feed(program)
    feed.segment(FRAME[:50])
    feed.segment(FRAME[60:] + FRAME, seq=1001 + 60)
    counters = feed.counters
    assert (counters.frames, counters.gaps, counters.gap_bytes) == (2, 1, 10)
    assert (counters.sync, counters.sync_lost) == (Sync.YES, 0)


def test_after_a_gap_over_a_header_it_says_what_it_did_not_see(program: LoadedObject) -> None:
    feed = Feed(program)
    feed.segment(FRAME)
    feed.seq += len(FRAME)  # never seen
    feed.segment(BODY)  # no header at its start
    assert (feed.counters.sync, feed.counters.sync_lost) == (Sync.LOST, 1)
    feed.segment(FRAME)
    counters = feed.counters
    assert (counters.sync, counters.sync_regained) == (Sync.YES, 1)
    assert counters.unparsed_bytes == len(FRAME) + len(BODY)
    assert counters.stream_bytes == counters.unparsed_bytes + harness.frame_bytes(counters)
    (lost,) = [event for event in events(program) if event.kind == EventKind.LOST_SYNC]
    assert (lost.detail, lost.flow, lost.sender) == (LostReason.GAP, packets.key(), 5)


def test_what_fills_the_gap_later_is_no_news(program: LoadedObject) -> None:
    feed = Feed(program)
    feed.segment(FRAME, seq=1001 + len(FRAME))
    feed.segment(FRAME, seq=1001)
    feed.segment(FRAME, seq=1001 + 2 * len(FRAME))
    counters = feed.counters
    assert (counters.frames, counters.sync_lost, counters.sync_regained) == (2, 1, 1)
    assert counters.unparsed_bytes == len(FRAME)


def test_a_connection_older_than_the_program_is_found_into(program: LoadedObject) -> None:
    verdict(program, ethernet(ip4(tcp(BODY, seq=77))), IN)
    verdict(program, ethernet(ip4(tcp(FRAME, seq=77 + len(BODY)))), IN)
    flow = read_flow(program.map("flows"), packets.key())
    assert flow is not None
    assert (flow.ingress.frames, flow.ingress.unparsed_bytes) == (1, len(BODY))
    assert (flow.ingress.sync_lost, flow.ingress.sync_regained) == (0, 1)


def test_a_frame_of_another_sender_does_not_bring_sync_back(program: LoadedObject) -> None:
    feed = Feed(program)
    feed.segment(FRAME + b"no header" * 10)
    assert feed.counters.sync == Sync.LOST
    feed.segment(wire.encode(FrameType.HEARTBEAT, bytes(24), sender=6, term=3))
    assert feed.counters.sync == Sync.LOST
    feed.segment(wire.encode(FrameType.HEARTBEAT, bytes(24), sender=5, term=3))
    assert feed.counters.sync == Sync.YES


def test_a_new_connection_from_the_same_port_starts_anew(program: LoadedObject) -> None:
    Feed(program).segment(FRAME[:20])
    feed = Feed(program, start=5_000_000)
    feed.segment(FRAME)
    feed.segment(flags=SYN, seq=5_000_000)  # the same SYN again
    feed.segment(FRAME)
    counters = feed.counters
    assert (counters.syn, counters.frames, counters.sync_lost) == (3, 2, 0)


def test_data_on_a_syn_is_part_of_the_stream(program: LoadedObject) -> None:
    verdict(program, ethernet(ip4(tcp(FRAME, seq=1, flags=SYN))), IN)
    flow = read_flow(program.map("flows"), packets.key())
    assert flow is not None
    assert (flow.ingress.frames, flow.ingress.sync) == (1, Sync.YES)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"HTTP"),
        (4, b"\x02"),
        (5, b"\x00"),
        (5, b"\x28"),
        (8, b"\x01\x00\x01\x02"),  # one more than MAX_SEALED_BYTES
        (44, b"\x01"),
    ],
    ids=["magic", "version", "type 0", "type 40", "length", "reserved"],
)
def test_what_is_no_header_is_reported_and_lost(
    program: LoadedObject, offset: int, value: bytes
) -> None:
    wrong = FRAME[:offset] + value + FRAME[offset + len(value) :]
    feed = Feed(program)
    feed.segment(FRAME)
    feed.segment(wrong)
    counters = feed.counters
    assert (counters.frames, counters.bad_headers, counters.sync) == (1, 1, Sync.LOST)
    (bad,) = [event for event in events(program) if event.kind == EventKind.BAD_HEADER]
    assert bad.detail == int.from_bytes(wrong[:4], "little")


@pytest.mark.parametrize("cut", range(1, 48))
def test_a_header_may_be_cut_anywhere(program: LoadedObject, cut: int) -> None:
    feed = Feed(program)
    feed.segment(FRAME + FRAME[:cut])
    assert feed.counters.frames == 1
    feed.segment(FRAME[cut:] + FRAME)
    assert (feed.counters.frames, feed.counters.sync) == (3, Sync.YES)


def test_a_gap_within_a_header_loses_sync_where_the_header_began(program: LoadedObject) -> None:
    feed = Feed(program)
    feed.segment(FRAME + FRAME[:20])
    feed.seq += 5
    feed.segment(FRAME[25:])
    feed.segment(FRAME)
    counters = feed.counters
    assert (counters.frames, counters.unparsed_bytes) == (2, len(FRAME))


def test_a_packet_far_out_of_the_stream_is_not_followed(program: LoadedObject) -> None:
    feed = Feed(program)
    feed.segment(FRAME)
    feed.segment(FRAME, seq=1001 + (1 << 30))
    feed.segment(FRAME, seq=1001 - (1 << 30))
    feed.segment(FRAME)
    counters = feed.counters
    assert (counters.frames, counters.strays, counters.sync) == (2, 2, Sync.YES)


def test_a_stream_that_went_far_on_unseen_is_found_into(program: LoadedObject) -> None:
    feed = Feed(program)
    feed.segment(FRAME)
    feed.seq += 1 << 30
    for _ in range(3):
        feed.segment(FRAME)
    counters = feed.counters
    assert (counters.frames, counters.strays, counters.sync_lost) == (3, 2, 1)
    assert counters.unparsed_bytes == (1 << 30) + len(FRAME)


# --- what passes anyway ---------------------------------------------------------------------------


def test_a_hundred_thousand_random_packets_all_pass(program: LoadedObject) -> None:
    chance = random.Random(20)
    wraps = [wrap for _, wrap in WRAPPINGS.values()]
    stream = frames.appends([chance.randrange(200) for _ in range(200)]).data
    for number in range(100_000):
        if number % 4 == 0:
            packet = chance.randbytes(chance.randrange(15, 200))
        else:
            at = chance.randrange(len(stream))
            segment = tcp(
                stream[at : at + chance.randrange(600)],
                seq=at if number % 3 else chance.randrange(1 << 32),
                flags=chance.randrange(64),
                options=bytes(4 * chance.randrange(11)),
            )
            packet = bytearray(chance.choice(wraps)(segment))
            for _ in range(chance.choice((0, 0, 1, 4))):
                packet[chance.randrange(12, len(packet))] = chance.randrange(256)
            packet = bytes(packet[: chance.randrange(15, len(packet) + 1)])
        packet += bytes(max(shortest(packet) - len(packet), 0))
        assert verdict(program, packet, Direction(number % 2)) == GO_ON, packet.hex()
    feed = Feed(program)
    before = feed.counters
    feed.segment(FRAME)
    assert before.packets > 5000
    assert feed.counters.frames == before.frames + 1
