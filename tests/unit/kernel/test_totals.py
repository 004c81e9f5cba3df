"""Counters of a member go on when its connections come and go."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec

from raft_agent.kernel import layout
from raft_agent.kernel.counters import Flow, decode_flow
from raft_agent.kernel.layout import FlowKey
from raft_agent.kernel.totals import Totals

PEER = 2


def flow(port: int, packets: int) -> Flow:
    key = FlowKey(ip_address("10.0.0.1"), 5555, ip_address("10.0.0.2"), port)
    empty = decode_flow(key, bytes(2 * layout.COUNTERS.size))
    ingress = msgspec.structs.replace(empty.ingress, packets=packets)
    return msgspec.structs.replace(empty, ingress=ingress)


class Program:
    def __init__(self) -> None:
        self.flows: dict[FlowKey, Flow] = {}
        self.totals = Totals(lambda key: self.flows.pop(key, None))

    def has(self, *flows: Flow) -> None:
        self.flows.update({one.key: one for one in flows})

    def packets(self, *standing: Flow) -> int:
        self.totals.look((PEER, one) for one in standing)
        return self.totals.peers()[PEER].ingress.packets


def test_connections_that_are_over_still_count_with_all_that_came_last() -> None:
    program = Program()
    first, second = flow(40_000, 10), flow(40_001, 3)
    assert program.packets(first) == 10
    assert program.packets(first, second) == 13
    program.has(flow(40_000, 12))  # it closed between two looks
    assert program.packets(second) == 15
    assert program.packets(second) == 15


def test_what_the_program_knows_no_longer_counts_as_it_was_seen() -> None:
    program = Program()
    program.packets(flow(40_000, 10))
    assert program.packets() == 10


def test_a_connection_from_the_port_of_a_former_one_is_not_counted_twice() -> None:
    program = Program()
    first = flow(40_000, 10)
    program.has(first)
    program.packets(first)
    program.packets()
    assert first.key not in program.flows
    assert program.packets(flow(40_000, 1)) == 11
