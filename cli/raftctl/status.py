"""`raftctl status`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from raftctl.context import current
from raftctl.framework import RaftCommand
from raftctl.output import printable

if TYPE_CHECKING:
    from raft_agent.api.protocol import EbpfStatus, StatusResult


def ebpf_text(ebpf: EbpfStatus) -> str:
    """ "attached on eth0", or "degraded (why)"."""
    text = ebpf.state
    if ebpf.interfaces:
        text += f" on {', '.join(ebpf.interfaces)}"
    return f"{text} ({ebpf.reason})" if ebpf.reason else text


def fault_lines(ebpf: EbpfStatus) -> list[str]:
    from raftctl.faults import fault_line  # noqa: PLC0415

    return [printable(f"Fault:        {fault_line(fault)}") for fault in ebpf.faults]


def status_text(result: StatusResult) -> str:
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
        f"eBPF:         {ebpf_text(result.ebpf)}",
    ]
    if result.learners:
        lines.append(f"Learners:     {json.dumps(result.learners, ensure_ascii=False)}")
    lines += [f"Change:       {item.name} is {item.state}" for item in result.members if item.state]
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


def was_removed(result: StatusResult) -> bool:
    """Whether the node knows that it is no member any more. Its log may end before the entry that
    settled it, and so still have it as one that leaves.
    """
    stays = any(item.name == result.node_id and item.state != "leaving" for item in result.members)
    return bool(result.cluster_id and result.note and not result.leader) and not stays


def status_data(result: StatusResult) -> dict[str, object]:
    """The contract's fields: `progress` only on the leader, `note` only when there is one."""
    import msgspec  # noqa: PLC0415

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
    from raft_agent.api import protocol  # noqa: PLC0415

    context = current()
    result = context.ask(protocol.Status(id=1), protocol.StatusResult)
    context.out.result(status_text(result), status_data(result))
