"""Nodes that the configuration does not know: anybody can claim any id, so they are few at a time.
Members are never refused here.
"""

from __future__ import annotations

from collections.abc import Collection

from raft_agent.transport.handshake import Hello, Refused

# Nodes that were not added yet, that were removed, or that found a cluster together.
MAX_UNKNOWN = 32


def check_unknown(hello: Hello, known: Collection[int], standing: Collection[int]) -> None:
    """Raises Refused when `hello` comes from none of the members `known`, and too many such have a
    connection that stands already."""
    if hello.member_id in known or hello.member_id in standing:
        return
    if sum(member_id not in known for member_id in standing) >= MAX_UNKNOWN:
        raise Refused(
            "crowded",
            f"{MAX_UNKNOWN} nodes that are no members are connected already, and {hello.name!r} "
            "is none either",
        )
