"""Partitions of all shapes, in one direction too, and packets that are lost."""

from __future__ import annotations

from tests.torture.strikes.base import NotNow, Strike
from tests.torture.world import GUEST, Node

Directions = set[tuple[str, str]]


class _Links(Strike):
    def nodes(self) -> list[Node]:
        """All machines that have an agent, in an order by chance, the leader first or anywhere."""
        nodes = [node for node in self.world.nodes if node.in_use]
        if len(nodes) < 2:
            raise NotNow("there is nobody to be parted from")
        self.chance.shuffle(nodes)
        leader = self.world.leader()
        if leader in nodes and self.chance.random() < 0.5:
            nodes.remove(leader)
            nodes.insert(0, leader)
        return nodes

    def between(self, some: list[Node], others: list[Node], *, ways: int = 2) -> Directions:
        found = set(self.world.directions(some, others))
        return found | set(self.world.directions(others, some)) if ways == 2 else found

    @property
    def name(self) -> str:
        return f"{self.kind}-{id(self)}"

    def end(self) -> None:
        self.world.network.heal(self.name)


class Partition(_Links):
    """Halves, rings, bridges, one lone node, single links; in both directions, or in one."""

    kind = "partition"

    def begin(self) -> str:
        nodes = self.nodes()
        shapes = [self._halves, self._lone, self._link, self._deaf, self._mute]
        if len(nodes) >= 3:
            shapes += [self._bridge, self._chain]
        if len(nodes) >= 4:
            shapes.append(self._ring)
        cut, text = self.chance.choice(shapes)(nodes)
        if self.chance.random() < 0.3:
            unseen = self.chance.choice(nodes)
            cut |= {(GUEST, address) for address in unseen.addresses}
            text += f"; clients do not reach {unseen.name}"
        self.world.network.cut(self.name, cut)
        return text

    def _halves(self, nodes: list[Node]) -> tuple[Directions, str]:
        size = self.chance.randrange(1, len(nodes))
        text = f"{_names(nodes[:size])} | {_names(nodes[size:])}"
        return self.between(nodes[:size], nodes[size:]), text

    def _lone(self, nodes: list[Node]) -> tuple[Directions, str]:
        return self.between(nodes[:1], nodes[1:]), f"{nodes[0].name} alone"

    def _link(self, nodes: list[Node]) -> tuple[Directions, str]:
        ways = self.chance.choice([1, 2])
        arrow = "->" if ways == 1 else "-"
        text = f"no link {nodes[0].name} {arrow} {nodes[1].name}"
        return self.between(nodes[:1], nodes[1:2], ways=ways), text

    def _deaf(self, nodes: list[Node]) -> tuple[Directions, str]:
        return self.between(nodes[1:], nodes[:1], ways=1), f"{nodes[0].name} hears nobody"

    def _mute(self, nodes: list[Node]) -> tuple[Directions, str]:
        return self.between(nodes[:1], nodes[1:], ways=1), f"nobody hears {nodes[0].name}"

    def _bridge(self, nodes: list[Node]) -> tuple[Directions, str]:
        """Two halves that both see one node."""
        rest = nodes[1:]
        size = len(rest) // 2
        text = f"{_names(rest[:size])} | {nodes[0].name} sees all | {_names(rest[size:])}"
        return self.between(rest[:size], rest[size:]), text

    def _chain(self, nodes: list[Node]) -> tuple[Directions, str]:
        """Each sees the one before it and the one after it."""
        cut: Directions = set()
        for place, node in enumerate(nodes):
            cut |= self.between([node], nodes[place + 2 :])
        return cut, "chain " + _names(nodes, " - ")

    def _ring(self, nodes: list[Node]) -> tuple[Directions, str]:
        cut: Directions = set()
        for place, node in enumerate(nodes):
            near = {place, (place + 1) % len(nodes), (place - 1) % len(nodes)}
            far = [other for index, other in enumerate(nodes) if index not in near]
            cut |= self.between([node], far)
        return cut, "ring " + _names(nodes, " - ")


class Stranded(_Links):
    """The leader is left alone with all clients: what it takes in from them nobody else gets, and
    whoever is elected meanwhile gets nothing from clients."""

    kind = "stranded"

    def begin(self) -> str:
        leader = self.world.leader()
        others = [node for node in self.world.nodes if node.in_use and node is not leader]
        if leader is None or not others:
            raise NotNow("there is no leader to be parted from the others")
        unseen = {(GUEST, address) for node in others for address in node.addresses}
        self.world.network.cut(self.name, self.between([leader], others) | unseen)
        return f"{leader.name} alone with all clients"


class Loss(_Links):
    """Some of the packets are lost, on all links or on those of one node."""

    kind = "loss"

    def begin(self) -> str:
        nodes = self.nodes()
        percent = self.chance.choice([1, 5, 20, 40])
        if self.chance.random() < 0.5:
            directions = self.between(nodes[:1], nodes[1:])
            text = f"{percent}% lost at {nodes[0].name}"
        else:
            directions = self.between(nodes, nodes)
            text = f"{percent}% lost everywhere"
        self.world.network.lose(self.name, directions, percent)
        return text


class Flaky(_Links):
    """A link goes away and comes back, many times."""

    kind = "flaky"

    def begin(self) -> str:
        nodes = self.nodes()
        node = nodes[0]
        count = int(self.lasts_s / 0.6) + 1
        hub, port = self.world.network.hub, node.name
        script = (
            f"for i in $(seq {count}); do ip -n {hub} link set {port} down; sleep 0.3; "
            f"ip -n {hub} link set {port} up; sleep 0.3; done"
        )
        self._port = port
        self._helper = self.world.helper(script)
        return f"the link of {node.name} goes away {count} times for 0.3 s"

    def end(self) -> None:
        self.world.end_helper(self._helper)
        self.world.network.set_port(self._port, up=True)


def _names(nodes: list[Node], between: str = ", ") -> str:
    return between.join(node.name for node in nodes)
