"""How long a snapshot keeps the event loop waiting: `python benchmarks/snapshot_pause.py`.

One agent, alone, with a million keys; a task that wants to run every millisecond notes how late it
is, without a snapshot, while one is taken, and while writes go on beside that.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import socket
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from raft_agent.config import load
from raft_agent.logs import LogContext
from raft_agent.machine.commands import Put
from raft_agent.runtime.agent import Agent
from raft_agent.runtime.service import _quiet_garbage_collector

_TICK_S = 0.001
_IN_FLIGHT = 1000


class Lateness:
    """How late a task was that wanted to run every _TICK_S; in milliseconds."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            wanted = time.perf_counter() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self.late_ms.append((time.perf_counter() - wanted) * 1000)

    def stop(self) -> str:
        self._task.cancel()
        late = sorted(self.late_ms)
        return (
            f"{len(late)} ticks, median {statistics.median(late):.2f} ms late, "
            f"99.9 % {late[int(len(late) * 0.999)]:.2f} ms, longest {late[-1]:.2f} ms"
        )


async def put_many(agent: Agent, first: int, last: int, value: bytes) -> None:
    loop = asyncio.get_running_loop()
    numbers = iter(range(first, last))

    async def some() -> None:
        for number in numbers:
            done: asyncio.Future[None] = loop.create_future()
            command = Put(f"key-{number:07}", value)
            agent.front.propose([command], lambda _, done=done: done.set_result(None))
            await done

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


async def run(directory: Path, keys: int, value_bytes: int) -> None:
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
    await put_many(agent, 0, keys, b"v" * value_bytes)
    _quiet_garbage_collector()
    print(f"{agent.machine.key_count()} keys with values of {value_bytes} bytes")
    idle = Lateness()
    await asyncio.sleep(5)
    print(f"no snapshot:               {idle.stop()}")
    quiet = Lateness()
    took_s = await take_snapshot(agent)
    print(f"a snapshot in {took_s:6.2f} s:      {quiet.stop()}")
    idle = Lateness()
    await put_many(agent, 0, 50_000, b"w" * value_bytes)
    print(f"writes, no snapshot:       {idle.stop()}")
    busy = Lateness()
    writing = asyncio.create_task(put_many(agent, 0, keys, b"x" * value_bytes))
    took_s = await take_snapshot(agent)
    print(f"a snapshot beside writes in {took_s:.2f} s: {busy.stop()}")
    writing.cancel()
    await agent.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/snapshot_pause.py", description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value-bytes", type=int, default=1024)
    arguments = parser.parse_args()
    gc.disable()
    with tempfile.TemporaryDirectory(prefix="raft-bench-") as directory:
        uvloop.run(run(Path(directory), arguments.keys, arguments.value_bytes))


if __name__ == "__main__":
    main()
