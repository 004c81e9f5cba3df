"""One PySyncObj node for compare.py: `pysyncobj_node.py SELF OTHER…`, addresses as host:port.

Says "leader HOST:PORT" once there is one. A line "run SECONDS IN_FLIGHT KEY_BYTES VALUE_BYTES" has
it write from within, which spares PySyncObj a client; the answer is a line of JSON. It ends with
its standard input. Without a journal, which is PySyncObj's default, nothing is written to disk.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import threading
import time

from pysyncobj import SyncObj
from pysyncobj.batteries import ReplDict

_WARM_UP_S = 1.0


def run(store: ReplDict, seconds: float, in_flight: int, key_size: int, value_size: int) -> str:
    """A closed loop of `in_flight` writes."""
    value = "v" * value_size
    keys = itertools.cycle([f"{number:0{key_size}d}" for number in range(10_000)])
    latencies: list[float] = []
    errors = 0
    begin = time.perf_counter() + _WARM_UP_S
    end = begin + seconds
    left = in_flight
    finished = threading.Event()

    def write() -> None:
        sent = time.perf_counter()

        def done(_result: object, error: int) -> None:
            nonlocal errors, left
            now = time.perf_counter()
            if error:
                errors += 1
            elif begin <= now < end:
                latencies.append(now - sent)
            if now < end:
                write()
            else:
                left -= 1
                if not left:
                    finished.set()

        store.set(next(keys), value, callback=done)

    for _ in range(in_flight):
        write()
    finished.wait(seconds + 30)
    return json.dumps(
        {
            "ops_per_s": len(latencies) / seconds,
            "p50_ms": statistics.median(latencies) * 1000 if latencies else None,
            "errors": errors,
            "unknown": left,
        }
    )


def main() -> None:
    own, *others = sys.argv[1:]
    store = ReplDict()
    node = SyncObj(own, others, consumers=[store])
    while node._getLeader() is None or not node.isReady():
        time.sleep(0.05)
    print(f"leader {node._getLeader()}", flush=True)
    for line in sys.stdin:
        _, seconds, in_flight, key_size, value_size = line.split()
        print(
            run(store, float(seconds), int(in_flight), int(key_size), int(value_size)), flush=True
        )
    node.destroy()


if __name__ == "__main__":
    main()
