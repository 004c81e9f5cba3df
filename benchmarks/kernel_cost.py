"""What the TC program costs per packet and per frame: `python -m benchmarks.kernel_cost`, as root.

Real TCP over a veth pair between two namespaces. The kernel itself takes the time that each run of
a program took (BPF_ENABLE_STATS). What it says of a program of two instructions that runs right
behind ours on the same packets is the price of measuring and is taken off; another one runs in
front, so that it is not ours that fetches what tc itself needs into the caches. Medians.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import socket
import statistics
import struct
import time
from collections.abc import Iterator

from raft_agent import wire
from raft_agent.kernel import OBJECT_PATH, libbpf
from raft_agent.wire import FrameType
from tests.kernel import harness

_SCHED_CLS = 3  # BPF_PROG_TYPE_SCHED_CLS
_RUN_TIME = 0  # BPF_STATS_RUN_TIME of <linux/bpf.h>
_INFO_SIZE = 256
_RUN_TIME_OFFSET = 192  # of run_time_ns in struct bpf_prog_info; run_cnt follows
_LAST = 65_000  # a priority of tc
_FOREIGN_PORT = 6666
_MANY = 100
FRAME = wire.encode(FrameType.HEARTBEAT, os.urandom(24), sender=1, term=1, request_id=1)


@contextlib.contextmanager
def statistics_on() -> Iterator[None]:
    """The kernel measures programs as long as this file descriptor is open."""
    fd = libbpf.library().bpf_enable_stats(_RUN_TIME)
    if fd < 0:
        raise OSError(-fd, "can't have the kernel measure programs")
    try:
        yield
    finally:
        os.close(fd)


class Measured:
    """One program in the kernel, and the time that its runs took."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before = self._spent()

    def _spent(self) -> tuple[int, int]:
        info = ctypes.create_string_buffer(_INFO_SIZE)
        size = ctypes.c_uint32(_INFO_SIZE)
        result = libbpf.library().bpf_obj_get_info_by_fd(self._fd, info, ctypes.byref(size))
        if result < 0:
            raise OSError(-result, "can't ask the kernel about a program")
        time_ns, runs = struct.unpack_from("<QQ", info.raw, _RUN_TIME_OFFSET)
        return time_ns, runs

    def start(self) -> None:
        """From here on."""
        self._before = self._spent()

    def per_run_ns(self) -> float:
        """The mean since `start`."""
        time_ns, runs = (now - then for now, then in zip(self._spent(), self._before, strict=True))
        return time_ns / runs


def load_empty() -> int:
    """The file descriptor of a program that does nothing."""
    code = bytes.fromhex("b7000000ffffffff9500000000000000")  # r0 = TC_ACT_UNSPEC; exit
    fd: int = libbpf.library().bpf_prog_load(_SCHED_CLS, b"empty", b"GPL", code, 2, None)
    if fd < 0:
        raise OSError(-fd, "can't load an empty program")
    return fd


def exchange(left: socket.socket, right: socket.socket, there: bytes, turns: int) -> None:
    """`there` from left to right, one frame back, and again."""
    for _ in range(turns):
        left.sendall(there)
        missing = len(there)
        while missing:
            missing -= len(right.recv(1 << 20))
        right.sendall(FRAME)
        left.recv(1 << 20)


def measure(rounds: int, turns: int) -> None:
    rows: dict[tuple[str, str], list[float]] = {}
    with harness.linked() as link, statistics_on():
        nothing = {}
        for direction, host, attach_point in (
            ("egress", link.left, harness.EGRESS),
            ("ingress", link.right, harness.INGRESS),
        ):
            host.attach_fd(load_empty(), attach_point)
            behind = load_empty()
            host.attach_fd(behind, attach_point, priority=_LAST)
            nothing[direction] = Measured(behind)
        assert link.left.program is not None  # noqa: S101
        assert link.right.program is not None  # noqa: S101
        something = {
            "egress": Measured(link.left.program.program_fd("raft_egress")),
            "ingress": Measured(link.right.program.program_fd("raft_ingress")),
        }
        ours = link.connect()
        theirs = link.connect(port=_FOREIGN_PORT)
        for _ in range(rounds):
            for ends, name, frames in (
                (ours, "one frame", 1),
                (ours, "many frames", _MANY),
                (theirs, "foreign", 1),
            ):
                for program in (*nothing.values(), *something.values()):
                    program.start()
                exchange(*ends, FRAME * frames, turns)
                for direction, program in something.items():
                    gross = program.per_run_ns()
                    rows.setdefault((direction, name), []).append(
                        gross - nothing[direction].per_run_ns()
                    )
                    rows.setdefault((direction, f"{name}, gross"), []).append(gross)
    costs = {key: statistics.median(values) for key, values in rows.items()}
    for direction in ("egress", "ingress"):
        further = costs[direction, "many frames"] - costs[direction, "one frame"]
        rows_said: list[tuple[str, float, float | None, int]] = [
            ("a packet with one frame", *_pair(costs, direction, "one frame"), 400),
            ("each further frame", further / (_MANY - 1), None, 80),
            ("a foreign packet", *_pair(costs, direction, "foreign"), 80),
        ]
        for said, cost, gross_cost, bar in rows_said:
            measured = f", {gross_cost:.0f} with the measuring" if gross_cost else ""
            print(f"{direction:8} {said:24} {cost:5.0f} ns (bar: {bar}{measured})")


def _pair(costs: dict[tuple[str, str], float], direction: str, name: str) -> tuple[float, float]:
    return costs[direction, name], costs[direction, f"{name}, gross"]


def measure_loading(rounds: int) -> None:
    times_ms: list[float] = []
    cpu_ms: list[float] = []
    started_programs = []
    with harness.linked() as link:
        for _ in range(rounds):
            started, cpu = time.perf_counter(), time.process_time()
            program = harness.load()
            link.left.attach(program)
            cpu_ms.append((time.process_time() - cpu) * 1000)
            times_ms.append((time.perf_counter() - started) * 1000)
            started_programs.append(program)
    for program in started_programs:
        program.close()
    size = OBJECT_PATH.stat().st_size
    print(
        f"loaded and attached in {statistics.median(times_ms):.0f} ms (bar: 100),"
        f" of CPU time {statistics.median(cpu_ms):.0f} ms"
    )
    print(f"the object has {size:,} bytes (bar: 65,536)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turns", type=int, default=5000)
    options = parser.parse_args()
    measure(options.rounds, options.turns)
    measure_loading(options.rounds)
