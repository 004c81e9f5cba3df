"""Disks: power failures, syncs that fail, no room, hanging, bits that turn."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from tests.torture.strikes.base import NotNow, Strike
from tests.torture.world import Node

_ELECTION_S = 5.0


class _OfDisks(Strike):
    def disk_of_one(self, *, leader: float = 0.5) -> Node:
        node = self.one(leader=leader)
        if not node.disk.can_fail:
            raise NotNow("plain disks do not fail")
        return self.take(node)


class PowerFailure(_OfDisks):
    """One, two or all machines lose power: what was not synced is lost, or some of it."""

    kind = "power"

    def begin(self) -> str:
        chosen = self.free() if self.chance.random() < 0.5 else self.some(2)
        victims = [self.take(node) for node in chosen if node.disk.can_fail]
        if not victims:
            raise NotNow("plain disks do not fail")
        self.kill(victims)
        told = [
            f"{node.name} ({node.disk.command(f'lose {self.chance.randrange(1 << 30)}')})"
            for node in victims
        ]
        return "power failure of " + ", ".join(told)

    def end(self) -> None:
        for node in self._taken:
            node.start()


class ElectionPower(_OfDisks):
    """The leader dies, and in the midst of the election power fails everywhere: what somebody voted
    must be known afterwards."""

    kind = "election_power"

    def begin(self) -> str:
        leader = self.world.leader()
        victims = [node for node in self.free() if node.disk.can_fail]
        if leader is None or leader not in victims:
            raise NotNow("nobody leads who is free")
        statuses = self.world.statuses()
        if not statuses:
            raise NotNow("nobody says which term it is")
        term = max(status.term for status in statuses.values())
        for node in victims:
            self.take(node)
        self.kill([leader])
        deadline = time.monotonic() + _ELECTION_S
        while time.monotonic() < deadline:
            if any(status.term > term for status in self.world.statuses().values()):
                break
        others = [node for node in victims if node is not leader]
        for node in others:
            assert node.is_running, f"{node.name} ended by itself after {leader.name} was killed"
        self.kill(others)
        for node in victims:
            node.disk.command(f"lose {self.chance.randrange(1 << 30)}")
        return f"power failure everywhere in the election after {leader.name}"

    def end(self) -> None:
        for node in self._taken:
            node.start()


class FailedSync(_OfDisks):
    """The syncs of one disk fail for a while. Its agent takes no part any more, and is started
    again at the end, in half of the cases after a power failure."""

    kind = "fsync_fails"
    group = "damage"

    def begin(self) -> str:
        self.need_all()
        node = self.disk_of_one()
        node.disk.command("fsync_fails 1")
        return f"syncs fail at {node.name}"

    def end(self) -> None:
        for node in self._taken:
            node.disk.command("fsync_fails 0")
            node.kill()
            if self.chance.random() < 0.5:
                node.disk.command(f"lose {self.chance.randrange(1 << 30)}")
            node.start()

    def settle(self) -> None:
        for node in self._taken:
            self.operator.wait_well(node)


class FullDisk(_OfDisks):
    """One disk has no room; the agent comes back by itself when it has."""

    kind = "disk_full"

    def begin(self) -> str:
        node = self.disk_of_one()
        node.disk.command("full 1")
        return f"no room at {node.name}"

    def end(self) -> None:
        for node in self._taken:
            node.disk.command("full 0")


class SlowDisk(_OfDisks):
    """Syncs of one disk take long, up to seconds."""

    kind = "disk_slow"

    def begin(self) -> str:
        node = self.disk_of_one()
        takes_ms = self.chance.choice([20, 100, 500, 3000])
        node.disk.command(f"fsync_takes {takes_ms}")
        return f"each sync takes {takes_ms} ms at {node.name}"

    def end(self) -> None:
        for node in self._taken:
            node.disk.command(f"fsync_takes {self.world.options.fsync_ms}")


class TurnedBits(Strike):
    """Bits turn in the files of one member, which is down or runs. Where it does not start any more
    its operator runs `raftctl rebuild`, and where that refuses too the member is replaced."""

    kind = "bits"
    group = "damage"

    def begin(self) -> str:
        self.need_all()
        node = self.take(self.one(leader=0.3))
        if not _files(node):
            raise NotNow("there are no files yet")
        down = self.chance.random() < 0.7
        if down:
            self.kill([node])
        files = _files(node)
        told = []
        for _ in range(self.chance.choice([1, 1, 3]) if files else 0):
            path = self.chance.choice(files)
            # An agent that runs may have removed it.
            with suppress(FileNotFoundError):
                told.append(f"{path.name}@{self._turn_a_bit(path)}")
        if not told:
            raise NotNow("there are no files any more")
        node.may_end = True
        state = "down" if down else "running"
        return f"bits turned at {node.name}, {state}: {', '.join(told)}"

    def _turn_a_bit(self, path: Path) -> int:
        """At which byte."""
        with path.open("r+b") as file:
            data = file.read()
            # Where something stands: the end of a segment is zeros that nobody has written yet.
            offset = self.chance.randrange(len(data.rstrip(b"\0")) or len(data))
            file.seek(offset)
            file.write(bytes([data[offset] ^ (1 << self.chance.randrange(8))]))
            file.flush()
            os.fsync(file.fileno())
        return offset

    def settle(self) -> None:
        for node in self._taken:
            # Damage that nobody has read yet is found at the start, so it can't add up with that
            # of others to more than a minority's.
            node.kill()
            node.start()
            self.operator.mend(node)
            node.may_end = False


def _files(node: Node) -> list[Path]:
    """What there is of its log and its snapshots."""
    found = []
    for folder in ("log", "snapshots"):
        for path in sorted(node.agent.data_dir.glob(f"{folder}/*")):
            with suppress(FileNotFoundError):
                if path.is_file() and path.stat().st_size:
                    found.append(path)
    return found


class LostDisk(Strike):
    """A machine and its disk are gone. The member is removed, and a fresh one of the same name
    joins."""

    kind = "disk_lost"
    group = "damage"

    def begin(self) -> str:
        voters = self.need_all()
        if len(voters) < 3:
            raise NotNow("too few voters")
        node = self.take(self.chance.choice(voters))
        self.kill([node])
        node.wipe()
        return f"{node.name} and its disk are gone"

    def settle(self) -> None:
        for node in self._taken:
            self.operator.replace_machine(node)
