"""What the kernel tells beside counts: latencies, the leader's last word, what changed."""

from __future__ import annotations

import asyncio
import random
import select
import time
from collections.abc import Iterator

import pytest
import uvloop

from raft_agent import wire
from raft_agent.kernel.counters import Log2Histogram, read_events_lost, read_flow
from raft_agent.kernel.lag import LagMeter
from raft_agent.kernel.layout import Direction, EventKind
from raft_agent.kernel.libbpf import LoadedObject
from raft_agent.kernel.news import News
from raft_agent.kernel.ring import MOST_AT_ONCE, EventRing
from raft_agent.kernel.stamps import last_append
from raft_agent.wire import FrameType
from tests.kernel import harness, packets
from tests.kernel.packets import SYN, ethernet, ip4, tcp
from tests.kernel.testrun import verdict

IN, OUT = Direction.INGRESS, Direction.EGRESS
KEY = packets.key()


@pytest.fixture
def program() -> Iterator[LoadedObject]:
    loaded = harness.load()
    yield loaded
    loaded.close()


class Talk:
    """Both directions of one connection, at the host that `packets.US` is."""

    def __init__(self, program: LoadedObject) -> None:
        self._program = program
        self._seq = {IN: 1, OUT: 1}
        self._chance = random.Random(3)
        for direction in Direction:
            self._pass(direction, b"", SYN)

    def _pass(self, direction: Direction, payload: bytes, flags: int = 16) -> None:
        segment = tcp(payload, seq=self._seq[direction], flags=flags)
        packet = ethernet(ip4(segment))
        if direction == OUT:
            packet = packets.reversed_ends(packet)
        verdict(self._program, packet, direction)
        self._seq[direction] += len(payload) + (flags & SYN > 0)

    def frame(
        self,
        direction: Direction,
        kind: FrameType,
        request_id: int = 0,
        *,
        term: int = 1,
        sender: int = 5,
    ) -> None:
        body = self._chance.randbytes(33)
        self._pass(
            direction,
            wire.encode(kind, body, request_id=request_id, term=term, sender=sender),
        )


@pytest.mark.parametrize("out", Direction, ids=["asked by the peer", "asked by us"])
def test_the_time_from_a_request_to_its_response_is_measured(
    program: LoadedObject, out: Direction
) -> None:
    talk = Talk(program)
    back = Direction(1 - out)
    for request_id in range(10, 30, 2):
        talk.frame(out, FrameType.APPEND_ENTRIES, request_id)
        talk.frame(out, FrameType.HEARTBEAT, request_id + 1)
    for request_id in range(10, 30, 2):
        talk.frame(back, FrameType.APPEND_REPLY, request_id)
        talk.frame(back, FrameType.APPEND_REPLY, request_id)  # a second answer is no sample
        talk.frame(back, FrameType.HEARTBEAT_REPLY, request_id + 1)
    talk.frame(back, FrameType.APPEND_REPLY, 1000)  # of a request that never passed
    flow = read_flow(program.map("flows"), KEY)
    assert flow is not None
    asked, answered = (flow.egress, flow.ingress) if out == OUT else (flow.ingress, flow.egress)
    assert 5 <= asked.append_latency.total <= 10  # some ids share a slot
    assert 5 <= asked.heartbeat_latency.total <= 10
    assert answered.append_latency.total == answered.heartbeat_latency.total == 0


@pytest.mark.parametrize("delay_ms", [1, 20])
def test_a_latency_falls_into_its_bucket(program: LoadedObject, delay_ms: int) -> None:
    talk = Talk(program)
    before_ns = time.monotonic_ns()
    talk.frame(OUT, FrameType.APPEND_ENTRIES, 7)
    time.sleep(delay_ms / 1000)
    talk.frame(IN, FrameType.APPEND_REPLY, 7)
    after_ns = time.monotonic_ns()
    flow = read_flow(program.map("flows"), KEY)
    assert flow is not None
    (bucket,) = [place for place, count in enumerate(flow.egress.append_latency.counts) if count]
    assert Log2Histogram.bucket(delay_ms * 1_000_000) <= bucket
    assert bucket <= Log2Histogram.bucket(after_ns - before_ns)
    assert flow.egress.append_latency.quantile_ns(0.5) == 1 << (11 + bucket)


@pytest.mark.parametrize("kind", [FrameType.APPEND_ENTRIES, FrameType.HEARTBEAT])
def test_the_leaders_last_word_is_stamped(program: LoadedObject, kind: FrameType) -> None:
    flows = program.map("flows")
    assert last_append(flows, KEY) is None
    talk = Talk(program)
    assert last_append(flows, KEY) is None
    before_ns = time.monotonic_ns()
    talk.frame(IN, kind, term=4, sender=77)
    stamp = last_append(flows, KEY)
    assert stamp is not None
    assert (stamp.term, stamp.sender) == (4, 77)
    assert before_ns <= stamp.time_ns <= time.monotonic_ns()


def test_neither_other_frames_nor_ours_nor_repeated_ones_are_stamped(program: LoadedObject) -> None:
    talk = Talk(program)
    talk.frame(IN, FrameType.HEARTBEAT, term=4)
    first = last_append(program.map("flows"), KEY)
    talk.frame(IN, FrameType.REQUEST_VOTE, term=5)
    talk.frame(IN, FrameType.APPEND_REPLY, term=5)
    talk.frame(OUT, FrameType.HEARTBEAT, term=5)
    frame = wire.encode(FrameType.HEARTBEAT, bytes(33), term=4, sender=5)
    verdict(program, ethernet(ip4(tcp(frame, seq=2))), IN)  # where the first one was
    verdict(program, ethernet(ip4(tcp(b"", seq=2))), IN)
    assert last_append(program.map("flows"), KEY) == first


def test_nobody_is_heard_under_our_own_name() -> None:
    program = harness.load(local_member_id=5)
    talk = Talk(program)
    talk.frame(IN, FrameType.HEARTBEAT, sender=5)
    assert last_append(program.map("flows"), KEY) is None
    talk.frame(IN, FrameType.HEARTBEAT, sender=6)
    assert last_append(program.map("flows"), KEY) is not None
    program.close()


def test_a_new_leader_and_a_raised_term_are_events_once(program: LoadedObject) -> None:
    talk = Talk(program)
    with EventRing(program.map("events")) as events:
        talk.frame(IN, FrameType.HEARTBEAT, term=3, sender=8)
        talk.frame(IN, FrameType.HEARTBEAT, term=3, sender=8)
        talk.frame(OUT, FrameType.PRE_VOTE, term=9, sender=9)  # only asked about
        talk.frame(IN, FrameType.PRE_VOTE_REPLY, term=9, sender=8)
        talk.frame(OUT, FrameType.REQUEST_VOTE, term=4, sender=9)
        talk.frame(IN, FrameType.VOTE_REPLY, term=4, sender=8)
        talk.frame(OUT, FrameType.HEARTBEAT, term=4, sender=9)
        talk.frame(IN, FrameType.HEARTBEAT, term=3, sender=8)
        seen = events.consume()
    assert [(event.kind, event.term, event.sender, event.direction) for event in seen] == [
        (EventKind.NEW_LEADER, 3, 8, IN),
        (EventKind.TERM_RAISED, 4, 9, OUT),
        (EventKind.NEW_LEADER, 4, 9, OUT),
    ]
    assert {event.flow for event in seen} == {KEY}


def test_the_ring_wakes_the_loop_that_watches_it(program: LoadedObject) -> None:
    async def first_event() -> EventKind:
        loop = asyncio.get_running_loop()
        with EventRing(program.map("events")) as events:
            readable = asyncio.Event()
            loop.add_reader(events.fileno(), readable.set)
            Talk(program).frame(IN, FrameType.HEARTBEAT)
            async with asyncio.timeout(20):
                await readable.wait()
            loop.remove_reader(events.fileno())
            return events.consume()[0].kind

    assert asyncio.run(first_event()) == EventKind.NEW_LEADER


def test_events_that_found_the_ring_full_are_counted(program: LoadedObject) -> None:
    talk = Talk(program)
    for term in range(1, 1001):
        talk.frame(IN, FrameType.REQUEST_VOTE, term=term)
    with EventRing(program.map("events")) as events:
        kept = []
        while some := events.consume():
            kept += some
    lost = read_events_lost(program.map("stats"))
    assert {event.kind for event in kept} == {EventKind.TERM_RAISED}
    assert lost.pop(EventKind.TERM_RAISED) == 1000 - len(kept) > 0
    assert not any(lost.values())


def test_the_loops_lag_is_the_time_from_a_frames_arrival_to_its_handling(
    program: LoadedObject,
) -> None:
    talk = Talk(program)
    meter = LagMeter()
    talk.frame(IN, FrameType.HEARTBEAT, 5)
    time.sleep(0.005)
    meter.handled(5)
    meter.handled(6)  # not seen by the kernel
    talk.frame(IN, FrameType.HEARTBEAT, 7)  # not handled yet
    meter.take_in(program.map("flows"), KEY)
    meter.take_in(program.map("flows"), KEY)  # counts nothing twice
    assert meter.lag.total == 1
    quantile_ns = meter.lag.quantile_ns(1)
    assert quantile_ns is not None
    assert quantile_ns > 5_000_000


def test_a_histogram_adds_up_and_knows_its_quantiles() -> None:
    one = Log2Histogram((90, 0, 9, 1) + (0,) * 28)
    assert one.quantile_ns(0.5) == 2048
    assert one.quantile_ns(0.99) == 8192
    assert one.quantile_ns(1) == 16_384
    assert (one + one).counts[:4] == (180, 0, 18, 2)
    assert Log2Histogram().quantile_ns(0.5) is None
    assert [Log2Histogram.bucket(ns) for ns in (0, 2047, 2048, 4095, 4096, 1 << 62)] == [
        *(0, 0, 1, 1, 2, 31),
    ]


def _storm(program: LoadedObject) -> int:
    """More events than are read at once; how many more."""
    talk = Talk(program)
    for term in range(1, MOST_AT_ONCE + 11):
        talk.frame(IN, FrameType.REQUEST_VOTE, term=term)
    return 10


def _is_readable(events: EventRing) -> bool:
    return bool(select.select([events.fileno()], [], [], 0)[0])


def test_a_storm_of_events_is_read_in_portions(program: LoadedObject) -> None:
    with EventRing(program.map("events")) as events:
        more = _storm(program)
        assert len(events.consume()) == MOST_AT_ONCE
        assert _is_readable(events)
        assert len(events.consume()) == more
        assert not _is_readable(events)


def test_after_a_full_portion_of_events_the_loop_turns_to_other_things(
    program: LoadedObject,
) -> None:
    async def run() -> None:
        told: list[str] = []
        with EventRing(program.map("events")) as events:
            news = News(asyncio.get_running_loop(), events, lambda kind, **_: told.append(kind))
            _storm(program)
            while not told:
                await asyncio.sleep(0)
            for _ in range(100):
                await asyncio.sleep(0)
            assert _is_readable(events)  # a pause
            async with asyncio.timeout(20):
                while _is_readable(events):
                    await asyncio.sleep(0.01)  # that ends
            news.close()

    uvloop.run(run())
