"""What all strikes of the nemesis have in common."""

from __future__ import annotations

import random
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from tests.torture.operating import Operator
from tests.torture.world import Node, World


class NotNow(Exception):  # noqa: N818
    """It can't be done at the moment: what it needs is not there, or something else holds it."""


class Strike(ABC):
    """One thing that goes wrong. `begin` does it and says what, or raises NotNow; `end` heals it.

    `chance` is the strike's own, so that a plan strikes in the same way each time as far as the
    cluster is in the same state. `lasts_s` is for how long it is to last.
    """

    kind: ClassVar[str]
    # Strikes of one group exclude each other, so that they never add up to more than a cluster
    # bears: damaged disks and members that come and go.
    group: ClassVar[str] = ""

    def __init__(self, world: World, chance: random.Random, lasts_s: float) -> None:
        self.world = world
        self.operator = Operator(world)
        self.chance = chance
        self.lasts_s = lasts_s
        self._taken: list[Node] = []

    @abstractmethod
    def begin(self) -> str: ...

    def end(self) -> None:  # noqa: B027  # many heal by themselves
        """Heal it."""

    def settle(self) -> None:  # noqa: B027  # few leave something behind
        """When all has ended: do what an operator has still to do, and wait until it is done.
        AssertionError when that can't be."""

    # --- whom it strikes

    def need_running(self, nodes: Sequence[Node]) -> None:
        """NotNow when one has just ended by itself, which the nemesis is to see."""
        gone = [node.name for node in nodes if not node.is_running]
        if gone:
            raise NotNow(f"{', '.join(gone)} ended before it was struck")

    def signal(self, nodes: Sequence[Node], number: int) -> None:
        """To all of them, or to none and NotNow."""
        self.need_running(nodes)
        for node in nodes:
            node.agent.signal(number)

    def kill(self, nodes: Sequence[Node]) -> None:
        """SIGKILL to all of them before any is waited for, or to none and NotNow."""
        self.signal(nodes, signal.SIGKILL)
        for node in nodes:
            node.kill()

    def take(self, node: Node) -> Node:
        """Have the node for itself until `end`."""
        if node.held_by:
            raise NotNow(f"{node.name} is in the hands of another strike")
        node.held_by.add(self.kind)
        self._taken.append(node)
        return node

    def let_go(self) -> None:
        """Give back all that was taken."""
        for node in self._taken:
            node.held_by.discard(self.kind)
        self._taken = []

    def free(self) -> list[Node]:
        """Nodes that run and that nobody holds."""
        return [node for node in self.world.running() if not node.held_by]

    def one(self, *, leader: float = 0.5) -> Node:
        """A free node: the leader with this probability."""
        free = self.free()
        if not free:
            raise NotNow("no node is free")
        leading = self.world.leader()
        if leading in free and self.chance.random() < leader:
            return leading
        return self.chance.choice(free)

    def some(self, most: int) -> list[Node]:
        """One to `most` free nodes, the leader among them in half of the cases."""
        first = self.one()
        rest = [node for node in self.free() if node is not first]
        self.chance.shuffle(rest)
        return [first, *rest[: self.chance.randrange(most)]]

    def need_all(self) -> list[Node]:
        """All voters, which run, are free, and have what was committed. For what damages a disk or
        changes the members: a cluster bears one of these at a time."""
        statuses = self.world.statuses()
        voters = self.world.voters()
        if not voters or any(not node.is_running or node.held_by for node in voters):
            raise NotNow("not all voters are well")
        if any(node.name not in statuses for node in voters):
            raise NotNow("not all voters answer")
        committed = max(status.commit_index for status in statuses.values())
        for node in voters:
            status = statuses[node.name]
            if status.note or committed - status.last_applied > 1000 or not status.leader:
                raise NotNow(f"{node.name} is not well: {status.note or 'behind'}")
        return voters
