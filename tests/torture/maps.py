"""The map that is exported in a run: what all machines' kernels have of it, all the time and in the
end. Its readers are this process, as any program on those machines could be.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from raft_agent.api import protocol
from raft_agent.kernel.export_layout import ExportState
from raft_agent.machine.export_types import key_type
from tests.e2e.agents import UNREACHABLE, wait_for
from tests.kernel.pinned import Maps, Story
from tests.torture.clients.exported import MAP, PREFIX
from tests.torture.history import Record
from tests.torture.world import Node, World

_LOOK_S = 0.1
_EQUAL_S = 120.0
_CAPACITY = 5000
_KEY = key_type("ipv4_prefix")


class MapWatch:
    """Looks at the maps of all machines while it is entered, unless the run does without the
    kernel's part. Where a node was emptied or rebuilt, its maps may begin anew."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._story = Story()
        self._lives: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._error: BaseException | None = None

    def __enter__(self) -> MapWatch:
        if not self._world.options.skewed:
            add = protocol.ExportAdd(1, PREFIX, MAP, "lpm_trie", "ipv4_prefix", "u32", _CAPACITY)
            wait_for("the export", lambda: self._ask(add), timeout_s=60)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _ask(self, request: protocol.Request) -> object | None:
        leader = self._world.leader()
        if leader is None:
            return None
        try:
            return leader.agent.ask(request, 10.0)
        except UNREACHABLE:
            return None

    def problems(self, records: list[Record]) -> list[str]:
        """What contradicted itself, and in whose map there is in the end something else than in the
        store. Raises what has ended the looking."""
        if self._world.options.skewed:
            return []
        if self._error is not None:
            raise self._error
        found = self._story.problems[:5] + self._compare(records)
        return found if self.compared else [*found, "nobody's maps were ever seen at one index"]

    @property
    def compared(self) -> int:
        """States of maps that were seen at two machines."""
        return self._story.compared

    def _watch(self) -> None:
        try:
            self._run()
        except BaseException as error:  # told to whoever asks for problems
            self._error = error

    def _run(self) -> None:
        while not self._stop.is_set():
            for node in self._world.nodes:
                if self._lives.setdefault(node.name, node.lives) != node.lives:
                    self._lives[node.name] = node.lives
                    self._story.forget(node.name)
                # An agent that begins has a status before it has the map.
                with suppress(OSError), _maps_of(node) as maps:
                    if maps is not None:
                        self._story.look(node.name, maps)
            time.sleep(_LOOK_S)

    def _compare(self, records: list[Record]) -> list[str]:
        end = next((r for r in records if r.kind == "end" and r.op == "keys"), None)
        last = next((r for r in records if r.kind == "end" and r.op == "messages"), None)
        if end is None or last is None:
            return []
        wanted = {
            item[0].removeprefix(PREFIX): int(item[1])
            for item in end.out
            if item[0].startswith(PREFIX)
        }
        members = [node for node in self._world.nodes if node.in_use]
        deadline = time.monotonic() + _EQUAL_S
        while found := [text for node in members if (text := _differs(node, wanted, last.index))]:
            if time.monotonic() > deadline:
                return found
            time.sleep(_LOOK_S)
        return []


@contextmanager
def _maps_of(node: Node) -> Iterator[Maps | None]:
    """None where there are none yet."""
    try:
        maps = Maps(node.pins / "default", f"{MAP}_v1")
    except OSError:
        maps = None
    try:
        yield maps
    finally:
        if maps is not None:
            maps.close()


def _differs(node: Node, wanted: dict[str, int], index: int) -> str | None:
    """What the node's map has else than `wanted`, which is the store's content at `index`."""
    with _maps_of(node) as maps:
        if maps is None:
            return f"{node.name} has no map"
        status = maps.status()
        if status.state != ExportState.READY or status.applied_index < index:
            return f"the maps of {node.name} are behind {index} or not ready: {status}"
        entries = maps.entries()
    found = {
        _KEY.decode(key).decode(): int.from_bytes(value, "little") for key, value in entries.items()
    }
    different = {key for key, _ in wanted.items() ^ found.items()}
    return f"the map of {node.name} differs in {sorted(different)[:5]}" if different else None
