"""A small cluster of real cores in which the test decides everything that happens.

Servers on a network whose packets the test delivers, drops, repeats or reorders, and one clock that
the test owns. Nothing here is random. After every step the invariants of each core are checked,
that a term has one leader, and that all apply the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import (
    Apply,
    ChangeMembership,
    Configuration,
    Effect,
    Event,
    Member,
    MembershipChange,
    Message,
    PeerConnected,
    Propose,
    Received,
    Role,
    Settings,
    TimerExpired,
    Vote,
)
from tests.unit.consensus.server import (
    MAX_TIMEOUT_US,
    MIN_TIMEOUT_US,
    SETTINGS,
    Server,
    of,
)


def member(member_id: int) -> Member:
    """Who a server with this id is, unless the test says otherwise."""
    return Member(member_id, f"n{member_id}", f"n{member_id}:5555")


class Packet(NamedTuple):
    sender: int
    to: int
    message: Message


class Cluster:
    """Servers with the ids 1 … size. `cut` holds (from, to) pairs whose packets are lost; servers
    in `down` get nothing; for those in `paused` no timer fires and packets wait on the wire. What
    goes to and from those in `delay_us` takes so long, while `run_for` lets time pass.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        logs: dict[int, list[Batch]] | None = None,
        votes: dict[int, Vote] | None = None,
        settings: Settings = SETTINGS,
        now_us: int = 0,
    ) -> None:
        names = tuple(f"n{i}" for i in range(1, size + 1))
        self.now_us = now_us
        self.servers = {
            i: Server(
                i,
                size=size,
                log=(logs or {}).get(i),
                vote=(votes or {}).get(i),
                settings=settings,
                now_us=now_us,
                peer_names=names,
            )
            for i in range(1, size + 1)
        }
        self.wire: list[Packet] = []
        self.cut: set[tuple[int, int]] = set()
        self.down: set[int] = set()
        self.paused: set[int] = set()
        self.delay_us: dict[int, int] = {}
        self._late: list[tuple[int, Packet]] = []
        self._leader_of_term: dict[int, int] = {}
        self._applied_at: dict[int, bytes] = {}

    def __getitem__(self, member_id: int) -> Server:
        return self.servers[member_id]

    def node(self, member_id: int) -> Node:
        return self.servers[member_id].node

    @property
    def leaders(self) -> list[int]:
        """Who takes itself for one and is not down."""
        up = [i for i in self.servers if i not in self.down]
        return [i for i in up if self.servers[i].node.role is Role.LEADER]

    def add(self, member_id: int, *, settings: Settings = SETTINGS) -> Server:
        """A server of no cluster yet comes up and is connected to everybody."""
        server = Server(member_id, log=[], settings=settings, now_us=self.now_us)
        self.servers[member_id] = server
        for other in self.servers:
            if other != member_id and other not in self.down:
                self.connect(member_id, other)
        return server

    def change(
        self,
        member_id: int,
        change: MembershipChange,
        *,
        tag: int = 1,
        expected_index: int = 0,
        force: bool = False,
    ) -> list[Effect]:
        return self.step(member_id, ChangeMembership(tag, change, expected_index, force))

    # --- steps

    def step(self, member_id: int, event: Event) -> list[Effect]:
        return self.run(member_id, lambda server: server.step(event))

    def run(self, member_id: int, act: Callable[[Server], list[Effect]]) -> list[Effect]:
        """Let the test act on one server, then put what it sends on the wire."""
        server = self.servers[member_id]
        server.now_us = self.now_us
        effects = act(server)
        for send in server.outbox:
            if (member_id, send.to) not in self.cut:
                self._leave(Packet(member_id, send.to, send.message))
        server.outbox = []
        self._check(server, effects)
        return effects

    def _leave(self, packet: Packet) -> None:
        delay_us = max(self.delay_us.get(i, 0) for i in (packet.sender, packet.to))
        if delay_us:
            self._late.append((self.now_us + delay_us, packet))
        else:
            self.wire.append(packet)

    def _check(self, server: Server, effects: list[Effect]) -> None:
        node = server.node
        if node.role is Role.LEADER:
            leader = self._leader_of_term.setdefault(node.current_term, server.id)
            assert leader == server.id, f"term {node.current_term} has two leaders"
        for batch in (batch for apply in of(Apply, effects) for batch in apply.batches):
            known = self._applied_at.setdefault(batch.first_index, batch.record)
            assert known == batch.record, f"index {batch.first_index} was applied differently"

    # --- the network

    def deliver(self, match: Callable[[Packet], bool] | None = None) -> list[Packet]:
        """Deliver what is on the wire now (and matches); what that causes stays on the wire."""
        ready = self._take(lambda p: p.to not in self.paused and (not match or match(p)))
        for packet in ready:
            self._arrive(packet)
        return ready

    def drop(self, match: Callable[[Packet], bool] | None = None) -> list[Packet]:
        return self._take(match or (lambda _: True))

    def _take(self, match: Callable[[Packet], bool]) -> list[Packet]:
        taken, left = [], []
        for packet in self.wire:
            (taken if match(packet) else left).append(packet)
        self.wire = left
        return taken

    def settle(self, match: Callable[[Packet], bool] | None = None) -> None:
        """Deliver until nothing (that matches) moves any more."""
        for _ in range(1000):
            if not self.deliver(match):
                return
        raise AssertionError("the network does not come to rest")

    def _arrive(self, packet: Packet) -> None:
        gone = packet.to in self.down or packet.to not in self.servers
        if gone or (packet.sender, packet.to) in self.cut:
            return
        self.step(packet.to, Received(packet.sender, packet.message))

    def part(self, *groups: Iterable[int]) -> None:
        """Cut every link between the groups, both ways."""
        side = {member: number for number, group in enumerate(groups) for member in group}
        self.cut |= {(a, b) for a in side for b in side if side[a] != side[b]}

    def heal(self) -> None:
        self.cut.clear()

    def connect(self, a: int, b: int) -> None:
        """A connection between both stands (again)."""
        self.step(a, PeerConnected(b, self.servers[b].name))
        self.step(b, PeerConnected(a, self.servers[a].name))

    def connect_all(self) -> None:
        for a in self.servers:
            for b in self.servers:
                if a < b:
                    self.connect(a, b)

    # --- time, crashes

    def run_for(self, duration_us: int) -> None:
        """Time passes, timers fire when due, packets arrive (most of them without delay)."""
        end_us = self.now_us + duration_us
        while True:
            self.wire += [packet for us, packet in self._late if us <= self.now_us]
            self._late = [(us, packet) for us, packet in self._late if us > self.now_us]
            self.settle()
            due = [(us, i) for i in self.servers if (us := self._deadline(i)) is not None]
            due += [(us, 0) for us, _ in self._late]
            if not due or min(due)[0] > end_us:
                break
            deadline_us, member_id = min(due)
            self.now_us = max(self.now_us, deadline_us)
            if member_id:
                self.step(member_id, TimerExpired())
        self.now_us = end_us

    def _deadline(self, member_id: int) -> int | None:
        if member_id in self.down or member_id in self.paused:
            return None
        return self.servers[member_id].node.next_deadline_us

    def time_out(self, member_id: int) -> list[Effect]:
        """This server's timer, and nobody else's, fires; late enough for the others to vote."""
        deadline_us = self.servers[member_id].node.next_deadline_us
        assert deadline_us is not None
        self.now_us = max(self.now_us + MIN_TIMEOUT_US, deadline_us)
        return self.step(member_id, TimerExpired())

    def elect(self, member_id: int) -> Node:
        """Make it leader and let everything come to rest."""
        self.time_out(member_id)
        self.settle()
        node = self.node(member_id)
        assert node.role is Role.LEADER, f"{member_id} was not elected, it is {node.role}"
        return node

    def propose(self, member_id: int, payload: bytes = b"x", *, tag: int = 1) -> list[Effect]:
        return self.step(member_id, Propose(tag, 1, payload))

    def restart(self, member_id: int) -> Node:
        """Crash and come back with what the disk holds; the others connect anew."""
        self.down.discard(member_id)
        server = self.servers[member_id]
        server.now_us = self.now_us
        server.start()
        for other in self.servers:
            if other != member_id and other not in self.down:
                self.connect(member_id, other)
        return server.node

    def applied(self, member_id: int) -> list[bytes]:
        """The commands that this server's state machine has got."""
        batches = self.servers[member_id].applied
        return [bytes(b.payload) for b in batches if b.kind == BatchKind.COMMANDS]


def led(size: int = 3, settings: Settings = SETTINGS) -> Cluster:
    """1 leads the voters 1 … size."""
    cluster = Cluster(size, settings=settings)
    cluster.elect(1)
    return cluster


def with_learners(*learners: int) -> Cluster:
    """1 leads the voters 1, 2, 3; these are learners that have everything."""
    cluster = led()
    cluster.change(1, MembershipChange(add=tuple(member(i) for i in learners)))
    cluster.settle()
    for i in learners:
        cluster.add(i)
    cluster.run_for(2 * MAX_TIMEOUT_US)
    assert {cluster.node(i).commit_index for i in learners} == {cluster.node(1).commit_index}
    return cluster


def configuration(cluster: Cluster, member_id: int = 1) -> Configuration:
    """The one that this server goes by."""
    known = cluster.node(member_id).configuration
    assert known is not None
    return known


def voters(cluster: Cluster, member_id: int = 1) -> tuple[int, ...]:
    return configuration(cluster, member_id).voters
