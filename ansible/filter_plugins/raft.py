"""What the playbooks decide from what agents say about their cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def why_not_stop(health: Mapping[str, Any] | None, name: str) -> list[str]:
    """The reasons for which the member `name` must not be stopped now; none when it may.

    `health`: what `raftctl -o json health` says, None when it says nothing.
    """
    if not health or not health.get("members"):
        return ["no member says how the cluster is"]
    reasons = []
    if not health.get("leader") or not health.get("quorum"):
        reasons.append("the cluster has no leader")
    voters = [member for member in health["members"] if member["role"] == "voter"]
    others = [member for member in voters if member["name"] != name]
    reasons += [
        f"{member['name']} is {member['state']}" + (f": {detail}" if detail else "")
        for member in others
        if member["state"] != "healthy"
        for detail in [member.get("detail", "")]
    ]
    healthy = sum(member["state"] == "healthy" for member in others)
    if any(member["name"] == name for member in voters) and healthy < len(voters) // 2 + 1:
        reasons.append(f"without {name} {healthy} of {len(voters)} voters are left: no majority")
    return reasons


def not_healthy(health: Mapping[str, Any] | None) -> list[str]:
    """What is wrong with a cluster that should be whole; nothing when all members are well."""
    if not health or not health.get("members"):
        return ["no member says how the cluster is"]
    reasons = [] if health.get("leader") and health.get("quorum") else ["the cluster has no leader"]
    return reasons + [
        f"{member['name']} is {member['state']}"
        for member in health["members"]
        if member["state"] != "healthy"
    ]


def is_well(health: Mapping[str, Any] | None, name: str) -> bool:
    """Whether the member itself is caught up and sees a leader."""
    if not health or not health.get("leader") or not health.get("quorum"):
        return False
    return any(
        member["name"] == name and member["state"] == "healthy" for member in health["members"]
    )


def members(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> list[str]:
    """Those of the hosts whose agent runs and belongs to a cluster, as they were last looked at."""
    found = []
    for host in hosts:
        status = (hostvars[host].get("raft_cluster_look") or {}).get("status")
        if status and status["cluster_id"] and not status.get("removed"):
            found.append(host)
    return found


def paths(names: Sequence[str]) -> list[str]:
    """Every directory on the way: /var and /var/lib of ["/var", "/lib"]."""
    return ["".join(names[: count + 1]) for count in range(len(names))]


class FilterModule:
    """Where Ansible finds the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "raft_why_not_stop": why_not_stop,
            "raft_not_healthy": not_healthy,
            "raft_is_well": is_well,
            "raft_members": members,
            "raft_paths": paths,
        }
