"""A world for tests of those who act in it: one node, whose agent is a Python that sleeps."""

from __future__ import annotations

from pathlib import Path

from raft_agent.api import protocol
from tests.e2e.agents import Agent
from tests.torture.disk import Disk
from tests.torture.operating import Operator
from tests.torture.world import Node, Options, World


class Obedient(Disk):
    """Notes what it is told."""

    can_fail = True

    def __init__(self, path: Path) -> None:
        super().__init__(path, 1)
        self.commands: list[str] = []

    def command(self, words: str) -> str:
        self.commands.append(words)
        return "done"


class Stage(World):
    """The node says what stands in `notes`, one after the other, and then that all is well.
    `answers`: it says something at all. It counts as running also when it has just ended, as for
    whoever looked a moment ago."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.options = Options(1)
        self.notes: list[str] = []
        self.answers = True
        self._helpers = []
        agent = Agent("node-01", directory / "node-01", "", ())
        agent.program = ("-c", "import time; time.sleep(600)")
        self.disk = Obedient(directory / "disk")
        addresses = ("10.0.0.1", "10.0.0.2")
        self.one = Node(
            "node-01",
            "nowhere",
            addresses=addresses,
            agent=agent,
            disk=self.disk,
            clock=None,
            pins=directory,
        )
        self.nodes = [self.one]

    def running(self) -> list[Node]:
        return self.nodes

    def leader(self) -> Node:
        return self.one

    def statuses(self) -> dict[str, protocol.StatusResult]:
        if not self.answers or not self.one.is_running:
            return {}
        status = protocol.StatusResult(
            node_id="node-01",
            role="leader",
            term=1,
            commit_index=5,
            last_applied=5,
            leader="node-01",
            peers=[],
            voters=["node-01"],
            learners=[],
            members=[],
            cluster_id="c",
            version="",
            ebpf=protocol.EbpfStatus(),
            note=self.notes.pop(0) if self.notes else "",
        )
        return {"node-01": status}


class Asked(Operator):
    """Does no command, but notes it and answers what stands in `answers`, one after the other, and
    then that it is done."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.commands: list[str] = []
        self.answers: list[tuple[bool, str]] = []

    def raftctl(
        self,
        node: Node | None,  # noqa: ARG002
        *words: str,
        timeout_s: float = 15,  # noqa: ARG002
    ) -> tuple[bool, str]:
        self.commands.append(" ".join(words[:2]))
        return self.answers.pop(0) if self.answers else (True, "done")


def end_by_itself(node: Node) -> None:
    process = node.agent.process
    assert process is not None
    process.kill()
    process.wait()
