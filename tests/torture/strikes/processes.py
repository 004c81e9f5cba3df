"""Processes that die, stand still, hand over, or may have less than they are used to."""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

from raft_agent.api import protocol
from tests.e2e.agents import UNREACHABLE
from tests.torture.strikes.base import NotNow, Strike
from tests.torture.world import Node

# In an agent's log: what stands between these two, it said while it had hardly any memory.
LITTLE_MEMORY = "torture: hardly any more memory from here on"
ENOUGH_MEMORY = "torture: started anew with as much memory as ever"


class Kill(Strike):
    """SIGKILL to one, two or all; they start again at the end."""

    kind = "kill"

    def begin(self) -> str:
        chosen = self.free() if self.chance.random() < 0.2 else self.some(2)
        victims = [self.take(node) for node in chosen]
        self.kill(victims)
        return "SIGKILL to " + _names(victims)

    def end(self) -> None:
        for node in self._taken:
            node.start()


class KillLeader(Strike):
    """SIGKILL to whoever leads."""

    kind = "kill_leader"

    def begin(self) -> str:
        leader = self.world.leader()
        if leader is None or leader.held_by:
            raise NotNow("nobody leads who is free")
        self.kill([self.take(leader)])
        return f"SIGKILL to the leader {leader.name}"

    def end(self) -> None:
        for node in self._taken:
            node.start()


class Stop(Strike):
    """SIGSTOP to one or some; they go on at the end."""

    kind = "stop"

    def begin(self) -> str:
        victims = [self.take(node) for node in self.some(self.chance.choice([1, 1, 2]))]
        self.signal(victims, signal.SIGSTOP)
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
        self.need_running([node])
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
        more = self.chance.randrange(3)
        with _not_now_if_it_ended(node):
            pid = node.agent.pid
            count = len(list(Path(f"/proc/{pid}/fd").iterdir())) + more
            self._before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, self._before[1]))
        return f"{node.name} may have {count} files open"

    def end(self) -> None:
        for node in self._taken:
            if node.is_running:
                resource.prlimit(node.agent.pid, resource.RLIMIT_NOFILE, self._before)


class LittleMemory(Strike):
    """A process gets hardly any more memory. It may end itself, may log whatever Python says then,
    and may have a state that it can't read. In the end it is started again, so that none of this
    stays."""

    kind = "little_memory"

    def begin(self) -> str:
        node = self.take(self.one())
        more_mib = self.chance.choice([0, 2, 16])
        with _not_now_if_it_ended(node):
            pid = node.agent.pid
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + (more_mib << 20)
            _, most = resource.prlimit(pid, resource.RLIMIT_AS)
            node.write_log(LITTLE_MEMORY)
            resource.prlimit(pid, resource.RLIMIT_AS, (limit, most))
        node.may_end = True
        return f"{node.name} gets {more_mib} MiB more memory at most"

    def end(self) -> None:
        for node in self._taken:
            node.kill()
            node.write_log(ENOUGH_MEMORY)
            node.may_end = False
            node.start()

    def settle(self) -> None:
        for node in self._taken:
            self.operator.wait_well(node)


@contextlib.contextmanager
def _not_now_if_it_ended(node: Node) -> Iterator[None]:
    """Who ends by itself while it is looked at is for the nemesis to see."""
    try:
        yield
    except (FileNotFoundError, ProcessLookupError):
        raise NotNow(f"{node.name} ended before it was struck") from None


def _names(nodes: list[Node]) -> str:
    return ", ".join(node.name for node in nodes)
