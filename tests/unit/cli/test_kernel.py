"""raftctl kernel, fault and what status says of the kernel part."""

from __future__ import annotations

import json

import msgspec
import pytest

from raft_agent.api import protocol
from raft_agent.api.protocol import EbpfStatus, FaultInfo, KernelPeer, KernelResult, KernelTraffic
from raftctl import kernel
from raftctl.faults import fault_line
from raftctl.status import status_text
from tests.unit.cli.served import Served, json_of, raftctl

RECEIVED = KernelTraffic(
    packets=434, bytes=48_000, frames={"append_reply": 201, "heartbeat_reply": 46}
)
SENT = KernelTraffic(
    packets=483,
    bytes=3 << 20,
    retransmissions=2,
    frames={"append_entries": 201},
    entries=3099,
    lost_sync=1,
)
PEER = KernelPeer("node-02", 2, True, RECEIVED, SENT, (1049, 8389), (262, 2097), 12, 3)
QUIET = KernelPeer("node-03", 1, False, KernelTraffic(), KernelTraffic())
ON = b"To turn it on: enabled = true under [ebpf] in the agent's raft.toml, then start it anew\n"
FAULT = FaultInfo("node-03", "in", 100, 29_400)
RESULT = KernelResult(
    EbpfStatus("attached", "", ["eth0"], "audit", [FAULT]),
    ["TCX program cil on eth0"],
    [PEER, QUIET],
    strangers=4,
    lost_events=1,
)


def test_the_table_shows_every_peer_and_what_is_unusual() -> None:
    lines = kernel.kernel_text(RESULT).splitlines()
    assert lines[:5] == [
        "eBPF:         attached on eth0",
        "In front:     TCX program cil on eth0",
        "Firewall:     audit, 4 strangers",
        "Events:       1 were lost, the buffer was full",
        "Fault:        loses 100 ‰ of what comes from node-03, 29 s more",
    ]
    head, first, second = (line.split() for line in lines[6:9])
    assert head[0] == "PEER"
    assert first == (
        [
            "node-02",
            "2",
            "434",
            "483",
            "47K",
            "3.0M",
            "2",
            "1.0ms",
            "8.4ms",
            "262µs",
            "2.1ms",
            "12ms",
            "ago",
            "3",
            "yes,",
            "lost",
            "1",
            "times",
        ]
    )
    assert second == ["node-03", "1", "0", "0", "0", "0", "0", "-", "-", "-", "-", "-", "-", "lost"]
    assert lines[10:] == [
        "node-02 in: append_reply 201, heartbeat_reply 46",
        "node-02 out: append_entries 201 (3099 entries)",
        "node-03 in: no frames",
        "node-03 out: no frames",
    ]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0"), (1023, "1023"), (1024, "1.0K"), (10 << 10, "10K"), (3 << 30, "3.0G")],
)
def test_sizes_are_short(count: int, shown: str) -> None:
    assert kernel.size(count) == shown


@pytest.mark.parametrize(
    ("us", "shown"), [(7, "7µs"), (999, "999µs"), (1500, "1.5ms"), (2_000_000, "2.0s")]
)
def test_durations_are_short(us: int, shown: str) -> None:
    assert kernel.duration(us) == shown


def test_status_shows_state_filter_and_faults(served: Served) -> None:
    status = msgspec.structs.replace(
        served.call(served.host.status),
        ebpf=EbpfStatus("attached-but-bypassed", "why", ["eth0"], "enforce", [FAULT]),
    )
    lines = status_text(status).splitlines()
    assert "eBPF:         attached-but-bypassed on eth0 (why)" in lines
    assert "Firewall:     enforce" in lines
    assert f"Fault:        {fault_line(FAULT)}" in lines


def test_without_a_kernel_part_the_command_says_that_it_is_off(at: tuple[str, str]) -> None:
    done = raftctl(*at, "kernel")
    assert (done.returncode, done.stdout) == (0, b"eBPF:         off\n" + ON)


def test_drop_and_partition_ask_for_faults_with_an_end(at: tuple[str, str]) -> None:
    done = raftctl(*at, "fault", "drop", "node-03", "--per-mille", "100", "--for", "30")
    assert done.stdout.decode().splitlines() == [
        "✓ loses 100 ‰ of what comes from node-03, 30 s more",
        "✓ loses 100 ‰ of what goes to node-03, 30 s more",
    ]
    done = raftctl(
        *at, "-o", "json", "fault", "partition", "node-03", "--for", "9", "--direction", "in"
    )
    assert json_of(done) == {
        "faults": [{"peer": "node-03", "direction": "in", "per_mille": 1000, "ends_in_ms": 9000}]
    }
    assert raftctl(*at, "fault", "heal").stdout.decode() == "✓ loses nothing on purpose\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["drop", "node-03", "--per-mille", "100"],
        ["drop", "node-03", "--for", "30"],
        ["drop", "node-03", "--per-mille", "1001", "--for", "30"],
        ["drop", "node-03", "--per-mille", "0", "--for", "30"],
        ["partition", "node-03"],
        ["partition", "node-03", "--for", "301"],
        ["partition", "--for", "30"],
    ],
)
def test_a_fault_without_an_end_or_beyond_its_bounds_is_a_usage_error(
    at: tuple[str, str], arguments: list[str]
) -> None:
    assert raftctl(*at, "fault", *arguments).returncode == 2


@pytest.mark.parametrize(
    "body", [["fault_set", 1, "x", 0, 5], ["fault_set", 1, "x", 5, 300_001], ["fault_set", 1, "x"]]
)
def test_the_agent_refuses_faults_beyond_the_bounds_too(body: list[object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        protocol.REQUESTS_JSON_DECODER.decode(json.dumps([body]))


def test_a_kernel_part_that_is_off_says_how_it_is_turned_on() -> None:
    text = kernel.kernel_text(KernelResult(EbpfStatus("off", "", []), [], []))
    assert text.encode() + b"\n" == b"eBPF:         off\n" + ON
