"""What an operator does while a cluster is tortured: raftctl, until what was wanted is so."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto

from tests.torture.world import Node, World

PATIENCE_S = 60.0
_PAUSE_S = 0.3
_LAG = 1000


class Says(Enum):
    """What a node's note comes to."""

    WAITS = auto()
    DIFFERS = auto()
    DISPUTED = auto()
    DAMAGED = auto()


# How the notes of agents begin, as runtime/views.py and first_words.py have them. Any other is of
# something that failed.
_BEGINNINGS = {
    "its state differs from the other members'": Says.DIFFERS,
    "no majority of the members has equal states": Says.DISPUTED,
    "is taking over a snapshot": Says.WAITS,
    "the end of its log is damaged: does not stand for election until": Says.WAITS,
    "this node was removed from the cluster": Says.WAITS,
    "first start: waits for": Says.WAITS,
    "waiting to be joined": Says.WAITS,
    "asks ": Says.WAITS,
}
# The strike that may turn anything in an agent's memory. Bits that turn on a disk do not: all that
# is there has checksums.
_TURNS_STATES = "little_memory"


def says(note: str) -> Says:
    return next(
        (kind for words, kind in _BEGINNINGS.items() if note.startswith(words)), Says.DAMAGED
    )


def unexplained(world: World, node: Node, note: str) -> str | None:
    """A complaint, when the note tells of states that are not equal and no strike explains it."""
    kind = says(note)
    suspects = {Says.DIFFERS: [node], Says.DISPUTED: world.nodes}.get(kind)
    if suspects is None or any(_TURNS_STATES in each.held_by for each in suspects):
        return None
    return f"{node.name} says: {note}"


class Operator:
    """Asks any agent that runs; what is refused or not answered is asked again later."""

    def __init__(self, world: World) -> None:
        self._world = world

    def raftctl(self, node: Node | None, *words: str, timeout_s: float = 15) -> tuple[bool, str]:
        """(whether it was done, what was said); through the node's socket, or through none."""
        reach = [] if node is None else ["--socket", str(node.agent.socket_path)]
        command = [sys.executable, "-m", "raftctl.main", *reach, *words]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            return False, "no answer in time"
        return done.returncode == 0, (done.stdout + done.stderr).strip()

    def ask(self, *words: str) -> tuple[bool, str]:
        """Through whoever leads, or else somebody."""
        node = self._world.leader() or next(iter(self._world.running()), None)
        return (False, "nobody runs") if node is None else self.raftctl(node, *words)

    def join(self, node: Node, *more: str) -> None:
        """Until the node is a voter. `more`: options of `raftctl join`."""

        def is_voter() -> bool:
            if self._is_voter(node):
                return True
            self.ask("join", node.name, node.address, "--no-wait", *more)
            return self._is_voter(node)

        self.until(f"{node.name} to be a voter", is_voter)

    def retire(self, node: Node) -> None:
        """Until the node is no member, nor in use."""

        def is_gone() -> bool:
            if self._is_member(node) is False:
                return True
            self.ask("leave", node.name)
            return self._is_member(node) is False

        self.until(f"{node.name} to be no member", is_gone)
        node.kill()
        node.wipe()

    def replace_machine(self, node: Node) -> None:
        """Its disk is gone: the old member leaves, and a fresh one of the same name joins."""
        self.retire(node)
        node.start()
        self.join(node)

    def wait_moved(self, node: Node) -> None:
        """Until the configuration knows the node at its address."""

        def is_known() -> bool:
            leader = self._world.leader()
            status = self._world.statuses().get(leader.name) if leader else None
            members = status.members if status is not None else []
            return any(m.name == node.name and m.address == node.address for m in members)

        self.until(f"{node.name} to be known at {node.address}", is_known)

    def wait_well(self, node: Node) -> None:
        """Until the node is well by itself; one that is down is started."""
        told: list[str] = []

        def is_well() -> bool:
            if not node.is_running:
                _may_have_ended(node)
                node.start()
            return self._note(node, told) == "" and self._has_caught_up(node)

        self.until(f"{node.name} to be well", is_well, told)

    def mend(self, node: Node) -> None:
        """Until the node, whose files were damaged, is well: it is started, rebuilt while it says
        that something is damaged, and replaced when it can't be rebuilt."""
        told: list[str] = []

        def is_well() -> bool:
            if not node.is_running:
                _may_have_ended(node)
                done, said = self.raftctl(None, "rebuild", "--data-dir", str(node.agent.data_dir))
                told.append(said)
                node.lives += done
                if not done and len(told) > 5:
                    self.replace_machine(node)
                    return True
                node.start()
            note = self._note(node, told)
            if note and says(note) is Says.DAMAGED:
                told.append(self.raftctl(node, "rebuild", "--no-wait")[1])
                node.lives += 1
            return note == "" and self._has_caught_up(node)

        self.until(f"{node.name} to be well", is_well, told)

    def _note(self, node: Node, told: list[str]) -> str | None:
        """What it says of itself, also added to `told`; None when it does not answer."""
        status = self._world.statuses().get(node.name)
        if status is None:
            return None
        if status.note:
            told.append(status.note)
            problem = unexplained(self._world, node, status.note)
            assert problem is None, problem
        return status.note

    def _has_caught_up(self, node: Node) -> bool:
        statuses = self._world.statuses()
        if node.name not in statuses:
            return False
        committed = max(status.commit_index for status in statuses.values())
        return committed - statuses[node.name].last_applied < _LAG

    def _is_voter(self, node: Node) -> bool:
        leader = self._world.leader()
        status = self._world.statuses().get(leader.name) if leader else None
        return status is not None and node.name in status.voters

    def _is_member(self, node: Node) -> bool | None:
        """None: nobody says."""
        leader = self._world.leader()
        status = self._world.statuses().get(leader.name) if leader else None
        if status is None:
            return None
        return any(member.name == node.name for member in status.members)

    def until(self, what: str, is_so: Callable[[], bool], told: Sequence[str] = ()) -> None:
        """Ask again and again; AssertionError, with the end of what was told, when it never is."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s in vain for {what}" + (
                f"; it said: {[*told][-3:]}" if told else ""
            )
            time.sleep(_PAUSE_S)


def _may_have_ended(node: Node) -> None:
    """AssertionError when nothing explains that its agent has ended by itself."""
    status = node.reap()
    if status is not None and not node.may_end:
        last = node.agent.log_text().splitlines()[-1:]
        raise AssertionError(f"{node.name} ended by itself with status {status}: {''.join(last)}")
