"""Members come, go, are replaced, and move to other addresses, as an operator would have them."""

from __future__ import annotations

from tests.torture.strikes.base import NotNow, Strike
from tests.torture.world import Node

_BACKUP_S = 10


class _OfMembers(Strike):
    group = "damage"

    def fresh(self) -> Node:
        """A machine that belongs to nobody, with an agent that waits to be joined."""
        spares = [node for node in self.world.nodes if not node.in_use and not node.held_by]
        if not spares:
            raise NotNow("no machine is left over")
        node = self.take(self.chance.choice(spares))
        node.start()
        return node


class Join(_OfMembers):
    """A fresh node joins."""

    kind = "join"

    def begin(self) -> str:
        if len(self.need_all()) >= 5:
            raise NotNow("there are enough")
        node = self.fresh()
        self.operator.ask("join", node.name, node.address, "--no-wait")
        return f"{node.name} joins"

    def settle(self) -> None:
        for node in self._taken:
            self.operator.join(node)


class Leave(_OfMembers):
    """A member leaves; the leader now and then."""

    kind = "leave"

    def begin(self) -> str:
        voters = self.need_all()
        if len(voters) <= 3:
            raise NotNow("too few would be left")
        node = self.one(leader=0.4)
        if node not in voters:
            raise NotNow("it is no voter")
        self.take(node)
        self.operator.ask("leave", node.name)
        return f"{node.name} leaves"

    def settle(self) -> None:
        for node in self._taken:
            self.operator.retire(node)


class Replace(_OfMembers):
    """A fresh node takes the place of a member, in one step."""

    kind = "replace"

    def begin(self) -> str:
        voters = self.need_all()
        new = self.fresh()
        self._old = self.take(self.chance.choice(voters))
        self.operator.ask("join", new.name, new.address, "--replace", self._old.name, "--no-wait")
        return f"{new.name} takes the place of {self._old.name}"

    def settle(self) -> None:
        self.operator.join(self._taken[0], "--replace", self._old.name)
        self.operator.retire(self._old)


class Move(_OfMembers):
    """A member comes back at another address, and the cluster's configuration follows."""

    kind = "move"

    def begin(self) -> str:
        node = self.take(self.chance.choice(self.need_all()))
        self.kill([node])
        node.place = 1 - node.place
        node.start()
        return f"{node.name} moves to {node.address}"

    def settle(self) -> None:
        for node in self._taken:
            self.operator.wait_moved(node)


class Backup(Strike):
    """A backup is taken while everything goes on."""

    kind = "backup"

    def begin(self) -> str:
        node = self.one(leader=0.3)
        self.file = self.world.directory / f"backup-{self.chance.randrange(1 << 30)}.raft"
        # Whoever can't ask a quorum refuses, and it is done when all is over.
        self._was_saved, said = self.operator.raftctl(node, *self._save, timeout_s=_BACKUP_S)
        return f"backup from {node.name}" + ("" if self._was_saved else f", in vain: {said}")

    @property
    def _save(self) -> tuple[str, ...]:
        return ("snapshot", "save", "--force", str(self.file))

    def settle(self) -> None:
        told: list[str] = []

        def is_saved() -> bool:
            if not self._was_saved:
                self._was_saved, said = self.operator.ask(*self._save)
                told.append(said)
            return self._was_saved

        self.operator.until("a backup", is_saved, told)
        assert self.file.exists(), f"a backup was saved, and there is no file {self.file}"
        is_sound, said = self.operator.raftctl(None, "snapshot", "status", str(self.file))
        assert is_sound, f"a backup was saved that is none: {said}"
        self.file.unlink()
