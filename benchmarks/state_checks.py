"""What comparing states costs: per batch that is applied, and per comparison of a large state.

`python -m benchmarks.state_checks [--keys N]`. All figures are processor time, so other work on the
machine matters little; pairs alternate.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable

from raft_agent.consensus.batch import BatchKind, encode
from raft_agent.machine.audit import StateDigest, Trail
from raft_agent.machine.blocks import encode_block
from raft_agent.machine.commands import Put, encode_commands, join_commands
from raft_agent.machine.machine import Machine

_ROUNDS = 15
_SLICE_ITEMS = 250


def apply(machine: Machine, keys: range, value: bytes) -> None:
    puts = [Put(f"key-{key:08}", value) for key in keys]
    payload = join_commands(1, len(puts), [encode_commands(puts)])
    machine.apply(encode(BatchKind.COMMANDS, machine.last_applied + 1, 1, len(puts), payload))


def batch_ns(machine: Machine, batches: int, size: int) -> float:
    """Processor time of applying one batch of `size` puts of 256 bytes."""
    payloads = []
    for number in range(batches):
        puts = [Put(f"key-{number % 97:08}-{place}", bytes(256)) for place in range(size)]
        payload = join_commands(1, size, [encode_commands(puts)])
        first = machine.last_applied + 1 + number * size
        payloads.append(encode(BatchKind.COMMANDS, first, 1, size, payload))
    began = time.process_time_ns()
    for batch in payloads:
        machine.apply(batch)
    return (time.process_time_ns() - began) / batches


def compare_batches() -> None:
    for size in (1, 100):
        with_trail, without = Machine(), Machine()
        with_trail._trail = Trail()
        differences, shares = [], []
        for turn in range(_ROUNDS):
            order = (with_trail, without) if turn % 2 else (without, with_trail)
            took = {id(one): batch_ns(one, 20_000 // size, size) for one in order}
            differences.append(took[id(with_trail)] - took[id(without)])
            shares.append(took[id(with_trail)] / took[id(without)] - 1)
        print(
            f"a batch of {size}: {statistics.median(differences):.0f} ns more "
            f"({100 * statistics.median(shares):.1f} %)"
        )


def walk(machine: Machine, between: Callable[[], None]) -> tuple[float, float, float]:
    """(seconds in all, median and longest slice in ms), of one comparison's reading."""
    view, digest = machine.begin_snapshot(), StateDigest()
    slices = []
    while True:
        began = time.process_time_ns()
        portion = view.next_items(_SLICE_ITEMS)
        if portion is None:
            break
        digest.add(portion, encode_block(portion))
        slices.append((time.process_time_ns() - began) / 1e6)
        between()
    view.close()
    return sum(slices) / 1e3, statistics.median(slices), max(slices)


def compare_writes(machine: Machine, keys: int) -> None:
    """A write while a view is open remembers what the key was."""
    shut: list[float] = []
    opened: list[float] = []
    for turn in range(_ROUNDS):
        for is_open in (True, False) if turn % 2 else (False, True):
            view = machine.begin_snapshot() if is_open else None
            start = (turn * 20_000) % keys
            began = time.process_time_ns()
            apply(machine, range(start, start + 10_000), bytes(256))
            took = (time.process_time_ns() - began) / 10_000
            (opened if is_open else shut).append(took)
            if view is not None:
                view.close()
    print(
        f"a put: {statistics.median(shut):.0f} ns, while a state is being read "
        f"{statistics.median(opened):.0f} ns"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    keys = parser.parse_args().keys
    compare_batches()
    machine = Machine()
    for start in range(0, keys, 1000):
        apply(machine, range(start, min(start + 1000, keys)), bytes(256))
    gc.collect()
    gc.freeze()
    for _ in range(3):
        seconds, median_ms, longest_ms = walk(machine, lambda: None)
        print(
            f"{keys} keys: {seconds:.2f} s of the processor, a slice {median_ms:.2f} ms, "
            f"the longest {longest_ms:.2f} ms"
        )
    compare_writes(machine, keys)


if __name__ == "__main__":
    main()
