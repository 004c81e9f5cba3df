"""What a node hands over to the thread that writes exported maps: real maps, a real machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from raft_agent.api.host import Failure
from raft_agent.config import load
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import Role
from raft_agent.kernel.export_jobs import Ask
from raft_agent.kernel.export_layout import STATUS_NAME, ExportState, Status
from raft_agent.kernel.typed_map import TypedMap
from raft_agent.machine.commands import AddExport, Command, Delete, Put, RemoveExport
from raft_agent.machine.exports import Export
from raft_agent.machine.machine import Machine
from raft_agent.runtime.export_side import ExportSide
from tests.kernel.exporting import expected, pins
from tests.unit.machine.batches import apply

__all__ = ["pins"]

PORTS = Export("ports/", "ports", "hash", "u32", "bytes[4]", 100_000, with_revision=True)
TIMEOUT_S = 20.0


def nothing(*_arguments: object, **_facts: object) -> None:
    """What no test here needs."""


class Side:
    """An ExportSide, and what the rest of a node would be to it."""

    def __init__(self, directory: Path, machine: Machine) -> None:
        file = directory.parent.parent / "raft.toml"
        file.write_text(
            '[server]\nnode_id = "n"\ndata_dir = "/nowhere"\n[cluster]\nbootstrap = true\n'
            f'[ebpf]\nenabled = true\npin_dir = "{directory.parent}"\n'
        )
        self.is_fit = True
        self.directory = directory
        self.machine = machine
        self.told: list[tuple[str, dict[str, int | str]]] = []
        self.node = SimpleNamespace(
            state=SimpleNamespace(current_as_of_us=0),
            current_term=3,
            leader_id=7,
            role=Role.FOLLOWER,
        )
        self.side = ExportSide(
            load(file, environ={}),
            node=cast("Node", self.node),
            machine=machine,
            propose=nothing,
            is_fit=lambda: self.is_fit,
            loop=asyncio.get_running_loop(),
            tell=lambda kind, **facts: self.told.append((kind, facts)),
        )
        self.side.start()

    async def beats(self, count: int) -> None:
        """Wait until the side has looked so often whether it may begin."""
        feed = self.side._feed
        assert feed is not None
        seen, beat = [0], feed.beat

        def counted(**facts: int) -> None:
            seen[0] += 1
            beat(**facts)

        feed.beat = counted  # type: ignore[method-assign]
        await self.until(lambda: seen[0] >= count)

    def apply(self, *commands: Command) -> None:
        apply(self.machine, *commands)
        self.side.applied(self.machine.last_applied)

    def status(self) -> Status:
        if not (self.directory / STATUS_NAME).exists():
            return Status()
        found = TypedMap.open(self.directory / STATUS_NAME)
        try:
            value = found.lookup(bytes(4))
        finally:
            found.close()
        return Status() if value is None else Status.decode(value)

    def kernel(self, name: str) -> dict[bytes, bytes]:
        try:
            found = TypedMap.open(self.directory / name)
        except FileNotFoundError:
            return {}
        try:
            return dict(item for piece in found.scan() for item in piece)
        finally:
            found.close()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not holds():
                await asyncio.sleep(0.005)

    def is_at_the_end(self) -> bool:
        status = self.status()
        is_there = status.applied_index == self.machine.last_applied
        return is_there and status.state == ExportState.READY


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_maps_follow_the_machine_from_its_state_of_the_start_on(pins: Path) -> None:
    async def check() -> None:
        machine = Machine()
        apply(machine, AddExport(PORTS), *[Put(f"ports/{n}", b"x") for n in range(3000)])
        side = Side(pins, machine)
        # Some of it in the middle of handing over.
        await asyncio.sleep(0)
        for number in range(40):
            side.apply(Put(f"ports/{number * 70}", b"new"), Delete(f"ports/{number * 70 + 1}"))
            await asyncio.sleep(0)
        await side.until(side.is_at_the_end)
        assert side.kernel("ports_v1") == expected(machine, "ports")
        await side.side.stop()
        assert side.status().state == ExportState.STOPPED

    run(check())


def test_an_agent_that_is_ended_while_it_hands_over_leaves_whole_maps(pins: Path) -> None:
    async def check() -> None:
        machine = Machine()
        apply(machine, AddExport(PORTS), *[Put(f"ports/{n}", b"x") for n in range(3000)])
        side = Side(pins, machine)
        await side.until(side.is_at_the_end)
        before = side.kernel("ports_v1")
        side.side.adopted()
        await asyncio.sleep(0)
        await side.side.stop()
        assert side.kernel("ports_v1") == before
        assert side.status().applied_index == machine.last_applied

    run(check())


def test_what_is_exported_anew_within_one_turn_is_read_anew(pins: Path) -> None:
    async def check() -> None:
        side = Side(pins, Machine())
        side.apply(AddExport(PORTS), Put("ports/1", b"1"))
        await side.until(side.is_at_the_end)
        side.apply(
            Put("ports/2", b"2"), RemoveExport("ports"), Put("ports/3", b"3"), AddExport(PORTS)
        )
        await side.until(lambda: len(side.kernel("ports_v1")) == 3)
        assert side.kernel("ports_v1") == expected(side.machine, "ports")
        wider = msgspec.structs.replace(PORTS, value="u64")
        side.apply(Put("ports/4", b"4"), RemoveExport("ports"), AddExport(wider))
        side.apply(Put("ports/5", b"5"))
        await side.until(lambda: (pins / "ports_v2").exists() and side.is_at_the_end())
        await side.until(lambda: len(side.kernel("ports_v2")) == 5)
        assert side.kernel("ports_v2") == expected(side.machine, "ports")
        assert not (pins / "ports_v1").exists()
        assert side.told == []
        await side.side.stop()

    run(check())


def test_a_log_that_is_behind_the_maps_waits_until_it_has_caught_up(pins: Path) -> None:
    async def check() -> None:
        machine = Machine()
        first = Side(pins, machine)
        first.apply(AddExport(PORTS), Put("ports/1", b"1"))
        first.apply(Put("ports/2", b"2"))
        await first.until(first.is_at_the_end)
        await first.side.stop()
        before, index = first.kernel("ports_v1"), machine.last_applied
        behind = Machine()
        second = Side(pins, behind)
        await second.until(lambda: second.status().state == ExportState.FILLING)
        second.apply(AddExport(PORTS), Put("ports/1", b"1"))
        await second.beats(3)
        assert second.kernel("ports_v1") == before
        assert second.status().applied_index == index
        second.apply(Put("ports/2", b"2"))
        await second.until(second.is_at_the_end)
        assert second.kernel("ports_v1") == before
        await second.side.stop()
        # A log of another cluster never gets there: what counts is that the node is current.
        other = Side(pins, Machine())
        other.node.state.current_as_of_us = 5
        await other.until(lambda: not (pins / "ports_v1").exists())
        await other.side.stop()

    run(check())


def test_a_state_that_differs_from_the_others_is_not_fresh(pins: Path) -> None:
    async def check() -> None:
        side = Side(pins, Machine())
        side.node.state.current_as_of_us = 1 << 40
        side.apply(AddExport(PORTS))
        await side.until(lambda: side.status().fresh_until_ns > 0)
        side.is_fit = False
        await side.until(lambda: side.status().fresh_until_ns == 0)
        await side.side.stop()

    run(check())


def test_a_state_that_differs_from_the_others_does_not_take_maps_back(pins: Path) -> None:
    async def check() -> None:
        machine = Machine()
        first = Side(pins, machine)
        first.apply(AddExport(PORTS), Put("ports/1", b"1"), Put("ports/2", b"2"))
        await first.until(first.is_at_the_end)
        await first.side.stop()
        before, index = first.kernel("ports_v1"), machine.last_applied
        # Nothing is applied to such a state any more, but the node goes on in its log.
        wrong = Side(pins, Machine())
        wrong.is_fit = False
        wrong.node.state.current_as_of_us = 1 << 40
        await wrong.until(lambda: wrong.status().state == ExportState.FILLING)
        await wrong.beats(3)
        assert wrong.kernel("ports_v1") == before
        assert wrong.status().applied_index == index
        await wrong.side.stop()

    run(check())


def test_what_waits_is_bounded_and_the_maps_are_right_afterwards(
    pins: Path,
) -> None:
    async def check() -> None:
        side = Side(pins, Machine())
        feed = side.side._feed
        assert feed is not None
        feed.max_waiting, feed.few_waiting = 100, 50
        side.apply(AddExport(PORTS))
        await side.until(side.is_at_the_end)
        go_on = threading.Event()
        exporter = side.side._exporter
        assert exporter is not None
        exporter.put(Ask("none", 1, lambda *_: go_on.wait(TIMEOUT_S) and None))
        for number in range(500):
            side.apply(Put(f"ports/{number}", b"x"))
        assert feed.waiting <= 101
        assert side.machine.exports.changes == []
        assert [kind for kind, _ in side.told] == ["export_behind"]
        go_on.set()
        await side.until(side.is_at_the_end)
        assert side.kernel("ports_v1") == expected(side.machine, "ports")
        await side.side.stop()

    run(check())


def test_a_node_without_maps_says_so(tmp_path: Path) -> None:
    async def check() -> None:
        file = tmp_path / "raft.toml"
        file.write_text('[server]\nnode_id = "n"\ndata_dir = "/nowhere"\n')
        machine = Machine()
        loop = asyncio.get_running_loop()
        node = cast("Node", SimpleNamespace())
        side = ExportSide(
            load(file, environ={}),
            node=node,
            machine=machine,
            propose=nothing,
            is_fit=lambda: True,
            loop=loop,
            tell=nothing,
        )
        side.start()
        apply(machine, AddExport(PORTS))
        side.applied(machine.last_applied)
        listed = side.listing()
        assert (listed.state, listed.exports[0].map, listed.exports[0].path) == ("off", "ports", "")
        assert "ebpf.pin_dir" in listed.reason
        refusal = side.watch("ports", lambda _: None)
        assert isinstance(refusal, Failure)
        assert "keeps no exported maps" in refusal.error
        answers: list[object] = []
        side.dump("other", 1, answers.append)
        (missing,) = answers
        assert isinstance(missing, Failure)
        assert "No map other is exported" in missing.error
        await side.stop()

    run(check())
