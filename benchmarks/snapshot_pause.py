"""How long a snapshot keeps the event loop waiting: `python -m benchmarks.snapshot_pause`.

One agent, alone, with a million keys; a task that wants to run every millisecond notes how late it
is: when nothing goes on, while a snapshot is taken, while writes go on, and while both do. The last
two take turns, so that what else the machine does meets both. Where Linux tells it, ticks in which
a thread of the agent had to wait for a processor are counted apart: in those the neighbours have a
part.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from raft_agent.config import load
from raft_agent.logs import LogContext
from raft_agent.machine.commands import Put
from raft_agent.main import _SWITCH_INTERVAL_S
from raft_agent.runtime.agent import Agent
from raft_agent.runtime.service import _quiet_garbage_collector

_TICK_S = 0.001
_IN_FLIGHT = 1000
_STRIDE = 7919  # a prime number
_DISTURBED_NS = 500_000


def waited_ns() -> dict[str, int]:
    """For how long each thread has waited for a processor (sched-stats.rst); {} where that is not
    told."""
    waited: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():
            # A thread may end meanwhile.
            with contextlib.suppress(OSError):
                waited[thread.name] = int((thread / "schedstat").read_text().split()[1])
    return waited


class Lateness:
    """How late a task was that wanted to run every _TICK_S, in milliseconds; `undisturbed`: when no
    thread of the process waited for a processor meanwhile."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self.undisturbed_ms: list[float] = []
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        waited = waited_ns()
        while True:
            wanted = time.perf_counter() + _TICK_S
            await asyncio.sleep(_TICK_S)
            late_ms = (time.perf_counter() - wanted) * 1000
            before, waited = waited, waited_ns()
            self.late_ms.append(late_ms)
            if sum(ns - before.get(thread, 0) for thread, ns in waited.items()) < _DISTURBED_NS:
                self.undisturbed_ms.append(late_ms)

    def stop(self) -> Lateness:
        self._task.cancel()
        return self

    def __add__(self, other: Lateness) -> Lateness:
        both = object.__new__(Lateness)
        both.late_ms = self.late_ms + other.late_ms
        both.undisturbed_ms = self.undisturbed_ms + other.undisturbed_ms
        return both

    def __str__(self) -> str:
        return f"{_quantiles(self.late_ms)}; undisturbed {_quantiles(self.undisturbed_ms)}"


def _quantiles(late_ms: list[float]) -> str:
    if not late_ms:
        return "no tick"
    late = sorted(late_ms)
    return (
        f"{len(late)} ticks, median {statistics.median(late):.1f} ms late, "
        f"99 % {late[int(len(late) * 0.99)]:.1f}, 99.9 % {late[int(len(late) * 0.999)]:.1f}, "
        f"longest {late[-1]:.1f}"
    )


class Writes:
    """Puts values of `value_bytes` to all keys, again and again, with _IN_FLIGHT of them under way.
    In no order, so that many of them meet keys which a snapshot has still before it."""

    def __init__(self, agent: Agent, keys: int, value_bytes: int) -> None:
        self.count = 0
        self._agent = agent
        self._keys = keys
        self._value = b"w" * value_bytes
        self._stopped = False
        self._tasks = [asyncio.create_task(self._write()) for _ in range(_IN_FLIGHT)]

    async def _write(self) -> None:
        while not self._stopped:
            self.count += 1
            number = self.count * _STRIDE % self._keys
            await put(self._agent, number, self._value)

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)


async def put(agent: Agent, number: int, value: bytes) -> None:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    command = Put(f"key-{number:07}", value)
    agent.front.propose([command], lambda _: done.set_result(None))
    await done


async def put_all(agent: Agent, keys: int, value: bytes) -> None:
    numbers = iter(range(keys))

    async def some() -> None:
        for number in numbers:
            await put(agent, number, value)

    await asyncio.gather(*(some() for _ in range(_IN_FLIGHT)))


async def take_snapshot(agent: Agent) -> float:
    """Have one taken; how many seconds it took."""
    before = agent.node.state.snapshot
    began = time.perf_counter()
    agent._snapshotter.take()
    while agent.node.state.snapshot is before:
        await asyncio.sleep(0.01)
    return time.perf_counter() - began


def free_port() -> int:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
    return port


async def run(directory: Path, keys: int, value_bytes: int, rounds: int) -> None:
    path = directory / "raft.toml"
    path.write_text(
        f'[server]\nnode_id = "alone"\nlisten_addr = "127.0.0.1:{free_port()}"\n'
        f'data_dir = "{directory}/data"\n'
        f'ipc_socket = "{directory}/ipc.sock"\n'
        "[cluster]\nbootstrap = true\n[storage]\nsnapshot_log_mib = 1000000\n"
        "snapshot_entries = 1000000000\n"
    )
    agent = Agent(load(path), LogContext(node="alone"))
    await agent.start()
    while not agent.front.is_leader():
        await asyncio.sleep(0.01)
    await put_all(agent, keys, b"v" * value_bytes)
    _quiet_garbage_collector()
    print(f"{agent.machine.key_count()} keys with values of {value_bytes} bytes")
    idle = Lateness()
    await asyncio.sleep(5)
    print(f"no snapshot: {idle.stop()}")
    quiet = Lateness()
    took_s = await take_snapshot(agent)
    print(f"a snapshot in {took_s:.2f} s: {quiet.stop()}")
    alone, beside = [], []
    for number in range(1, rounds + 1):
        writes = Writes(agent, keys, value_bytes)
        lateness = Lateness()
        took_s = await take_snapshot(agent)
        beside.append(lateness.stop())
        print(f"round {number}, a snapshot beside writes in {took_s:.2f} s: {lateness}")
        lateness = Lateness()
        await asyncio.sleep(took_s)
        alone.append(lateness.stop())
        print(f"round {number}, writes alone: {lateness}")
        await writes.stop()
    print(f"all with a snapshot: {sum(beside[1:], beside[0])}")
    print(f"all without one:     {sum(alone[1:], alone[0])}")
    await agent.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.snapshot_pause", description=__doc__
    )
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value-bytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    gc.disable()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    with tempfile.TemporaryDirectory(prefix="raft-bench-") as directory:
        uvloop.run(run(Path(directory), arguments.keys, arguments.value_bytes, arguments.rounds))


if __name__ == "__main__":
    main()
