"""What else machines have: clocks, certificates, and the program in the kernel."""

from __future__ import annotations

import subprocess
from functools import partial

from raft_agent.kernel.part import ATTACHED
from raft_agent.kernel.tc import EGRESS, INGRESS
from tests.kernel import netns
from tests.torture.strikes.base import NotNow, Strike
from tests.torture.world import Node

_FILTERS = {"ingress": INGRESS, "egress": EGRESS}


class WallClock(Strike):
    """The clock on the wall of one or some jumps, by seconds or hours, and back at the end."""

    kind = "clock_jump"

    def begin(self) -> str:
        told = []
        self._moved = self.some(len(self.world.nodes))
        for node in self._moved:
            if node.clock is None:
                raise NotNow("these clocks can't be set")
            ahead_s = self.chance.choice([0.5, 5, 60, 7200]) * self.chance.choice([1, -1])
            node.clock.set_wall(ahead_s)
            told.append(f"{node.name} {ahead_s:+} s")
        return "clocks on the wall: " + ", ".join(told)

    def end(self) -> None:
        for node in self._moved:
            if node.clock is not None and self.chance.random() < 0.7:
                node.clock.set_wall(0.0)


class Rotation(Strike):
    """All certificates are replaced, in half of the cases with their authority."""

    kind = "certificates"
    group = "certificates"

    def begin(self) -> str:
        return self.world.papers.rotate(new_authority=self.chance.random() < 0.5)


class Detach(Strike):
    """Somebody takes the program off an interface; the agent sees it and puts it back."""

    kind = "tc_detached"

    def begin(self) -> str:
        node = self.take(self.one())
        if not node.has_program or not _is_attached(node):
            raise NotNow("there is no program")
        for side in _FILTERS:
            # It has to be there: only its agent, which nobody else may strike now, takes it off.
            netns.tc(node.namespace, "filter", "del", "dev", "eth0", side)
        return f"the program of {node.name} is detached"

    def settle(self) -> None:
        for node in self._taken:
            told: list[str] = []
            what = f"the program of {node.name} to be attached again"
            self.operator.until(what, partial(self._is_back, node, told), told)

    def _is_back(self, node: Node, told: list[str]) -> bool:
        status = self.world.statuses().get(node.name)
        if status is None:
            return False
        told.append(f"{status.ebpf.state} {status.ebpf.reason}")
        return status.ebpf.state == ATTACHED and _is_attached(node)


def _is_attached(node: Node) -> bool:
    """As the kernel has it."""
    for side, name in _FILTERS.items():
        command = ["tc", "-n", node.namespace, "filter", "show", "dev", "eth0", side]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if name not in done.stdout:
            return False
    return True
