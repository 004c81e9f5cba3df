from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest

from raft_agent import wire
from raft_agent.api import protocol
from raftctl.bench_pace import Pacer
from raftctl.bench_requests import Plan, Requests, key_name, smallest_key_size
from raftctl.bench_stats import Latencies, Tally

PLAN = Plan(
    op="put",
    clients=1,
    pipeline=3,
    key_size=16,
    value_size=100,
    keys=20,
    duration_s=1,
    warmup_s=0,
    timeout_s=5,
    forward=False,
    consistency="linearizable",
)


def decoded(frame: bytes) -> list[protocol.Request]:
    types = frozenset({int(wire.FrameType.CLIENT_REQUEST)})
    (one,) = wire.FrameReader(types, checksum_optional=True).feed(frame)
    requests: list[protocol.Request] = protocol.REQUESTS_DECODER.decode(one.body)
    assert one.count == len(requests)
    return requests


def test_a_single_frame_is_a_request_of_slot_one() -> None:
    (request,) = decoded(Requests(PLAN, seed=1).next_single())
    assert isinstance(request, protocol.Put)
    assert (request.id, len(request.key), len(request.value)) == (1, 16, 100)


@pytest.mark.parametrize("count", [1, 15, 16, 300])
def test_a_frame_holds_one_request_for_each_slot(count: int) -> None:
    requests = Requests(replace(PLAN, pipeline=count), seed=1)
    (frame,) = requests.frames(range(1, count + 1))
    assert [request.id for request in decoded(frame)] == list(range(1, count + 1))


def test_the_operations_carry_what_was_asked_for() -> None:
    (send,) = decoded(Requests(replace(PLAN, op="send", forward=True), 1).next_single())
    assert isinstance(send, protocol.Send)
    assert send.forward
    assert len(send.text) == 100
    (get,) = decoded(Requests(replace(PLAN, op="get", consistency="stale"), 1).next_single())
    assert isinstance(get, protocol.Get)
    assert get.consistency is protocol.Consistency.STALE


class Slots:
    """A client that notes in which slot it was to send, and when that was due."""

    def __init__(self) -> None:
        self.is_gone = False
        self.sent: list[tuple[int, float]] = []

    def send(self, slots: list[tuple[int, float]]) -> None:
        self.sent += slots


def test_what_is_due_while_no_slot_is_free_is_sent_later_and_counts_from_when_it_was_due() -> None:
    async def check() -> None:
        now_s = 0.0
        pacer, client = Pacer(4, lambda: now_s), Slots()
        pacer.are_free(client, [1, 2])
        pacer.begin()
        assert client.sent == [(1, 0.0)]
        now_s = 1.0
        pacer.are_free(client, [1])
        assert client.sent == [(1, 0.0), (2, 0.25), (1, 0.5)]
        now_s = 1.5
        assert pacer.end() == 3  # due at 0.75, 1.0 and 1.25

    asyncio.run(check())


def test_a_client_whose_connection_has_ended_is_sent_nothing() -> None:
    async def check() -> None:
        now_s = 0.0
        pacer, gone, other = Pacer(4, lambda: now_s), Slots(), Slots()
        gone.is_gone = True
        pacer.are_free(gone, [1])
        pacer.are_free(other, [1])
        pacer.begin()
        assert (gone.sent, other.sent) == ([], [(1, 0.0)])
        pacer.end()

    asyncio.run(check())


def test_all_keys_are_used_in_equal_parts() -> None:
    requests = Requests(PLAN, seed=3)
    frames = [requests.next_single() for _ in range(2 * PLAN.keys)]
    keys = [request.key for frame in frames for request in decoded(frame)]  # type: ignore[union-attr]
    assert sorted(keys) == sorted(2 * [key_name(n, 16) for n in range(PLAN.keys)])


def test_large_values_are_spread_over_frames_that_the_agent_takes() -> None:
    plan = replace(PLAN, value_size=1 << 20, pipeline=40, keys=2)
    frames = list(Requests(plan, seed=1).frames(range(1, 41)))
    assert all(len(frame) <= wire.MAX_BODY_BYTES for frame in frames)
    ids = [request.id for frame in frames for request in decoded(frame)]
    assert ids == list(range(1, 41))


def test_a_key_has_exactly_the_size_asked_for() -> None:
    assert len(key_name(7, 16)) == 16
    assert smallest_key_size(10_000) == len(key_name(9_999, smallest_key_size(10_000)))


def test_percentiles_are_the_samples_at_their_ranks() -> None:
    latencies = Latencies()
    for micros in range(1, 1001):
        latencies.record(micros / 1e6 + 1e-9)
    p50, p99, worst = latencies.percentiles_ms((0.5, 0.99, 1.0))
    assert p50 == pytest.approx(0.5, abs=0.002)
    assert p99 == pytest.approx(0.99, abs=0.002)
    assert worst == pytest.approx(1.0, abs=0.002)
    assert latencies.mean_ms() == pytest.approx(0.5005, abs=0.002)


@pytest.mark.parametrize("seconds", [0.0, 1e-6, 0.0655, 0.0656, 0.5, 3.0, 60.0, 1e6])
def test_every_latency_lands_in_a_bucket_close_to_it(seconds: float) -> None:
    latencies = Latencies()
    latencies.record(seconds)
    ((middle_ms, count),) = latencies.buckets()
    assert count == 1
    assert middle_ms == pytest.approx(min(seconds, 268.4) * 1000, rel=0.016, abs=0.001)


def test_without_samples_there_are_no_percentiles() -> None:
    assert Latencies().percentiles_ms((0.5, 1.0)) == [None, None]
    assert Latencies().mean_ms() is None


def test_a_tally_survives_the_way_between_processes_and_adds_up() -> None:
    tallies = []
    for number in range(2):
        tally = Tally(errors={"busy": number + 1}, unknown=number, window_s=1.0 + number, cpu_s=0.5)
        for seconds in itertools.repeat(0.001, 10):
            tally.latencies.record(seconds)
        tally.latencies.record(1.0)
        tallies.append(Tally.decode(tally.encode()))
    total = Tally()
    for tally in tallies:
        total.merge(tally)
    assert total.latencies.count == 22
    assert (total.errors, total.unknown, total.window_s, total.cpu_s) == ({"busy": 3}, 1, 2.0, 1.0)
