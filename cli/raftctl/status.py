"""`raftctl status`."""

from __future__ import annotations

import json

import click
import msgspec

from raft_agent.api import protocol
from raftctl.context import current
from raftctl.faults import fault_line
from raftctl.framework import RaftCommand
from raftctl.output import printable


def ebpf_text(ebpf: protocol.EbpfStatus) -> str:
    """ "attached on eth0", or "degraded (why)"."""
    text = ebpf.state
    if ebpf.interfaces:
        text += f" on {', '.join(ebpf.interfaces)}"
    return f"{text} ({ebpf.reason})" if ebpf.reason else text


def fault_lines(ebpf: protocol.EbpfStatus) -> list[str]:
    return [printable(f"Fault:        {fault_line(fault)}") for fault in ebpf.faults]


def in_force_text(result: protocol.StatusResult) -> str:
    """ "cluster version 1 (this agent knows version 1)"."""
    in_force = f"cluster version {result.cluster_version}" if result.cluster_version else "none"
    oldest, newest = result.knows
    known = f"version {newest}" if oldest == newest else f"versions {oldest} to {newest}"
    return f"{in_force} (this agent knows {known})"


def status_text(result: protocol.StatusResult) -> str:
    """The contract's exact lines; what follows `Peers:` is free."""
    lines = [
        "RAFT Cluster Status",
        "==================",
        f"Node ID:      {result.node_id}",
        f"Role:         {result.role.capitalize()}",
        f"Current Term: {result.term}",
        f"Commit Index: {result.commit_index}",
        f"Last Applied: {result.last_applied}",
        f"Leader:       {result.leader or 'none'}",
        f"Peers:        {json.dumps(result.peers, ensure_ascii=False)}",
        f"Cluster ID:   {result.cluster_id or 'none'}",
        f"Version:      {result.version}",
        f"In Force:     {in_force_text(result)}",
        f"eBPF:         {ebpf_text(result.ebpf)}",
    ]
    if result.generation:
        lines.append(f"Generation:   {result.generation}, since a recovery")
    if result.learners:
        lines.append(f"Learners:     {json.dumps(result.learners, ensure_ascii=False)}")
    if not result.removed:  # what it saw last goes on without it
        changes = [item for item in result.members if item.state]
        lines += [f"Change:       {item.name} is {item.state}" for item in changes]
    for name, progress in sorted((result.progress or {}).items()):
        contact = progress.last_contact_ms
        heard = "never heard" if contact is None else f"heard {contact} ms ago"
        lines.append(f"Follower:     {name} at {progress.match_index}, lag {progress.lag}, {heard}")
    if result.ebpf.firewall != "off":
        lines.append(f"Firewall:     {result.ebpf.firewall}")
    lines += fault_lines(result.ebpf)
    if result.note:
        lines.append(f"Note:         {result.note}")
    return "\n".join(printable(line) for line in lines)


def status_data(result: protocol.StatusResult) -> dict[str, object]:
    """The contract's fields: `progress` only on the leader, `note` only when there is one."""
    data: dict[str, object] = msgspec.to_builtins(result)
    for optional in ("progress", "note"):
        if not data[optional]:
            del data[optional]
    return data


@click.command(
    cls=RaftCommand,
    action="read the status",
    examples="""
    raftctl --node node-02 status
    raftctl --node node-02 -o json status
    """,
)
def status() -> None:
    """Show a node's role, term, log and peers."""
    context = current()
    result = context.ask(protocol.Status(id=1), protocol.StatusResult)
    context.out.result(status_text(result), status_data(result))
