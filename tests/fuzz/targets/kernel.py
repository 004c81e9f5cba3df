"""What the program in the kernel writes into its ring buffer and its maps."""

from __future__ import annotations

import ipaddress

from raft_agent.kernel import layout
from raft_agent.kernel.counters import decode_flow
from raft_agent.kernel.layout import FlowKey, UnreadableError
from raft_agent.kernel.news import describe
from raft_agent.kernel.ring import decode
from raft_agent.kernel.totals import PeerTotals
from tests.fuzz.target import Target

_KEY = FlowKey(ipaddress.IPv4Address("10.0.0.1"), 5555, ipaddress.IPv6Address("fe80::1"), 40000)


def read_event(data: bytes) -> None:
    """An event is told in words, or refused as one of another version."""
    try:
        event = decode(data)
    except UnreadableError as error:
        assert str(error)
        return
    kind, facts = describe(event)
    assert kind.startswith("kernel_")
    assert facts


def read_flow(data: bytes) -> None:
    """A flow's counters add up, or are refused."""
    size = layout.FLOW_KEY.size
    try:
        key = FlowKey.decode(data[:size])
        flow = decode_flow(key, data[size:])
    except UnreadableError as error:
        assert str(error)
        return
    assert FlowKey.decode(key.encode()) == key
    totals = PeerTotals()
    totals.add(flow)
    for counters in (flow.ingress, flow.egress):
        assert counters.frames >= 0
        counters.append_latency.quantile_ns(0.5)
        list(counters.append_latency.up_to())


def _events() -> list[bytes]:
    return [
        layout.EVENT.pack(5_000, 3, 77, kind, detail, _KEY.encode(), direction)
        for kind in range(8)
        for detail, direction in ((0, 0), (1, 1))
    ]


def _flows() -> list[bytes]:
    return [_KEY.encode() + bytes(layout.FLOW.size), _KEY.encode() + b"\1" * layout.FLOW.size]


TARGETS = (
    Target("kernel_events", read_event, _events),
    Target("kernel_flows", read_flow, _flows),
)
