"""The network between the namespaces of a run: which packets are lost, by rules in its hub.

The hub's bridge carries everything, so its rules can lose what goes from one node to another in one
direction and say nothing to anybody, as a real network does. Whole addresses are looked for, so the
clients can be cut off too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

from tests.kernel import netns

_TABLE = "torture"


class Network:
    """`hub`: the namespace with the bridge. Directions are pairs (from, to) of IPv4 addresses."""

    def __init__(self, hub: str) -> None:
        self.hub = hub
        self._cuts: dict[str, set[tuple[str, str]]] = {}
        self._losses: dict[str, tuple[set[tuple[str, str]], int]] = {}
        self._apply()

    def cut(self, name: str, directions: Iterable[tuple[str, str]]) -> None:
        """Nothing passes in these directions until `heal(name)`."""
        self._cuts[name] = set(directions)
        self._apply()

    def lose(self, name: str, directions: Iterable[tuple[str, str]], percent: int) -> None:
        """So many of the packets are lost in these directions until `heal(name)`."""
        self._losses[name] = (set(directions), percent)
        self._apply()

    def heal(self, name: str) -> None:
        self._cuts.pop(name, None)
        self._losses.pop(name, None)
        self._apply()

    def set_port(self, port: str, *, up: bool) -> None:
        """Plug the cable of a node in, or out."""
        netns.ip("-n", self.hub, "link", "set", port, "up" if up else "down")

    def _apply(self) -> None:
        """Put all rules in force in one step."""
        rules = [_rule(pairs, "") for pairs in self._cuts.values() if pairs]
        rules += [
            _rule(pairs, f"numgen random mod 100 < {percent} ")
            for pairs, percent in self._losses.values()
            if pairs
        ]
        script = (
            f"add table bridge {_TABLE}\ndelete table bridge {_TABLE}\ntable bridge {_TABLE} {{\n"
            "chain hub {\ntype filter hook forward priority 0;\n" + "\n".join(rules) + "\n}\n}\n"
        )
        command = [*netns.enter(self.hub), "nft", "-f", "-"]
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def _rule(pairs: set[tuple[str, str]], condition: str) -> str:
    inside = ", ".join(f"{source} . {target}" for source, target in sorted(pairs))
    return f"{condition}ip saddr . ip daddr {{ {inside} }} drop"
