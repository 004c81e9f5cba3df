"""The kernel part without a kernel: what it says of what is missing, and whom it believes."""

from __future__ import annotations

import asyncio
import time

from raft_agent.api import protocol
from raft_agent.config import Ebpf
from raft_agent.kernel import part
from raft_agent.kernel.libbpf import KernelUnavailable
from raft_agent.kernel.part import KernelPart
from raft_agent.kernel.sight import Connection, Sight
from raft_agent.kernel.stamps import Stamp

PORT = 5555
LEADER, OTHER = 2, 3
MS = 1_000_000


def inbound(peer: int) -> Connection:
    return Connection(peer, ("10.0.0.1", PORT), (f"10.0.0.{peer}", 40_000 + peer), 0)


class Surroundings:
    def __init__(self, *connections: Connection) -> None:
        self.found = list(connections)
        self.told: list[tuple[str, str]] = []

    def connections(self) -> list[Connection]:
        return self.found

    def peer_addresses(self) -> list[tuple[str, int]]:
        return []

    def peer_name(self, peer: int) -> str:
        return f"node-{peer:02}"

    def tell(self, kind: str, **facts: int | str) -> None:
        self.told.append((kind, str(facts.get("reason", ""))))


class FakeSight(Sight):
    """Knows stamps by peer, and no kernel."""

    def __init__(self, stamps: dict[int, Stamp]) -> None:
        self.stamps = stamps

    def last_append(self, connection: Connection) -> Stamp | None:
        return self.stamps.get(connection.peer)

    def close(self) -> None: ...


def test_what_is_missing_is_said_once_and_the_part_ends_in_peace() -> None:
    around = Surroundings()

    def load() -> Sight:
        raise KernelUnavailable("capability", "needs root")

    async def run() -> None:
        kernel = KernelPart(Ebpf(enabled=True), PORT, around, around.tell, load)
        kernel.start()
        while not around.told:
            await asyncio.sleep(0)
        assert (kernel.state, kernel.reason, kernel.interfaces) == ("degraded", "needs root", [])
        assert kernel.leader_stamp(1) is None
        await kernel.stop()

    asyncio.run(run())
    assert around.told == [("kernel_degraded", "needs root")]


def test_until_it_is_attached_it_says_that_it_starts() -> None:
    async def run() -> None:
        around = Surroundings()
        kernel = KernelPart(Ebpf(enabled=True), PORT, around, around.tell, lambda: FakeSight({}))
        assert (kernel.state, kernel.reason) == ("degraded", part.STARTING)
        assert part.STARTING == protocol.EBPF_STARTING  # what raftctl dev up waits for the end of
        await kernel.stop()

    asyncio.run(run())


def _stamp(stamps: dict[int, Stamp], *connections: Connection, term: int = 5) -> object:
    async def run() -> object:
        around = Surroundings(*connections)
        kernel = KernelPart(Ebpf(enabled=True), PORT, around, around.tell, lambda: FakeSight({}))
        kernel.sight = FakeSight(stamps)
        found = kernel.leader_stamp(term)
        return None if found is None else (found.sender, found.term, found.silence_us // 1000)

    return asyncio.run(run())


def _ago(milliseconds: int, sender: int, term: int = 5) -> Stamp:
    return Stamp(time.monotonic_ns() - milliseconds * MS, term, sender)


def test_the_stamp_tells_how_long_ago_the_leader_was_heard() -> None:
    found = _stamp({LEADER: _ago(40, LEADER)}, inbound(LEADER), inbound(OTHER))
    assert isinstance(found, tuple)
    assert found[:2] == (LEADER, 5)
    assert found[2] >= 40


def test_of_two_leaders_the_one_of_the_later_term_counts() -> None:
    stamps = {LEADER: _ago(1, LEADER, 5), OTHER: _ago(90, OTHER, 6)}
    found = _stamp(stamps, inbound(LEADER), inbound(OTHER))
    assert isinstance(found, tuple)
    assert found[:2] == (OTHER, 6)


def test_a_stamp_of_an_earlier_term_is_none() -> None:
    assert _stamp({LEADER: _ago(1, LEADER, 4)}, inbound(LEADER)) is None


def test_a_header_that_names_another_sender_than_the_handshake_is_not_believed() -> None:
    assert _stamp({LEADER: _ago(1, OTHER)}, inbound(LEADER)) is None


def test_on_a_connection_that_this_node_dialled_nobody_leads() -> None:
    dialled = Connection(LEADER, ("10.0.0.1", 40_000), ("10.0.0.2", PORT), 0)
    assert _stamp({LEADER: _ago(1, LEADER)}, dialled) is None


def test_without_any_stamp_there_is_none() -> None:
    assert _stamp({}, inbound(LEADER)) is None
    assert _stamp({LEADER: _ago(1, LEADER)}) is None
