"""What else machines have: clocks, certificates, and the program in the kernel."""

from __future__ import annotations

import subprocess

from tests.kernel import netns
from tests.torture.strikes.base import NotNow, Strike


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
    """Somebody takes the program off an interface; the agent puts it back."""

    kind = "tc_detached"

    def begin(self) -> str:
        node = self.one()
        if not node.has_program:
            raise NotNow("there is no program")
        for side in ("ingress", "egress"):
            command = ["tc", "filter", "del", "dev", "eth0", side]
            subprocess.run(
                [*netns.enter(node.namespace), *command], check=False, capture_output=True
            )
        return f"the program of {node.name} is detached"
