"""The ports that peers listen on, where they are others than ours."""

from __future__ import annotations

from collections.abc import Iterable

from raft_agent.kernel import layout
from raft_agent.kernel.libbpf import Map

_BITS = 64


def set_peer_ports(peer_ports: Map, ports: Iterable[int]) -> None:
    """Count connections to exactly these ports of peers, besides our own. Raises OSError."""
    words = [0] * layout.PORT_WORDS
    for port in ports:
        words[port // _BITS] |= 1 << port % _BITS
    for index, word in enumerate(words):
        key, value = layout.INDEX.pack(index), layout.U64.pack(word)
        if peer_ports.lookup(key) != value:
            peer_ports.update(key, value)
