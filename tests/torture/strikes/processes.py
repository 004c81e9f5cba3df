"""Processes that die, stand still, hand over, or may have less than they are used to."""

from __future__ import annotations

import contextlib
import resource
import signal
from pathlib import Path

from raft_agent.api import protocol
from tests.e2e.agents import UNREACHABLE
from tests.torture.strikes.base import NotNow, Strike
from tests.torture.world import Node


class Kill(Strike):
    """SIGKILL to one, two or all; they start again at the end."""

    kind = "kill"

    def begin(self) -> str:
        chosen = self.free() if self.chance.random() < 0.2 else self.some(2)
        victims = [self.take(node) for node in chosen]
        for node in victims:
            node.agent.signal(signal.SIGKILL)
        for node in victims:
            node.kill()
        return "SIGKILL to " + _names(victims)

    def end(self) -> None:
        for node in self._taken:
            node.start()


class KillLeader(Strike):
    """SIGKILL to whoever leads, and again to whoever leads then."""

    kind = "kill_leader"

    def begin(self) -> str:
        leader = self.world.leader()
        if leader is None or leader.held_by:
            raise NotNow("nobody leads who is free")
        self.take(leader).kill()
        return f"SIGKILL to the leader {leader.name}"

    def end(self) -> None:
        for node in self._taken:
            node.start()


class Stop(Strike):
    """SIGSTOP to one or some; they go on at the end."""

    kind = "stop"

    def begin(self) -> str:
        victims = [self.take(node) for node in self.some(self.chance.choice([1, 1, 2]))]
        for node in victims:
            node.agent.signal(signal.SIGSTOP)
        return "SIGSTOP to " + _names(victims)

    def end(self) -> None:
        for node in self._taken:
            if node.is_running:
                node.agent.signal(signal.SIGCONT)


class Blink(Strike):
    """SIGSTOP and SIGCONT over and over, a tenth of a second at a time."""

    kind = "blink"

    def begin(self) -> str:
        node = self.take(self.one(leader=0.7))
        self._count = int(self.lasts_s / 0.3) + 1
        # A shell does it, so that it goes on while other strikes begin and end.
        script = (
            f"for i in $(seq {self._count}); do kill -STOP {node.agent.pid} || exit 0; sleep 0.1; "
            f"kill -CONT {node.agent.pid}; sleep 0.2; done"
        )
        self._helper = self.world.helper(script)
        return f"SIGSTOP to {node.name}, {self._count} times for 0.1 s"

    def end(self) -> None:
        self.world.end_helper(self._helper)
        for node in self._taken:
            if node.is_running:
                node.agent.signal(signal.SIGCONT)


class Transfer(Strike):
    """The leader is asked to hand over, some times in a row."""

    kind = "transfer"

    def begin(self) -> str:
        leader = self.world.leader()
        if leader is None:
            raise NotNow("nobody leads")
        with contextlib.suppress(*UNREACHABLE):
            leader.agent.ask(protocol.LeaderTransfer(1), timeout_s=3)
        return f"{leader.name} is to hand over"


class Restart(Strike):
    """SIGTERM, and start again at once, as when a program is replaced."""

    kind = "restart"

    def begin(self) -> str:
        node = self.take(self.one())
        assert node.agent.process is not None
        node.agent.process.terminate()
        try:
            node.agent.process.wait(10)
        except Exception as error:
            raise AssertionError(f"{node.name} does not end after SIGTERM") from error
        status, node.agent.process = node.agent.process.returncode, None
        assert status == 0, f"{node.name} ended with status {status} after SIGTERM"
        node.start()
        return f"restart of {node.name}"


class FewFiles(Strike):
    """A process may open no more files than it has open."""

    kind = "few_files"

    def begin(self) -> str:
        node = self.take(self.one())
        pid = node.agent.pid
        count = len(list(Path(f"/proc/{pid}/fd").iterdir())) + self.chance.randrange(3)
        self._before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, self._before[1]))
        return f"{node.name} may have {count} files open"

    def end(self) -> None:
        for node in self._taken:
            if node.is_running:
                resource.prlimit(node.agent.pid, resource.RLIMIT_NOFILE, self._before)


class LittleMemory(Strike):
    """A process gets hardly any more memory. It may end itself, and is started again."""

    kind = "little_memory"

    def begin(self) -> str:
        node = self.take(self.one())
        pid = node.agent.pid
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        more_mib = self.chance.choice([0, 2, 16])
        limit = pages * resource.getpagesize() + (more_mib << 20)
        self._before = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, self._before[1]))
        node.may_end = True
        return f"{node.name} gets {more_mib} MiB more memory at most"

    def end(self) -> None:
        for node in self._taken:
            node.may_end = False
            if node.is_running:
                resource.prlimit(node.agent.pid, resource.RLIMIT_AS, self._before)
            else:
                node.start()


def _names(nodes: list[Node]) -> str:
    return ", ".join(node.name for node in nodes)
