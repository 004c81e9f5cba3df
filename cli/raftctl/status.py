"""`raftctl status`."""

from __future__ import annotations

import json

import click
import msgspec

from raft_agent.api import protocol
from raftctl.context import current
from raftctl.framework import RaftCommand
from raftctl.output import printable


def status_text(result: protocol.StatusResult) -> str:
    """The contract's exact lines; what follows `Peers:` is free."""
    ebpf = result.ebpf.state
    if result.ebpf.interfaces:
        ebpf += f" on {', '.join(result.ebpf.interfaces)}"
    if result.ebpf.reason:
        ebpf += f" ({result.ebpf.reason})"
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
        f"eBPF:         {ebpf}",
    ]
    if result.learners:
        lines.append(f"Learners:     {json.dumps(result.learners, ensure_ascii=False)}")
    lines += [f"Change:       {item.name} is {item.state}" for item in result.members if item.state]
    for name, progress in sorted((result.progress or {}).items()):
        contact = progress.last_contact_ms
        heard = "never heard" if contact is None else f"heard {contact} ms ago"
        lines.append(f"Follower:     {name} at {progress.match_index}, lag {progress.lag}, {heard}")
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
