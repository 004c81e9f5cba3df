"""Exported maps: how soon a write is in the followers' kernels, and what maps cost. Needs root:
`python -m benchmarks.exports`. The times are of everything that runs on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from benchmarks.agents import PATIENT, Agents, agents, end_in_order
from raft_agent.api.client import Client
from raft_agent.kernel import libbpf
from raft_agent.kernel.export_layout import STATUS_NAME, Status, btf_of, form_of
from raft_agent.kernel.reader import ExportedMap
from raft_agent.kernel.typed_map import RDONLY, TypedMap
from raft_agent.machine.export_types import key_type, value_type
from raft_agent.machine.exports import Export, Shape
from tests.kernel.testrun import run_program

ROOT = Path(__file__).resolve().parents[1]
DENY = Export("fw/deny/", "deny_v4", "lpm_trie", "ipv4_prefix", "u32", 20_000)
PORTS = Export("ports/", "ports", "hash", "u32", "u32", 20_000)
_WAIT_S = 20.0
_LOOK_EVERY_S = 0.0003


def shape_of(export: Export) -> Shape:
    return Shape(export, 1, key_type(export.key), value_type(export.value))


@contextmanager
def bpf_file_system() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="raft-bench-bpf-"))
    subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)  # noqa: S603, S607
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S603, S607
        folder.rmdir()


def in_us(seconds: float) -> str:
    return f"{seconds * 1e6:.2f} us"


# --- how soon -------------------------------------------------------------------------------------


def look(path: Path, seen: Any, is_ready: Event, stop: Event) -> None:
    """When each index was in this node's maps: (time, index) as it moves."""
    status_map = TypedMap.open(path, flags=RDONLY)
    last = 0
    moves = []
    is_ready.set()
    while not stop.is_set():
        value = status_map.lookup(bytes(4))
        now = time.monotonic()
        index = Status.decode(value).applied_index if value is not None else 0
        if index != last:
            moves.append((now, index))
            last = index
        time.sleep(_LOOK_EVERY_S)
    seen.put(moves)


def hear(socket: Path, seen: Any, is_ready: Event, stop: Event) -> None:
    """The same of a watch at this node, which has no part in the maps: what it takes by itself that
    a follower knows of a write while the machine does other things."""

    async def follow() -> None:
        async with Client(socket) as client, client.watch_keys("ports/", prefix=True) as watch:
            is_ready.set()
            async for event in watch:
                if event.index:
                    moves.append((time.monotonic(), event.index))

    async def until_stopped() -> None:
        task = asyncio.ensure_future(follow())
        while not stop.is_set():
            await asyncio.sleep(0.05)
        task.cancel()

    moves: list[tuple[float, int]] = []
    asyncio.run(until_stopped())
    seen.put(moves)


async def write(socket: Path, count: int, rate: float) -> list[tuple[float, int]]:
    """(time of the acknowledgement, index) of so many puts, at `rate` a second."""
    acks: list[tuple[float, int]] = []
    async with Client(socket) as client:

        async def put(number: int) -> None:
            done = await client.put(f"ports/{number % 10_000}", b"%d" % number)
            acks.append((time.monotonic(), done.index))

        await put(0)
        acks.clear()
        loop, waiting = asyncio.get_running_loop(), []
        began = loop.time()
        for number in range(count):
            await asyncio.sleep(max(began + number / rate - loop.time(), 0))
            waiting.append(asyncio.ensure_future(put(number)))
        await asyncio.gather(*waiting)
    return acks


def delays(cluster: Agents, pins: Path, count: int, rate: float) -> dict[str, list[float]]:
    """From each acknowledgement until it was in the maps of each follower, and until a watch there
    told it, in seconds; below 0: it was there first."""
    leader = cluster.leader()
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    observers = []
    for name in cluster.names:
        if name == leader:
            continue
        status = pins / name / "default" / STATUS_NAME
        for what, observe, place in (
            ("in the map", look, status),
            ("told by a watch", hear, cluster.socket(name)),
        ):
            is_ready, seen = context.Event(), context.Queue()
            process = context.Process(
                target=observe, args=(place, seen, is_ready, stop), daemon=True
            )
            process.start()
            is_ready.wait(_WAIT_S)
            observers.append((what, seen))
    acks = asyncio.run(write(cluster.socket(leader), count, rate))
    time.sleep(1)
    stop.set()
    found: dict[str, list[float]] = {}
    for what, seen in observers:
        moves = seen.get(timeout=_WAIT_S)
        indexes = [index for _, index in moves]
        for acked, index in acks:
            at = bisect_left(indexes, index)
            if at == len(moves):
                raise RuntimeError(f"index {index} never came")
            found.setdefault(what, []).append(moves[at][0] - acked)
    return found


def say_delays(what: str, found: Sequence[float]) -> None:
    ordered = sorted(found)
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    print(
        f"{what}: p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms, "
        f"longest {ordered[-1] * 1e3:.2f} ms (of {len(ordered)})",
        flush=True,
    )


# --- what maps cost -------------------------------------------------------------------------------


def update_costs(rounds: int) -> None:
    """Of 10,000 entries, each another value for a key that is there."""
    for export, key in ((PORTS, "{}"), (DENY, "10.{}.{}.0/24")):
        shape = shape_of(export)
        made = TypedMap.create(export.map, form_of(shape), *btf_of(shape))
        names = [key.format(n // 256, n % 256) for n in range(10_000)]
        took = []
        for turn in range(rounds + 1):
            entries = [
                (shape.key.encode(name.encode()), shape.value.encode(b"%d" % turn))
                for name in names
            ]
            began = time.perf_counter()
            made.update_many(entries)
            took.append((time.perf_counter() - began) / len(entries))
        made.close()
        median, lowest = statistics.median(took[1:]), min(took[1:])
        print(
            f"update, {export.kind}: {in_us(median)} an entry, {in_us(lowest)} at best", flush=True
        )


def bpf_read_ns(maps: Path, rounds: int) -> list[int]:
    """What the deny list's program takes for a packet from an address that is denied: it looks at
    the status, at the clock, and at the map."""
    bpf = libbpf.library()
    bpf.bpf_map__reuse_fd.argtypes = [ctypes.c_void_p, ctypes.c_int]
    bpf.bpf_object__next_map.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    with tempfile.TemporaryDirectory() as made:
        program = Path(made) / "deny.bpf.o"
        example = ROOT / "examples" / "deny-list"
        subprocess.run(  # noqa: S603
            ["make", "-s", "-C", example, f"OBJECT={program}"],  # noqa: S607
            check=True,
        )
        handle = bpf.bpf_object__open_file(os.fsencode(program), None)
    found = bpf.bpf_object__next_map(handle, None)
    while found:
        name = bpf.bpf_map__name(found).decode()
        if "." not in name:
            bpf.bpf_map__set_max_entries.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
            pinned = TypedMap.open(maps / name)
            bpf.bpf_map__reuse_fd(found, pinned.fd)
            pinned.close()
        found = bpf.bpf_object__next_map(handle, found)
    if bpf.bpf_object__load(handle):
        sys.exit("the kernel does not take the program")
    fd = bpf.bpf_program__fd(bpf.bpf_object__next_program(handle, None))
    source = bytes((10, 0, 7, 9))
    packet = bytes(12) + b"\x08\x00" + bytes((0x45,)) + bytes(11) + source + bytes(26)
    took = []
    for _ in range(rounds):
        verdict, took_ns = run_program(fd, packet, repeat=1_000_000)
        if verdict != 1:
            sys.exit(f"the program says {verdict} and not 1, XDP_DROP")
        took.append(took_ns)
    bpf.bpf_object__close(handle)
    return took


def python_read_s(maps: Path, rounds: int) -> list[float]:
    """A read by ExportedMap, any and a fresh one."""
    took = []
    with ExportedMap(maps, "ports", key="u32", value="u32") as ports:
        for _ in range(rounds):
            began = time.perf_counter()
            for _ in range(20_000):
                ports.get("77")
            took.append((time.perf_counter() - began) / 20_000)
    return took


def read_costs(cluster: Agents, pins: Path, rounds: int) -> None:
    """While the agents run, and while one stands still."""
    name = cluster.follower()
    maps = pins / name / "default"
    took = python_read_s(maps, rounds)
    print(f"ExportedMap.get: {in_us(statistics.median(took))}, {in_us(min(took))} at best")
    took_ns = bpf_read_ns(maps, rounds)
    print(f"the deny list's program: {statistics.median(took_ns)} ns, {min(took_ns)} at best")
    os.kill(cluster.pid(name), signal.SIGSTOP)
    try:
        took = python_read_s(maps, rounds)
        print(f"  its agent stopped: {in_us(statistics.median(took))}, {in_us(min(took))} at best")
    finally:
        os.kill(cluster.pid(name), signal.SIGCONT)


def wait_for_maps(cluster: Agents, pins: Path) -> None:
    deadline = time.monotonic() + _WAIT_S
    paths = [
        pins / name / "default" / f"{export.map}_v1"
        for name in cluster.names
        for export in (PORTS, DENY)
    ]
    while not all(path.exists() for path in paths):
        if time.monotonic() > deadline:
            raise TimeoutError("no maps")
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of writes at each rate")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    end_in_order()
    with bpf_file_system() as pins:
        extra = f'{PATIENT}[ebpf]\nenabled = true\ninterface = "lo"\npin_dir = "{pins}/NAME"\n'
        for export in (PORTS, DENY):
            extra += f'[[ebpf.export]]\nprefix = "{export.prefix}"\nmap = "{export.map}"\n'
            extra += f'kind = "{export.kind}"\nkey = "{export.key}"\nvalue = "{export.value}"\n'
            extra += "max_entries = 10000\n"
        with agents(3, extra=extra) as cluster:
            wait_for_maps(cluster, pins)
            leader = cluster.leader()
            cluster.raftctl(leader, "propose", "put", "fw/deny/10.0.7.0/24", "1")
            for rate in (10, 1000):
                count = int(options.seconds * rate)
                for what, found in delays(cluster, pins, count, rate).items():
                    say_delays(f"{rate} writes a second, {what}", found)
            read_costs(cluster, pins, options.rounds)
    update_costs(options.rounds)


if __name__ == "__main__":
    main()
