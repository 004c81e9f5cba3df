"""The same events at the same times give the same effects, byte for byte."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from raft_agent.consensus.state import RandomBits
from raft_agent.consensus.types import (
    Effect,
    PeerLost,
    Read,
    StorageFailed,
    TransferLeadership,
)
from tests.unit.consensus.first_start import fresh_cluster
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import MAX_TIMEOUT_US, Server

ROOT = Path(__file__).parents[3]


def eventful_life() -> Cluster:
    """A first start, writes, reads, a partition, a transfer, a crash, a failed disk."""
    cluster = fresh_cluster(5)
    cluster.connect_all()
    cluster.run_for(4 * MAX_TIMEOUT_US)
    for number in range(30):
        (leader,) = cluster.leaders[:1]
        cluster.propose(leader, b"%d" % number, tag=number)
        cluster.step(1 + number % 5, Read(number))
        cluster.run_for(10_000)
    cluster.part([1, 2], [3, 4, 5])
    cluster.run_for(6 * MAX_TIMEOUT_US)
    cluster.heal()
    cluster.run_for(6 * MAX_TIMEOUT_US)
    cluster.step(cluster.leaders[0], TransferLeadership(1, 0))
    cluster.run_for(4 * MAX_TIMEOUT_US)
    cluster.step(cluster.leaders[0], PeerLost(2))
    cluster.restart(cluster.leaders[0])
    cluster.run_for(6 * MAX_TIMEOUT_US)
    cluster.step(cluster.leaders[0], StorageFailed("EIO"))
    cluster.run_for(6 * MAX_TIMEOUT_US)
    return cluster


def written_down(cluster: Cluster) -> bytes:
    """All effects since each server's last start; types too, which msgspec leaves out."""
    encode = msgspec.msgpack.Encoder().encode
    return b"\n".join(
        b" ".join((*_types(effect), encode(effect)))
        for server in cluster.servers.values()
        for effect in server.history
    )


def _types(effect: Effect) -> list[bytes]:
    values = [effect, *msgspec.structs.asdict(effect).values()]
    return [type(value).__name__.encode() for value in values]


def test_the_same_events_give_byte_identical_effects() -> None:
    first, second = written_down(eventful_life()), written_down(eventful_life())
    assert len(first) > 100_000
    assert first == second


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_effects_do_not_depend_on_the_interpreters_hash_seed(hash_seed: str) -> None:
    """Sets and dicts of names iterate differently in each process."""
    program = (
        "from tests.unit.consensus.test_determinism import *;"
        "print(hashlib.sha256(written_down(eventful_life())).hexdigest())"
    )
    path = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hashlib.sha256(written_down(eventful_life())).hexdigest()


def test_another_seed_gives_other_timeouts_ids_and_tokens() -> None:
    one, other = Server(1), Server(1)
    other.start()
    assert one.node.next_deadline_us != other.node.next_deadline_us
    assert one.node.state.next_request_id() != other.node.state.next_request_id()


def test_random_bits_are_splitmix64() -> None:
    """The generator's published first outputs for the seed 1234567."""
    bits = RandomBits(1234567)
    assert [bits.u64() for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_numbers_between_two_bounds_reach_both() -> None:
    bits = RandomBits(1)
    assert {bits.between(3, 5) for _ in range(100)} == {3, 4, 5}


def test_time_that_goes_back_is_taken_for_standing_still() -> None:
    server = Server(1, now_us=1_000_000)
    due = server.node.next_deadline_us
    server.now_us = 5
    server.step(PeerLost(2))
    assert server.node.state.now_us == 1_000_000
    assert server.node.next_deadline_us == due
