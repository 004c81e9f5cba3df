"""`raftctl kernel`: what the program in the kernel has seen."""

from __future__ import annotations

import click

from raft_agent.api import protocol
from raftctl.context import current
from raftctl.framework import RaftCommand
from raftctl.output import printable, table
from raftctl.status import ebpf_text, fault_lines

_HEAD = (
    *("PEER", "FLOWS", "PACKETS IN", "OUT", "BYTES IN", "OUT", "RETRANS", "WIRE p50", "p99"),
    *("LOOP p50", "p99", "APPEND", "TERM", "SYNC"),
)
_KIB = 1024


def size(count: int) -> str:
    """ "999", "1.5K", "12M", "3.0G"."""
    shown = float(count)
    for unit in ("", "K", "M", "G", "T"):
        if shown < _KIB or unit == "T":
            return f"{count}" if not unit else f"{shown:.{int(shown < 10)}f}{unit}"
        shown /= _KIB
    raise AssertionError


def duration(us: int) -> str:
    """ "850µs", "1.2ms", "3.5s"."""
    if us < 1000:
        return f"{us}µs"
    return f"{us / 1000:.1f}ms" if us < 1_000_000 else f"{us / 1_000_000:.1f}s"


def _pair(times: tuple[int, int] | None) -> tuple[str, str]:
    return ("-", "-") if times is None else (duration(times[0]), duration(times[1]))


def _row(peer: protocol.KernelPeer) -> tuple[str, ...]:
    lost = peer.received.lost_sync + peer.sent.lost_sync
    sync = "yes" if peer.in_sync else "lost"
    append = "-" if peer.append_ago_ms is None else f"{peer.append_ago_ms}ms ago"
    return (
        printable(peer.name),
        str(peer.flows),
        str(peer.received.packets),
        str(peer.sent.packets),
        size(peer.received.bytes),
        size(peer.sent.bytes),
        str(peer.received.retransmissions + peer.sent.retransmissions),
        *_pair(peer.wire_us),
        *_pair(peer.loop_us),
        append,
        "-" if peer.append_term is None else str(peer.append_term),
        f"{sync}, lost {lost} times" if lost else sync,
    )


def _frames(name: str, way: str, traffic: protocol.KernelTraffic) -> str:
    counts = ", ".join(f"{kind} {count}" for kind, count in sorted(traffic.frames.items()))
    entries = f" ({traffic.entries} entries)" if traffic.entries else ""
    return printable(f"{name} {way}: {counts or 'no frames'}{entries}")


def kernel_text(result: protocol.KernelResult) -> str:
    lines = [f"eBPF:         {ebpf_text(result.ebpf)}"]
    if result.ebpf.state == "off":
        how = "enabled = true under [ebpf] in the agent's raft.toml, then start it anew"
        lines.append(f"To turn it on: {how}")
    if result.in_front:
        lines.append(f"In front:     {', '.join(result.in_front)}")
    if result.ebpf.firewall != "off":
        lines.append(f"Firewall:     {result.ebpf.firewall}, {result.strangers} strangers")
    if result.lost_events:
        lines.append(f"Events:       {result.lost_events} were lost, the buffer was full")
    lines = [printable(line) for line in lines] + fault_lines(result.ebpf)
    if result.peers:
        lines += ["", table([_HEAD, *map(_row, result.peers)]), ""]
    for peer in result.peers:
        lines.append(_frames(peer.name, "in", peer.received))
        lines.append(_frames(peer.name, "out", peer.sent))
    return "\n".join(lines)


@click.command(
    cls=RaftCommand,
    action="read what the kernel saw",
    examples="""
    raftctl --node node-01 kernel
    raftctl --node node-01 -o json kernel
    """,
)
def kernel() -> None:
    """Show what the program in the kernel has seen of every peer.

    Packets, bytes and frames by type; WIRE: from AppendEntries to the response as the kernel saw
    both; LOOP: from a packet's arrival to the agent's handling it.
    """
    context = current()
    result = context.ask(protocol.Kernel(id=1), protocol.KernelResult)
    context.out.result(kernel_text(result), result)
