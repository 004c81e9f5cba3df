"""Exported maps as other programs see them, and whether those of all nodes tell one story."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from raft_agent.kernel.export_layout import STATUS_NAME, Status
from raft_agent.kernel.typed_map import TypedMap
from raft_agent.platform import boot_time_ns


class Maps:
    """One node's status and one of its maps, as any program on its machine sees them."""

    def __init__(self, directory: Path, name: str = "deny_v4_v1") -> None:
        self._place = directory / name
        self._status = TypedMap.open(directory / STATUS_NAME)

    def status(self) -> Status:
        value = self._status.lookup(bytes(4))
        assert value is not None
        return Status.decode(value)

    def entries(self) -> dict[bytes, bytes]:
        opened = TypedMap.open(self._place)
        try:
            return dict(item for piece in opened.scan() for item in piece)
        finally:
            opened.close()

    def at_one_index(self) -> tuple[int, dict[bytes, bytes]] | None:
        """What is there and the index that it is of; None when that moved meanwhile."""
        before = self.status()
        found = self.entries()
        after = self.status()
        numbers = {
            *(before.applied_index, before.writing_index),
            *(after.applied_index, after.writing_index),
        }
        return (numbers.pop(), found) if len(numbers) == 1 else None

    def is_fresh(self) -> bool:
        return boot_time_ns() < self.status().fresh_until_ns

    def close(self) -> None:
        self._status.close()


class Story:
    """What was seen in all nodes' maps. `problems`: what contradicts it; `looks`: at how many
    states of a map, and `compared`: how many of them had been seen at this index before."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._seen: dict[int, dict[bytes, bytes]] = {}
        self.problems: list[str] = []
        self.compared = 0

    def forget(self, name: str) -> None:
        """The node begins anew, as one with nothing does."""
        self._last.pop(name, None)

    def look(self, name: str, maps: Maps) -> None:
        found = maps.at_one_index()
        index = maps.status().applied_index
        if index < self._last.get(name, 0):
            self.problems.append(f"{name} went back from {self._last[name]} to {index}")
        self._last[name] = max(index, self._last.get(name, 0))
        if found is None:
            return
        index, entries = found
        if index in self._seen:
            self.compared += 1
        if self._seen.setdefault(index, entries) != entries:
            self.problems.append(f"the maps of {name} are others at index {index}")


class Checker(Story):
    """Looks at all nodes' maps all the time."""

    def __init__(self, maps: dict[str, Maps]) -> None:
        super().__init__()
        self._maps = maps
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Checker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for name, maps in self._maps.items():
                self.look(name, maps)
            time.sleep(0.002)
