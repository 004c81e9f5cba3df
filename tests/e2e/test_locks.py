"""Holders of a lock that are stopped for longer than their lease: the fencing token tells who is
stale, and a write that is guarded by it has no effect."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

from raft_agent.api.client import SyncClient
from tests.e2e.agents import LocalCluster, local_cluster, wait_for

TIMEOUT_S = 30.0
AT_ONCE = 10

# What a lock protects: it writes when it is told to, and says whether that had an effect. It does
# not let itself be stopped by raftctl, which knows before it that the lock was lost.
WORKER = """
import os, signal, sys
from raft_agent.api.client import SyncClient
from raft_agent.api.protocol import Compare, PutKey, Relation, Target

signal.signal(signal.SIGTERM, signal.SIG_IGN)
token = int(os.environ["RAFT_LOCK_TOKEN"])
print(token, flush=True)
guard = Compare(Target.CREATE_REVISION, os.environ["RAFT_LOCK_KEY"], Relation.EQUAL, token)
for line in sys.stdin:
    with SyncClient(sys.argv[1], 30.0) as client:
        written = client.txn([guard], [PutKey(f"written/{token}", line.encode())])
    print("written" if written.succeeded else "stale", flush=True)
"""


@dataclass
class Holder:
    """A raftctl that wants the lock, with its worker, in a process group of their own."""

    process: subprocess.Popen[str]
    token: int = 0

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def acquired(self) -> int:
        """Wait until it holds the lock; its token."""
        self.token = int(self.line())
        return self.token

    def write(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("again\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Let the worker come to its end; raftctl's exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(TIMEOUT_S)


def start(cluster: LocalCluster, name: str) -> Holder:
    socket = str(cluster.leader().socket_path)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "raftctl.main", "--socket", socket, "lock", name),
            *("--ttl", "1", "--quiet", "--", sys.executable, "-c", WORKER, socket),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    return Holder(process)


def end_all(holders: list[Holder]) -> None:
    for holder in holders:
        if holder.process.poll() is None:
            holder.signal(signal.SIGCONT)
            holder.signal(signal.SIGKILL)
            holder.process.wait()


def keys_below(cluster: LocalCluster, prefix: str) -> list[str]:
    with SyncClient(str(cluster.leader().socket_path), TIMEOUT_S) as client:
        return [item.key for item in client.list(prefix).keys]


def one_round(cluster: LocalCluster, names: list[str], started: list[Holder]) -> None:
    """For each of these locks: one holder is stopped, the next one takes over and is stopped, too,
    both for longer than their leases; then both go on."""
    first = [start(cluster, name) for name in names]
    started += first
    for holder in first:
        holder.acquired()
    second = [start(cluster, name) for name in names]
    started += second
    for holder in first:
        holder.signal(signal.SIGSTOP)
    for older, newer in zip(first, second, strict=True):
        assert newer.acquired() > older.token
        newer.write()
        assert newer.line() == "written"
        newer.signal(signal.SIGSTOP)
    for name in names:
        wait_for(
            f"the lease of {name} to end",
            lambda n=name: True if not keys_below(cluster, f"lock/{n}/") else None,
        )
    for holder in [*first, *second]:
        holder.write()
        holder.signal(signal.SIGCONT)
    for holder in [*first, *second]:
        assert holder.line() == "stale"
        assert holder.end() == 3
    written = {int(key.rpartition("/")[2]) for key in keys_below(cluster, "written/")}
    assert written.isdisjoint(holder.token for holder in first)
    assert written.issuperset(holder.token for holder in second)


@pytest.mark.parametrize("locks", [3, pytest.param(50, marks=pytest.mark.long)])
def test_of_two_holders_that_were_stopped_the_older_one_is_stale(locks: int) -> None:
    started: list[Holder] = []
    with local_cluster() as cluster:
        try:
            for begin in range(0, locks, AT_ONCE):
                names = [f"l{number}" for number in range(begin, min(begin + AT_ONCE, locks))]
                one_round(cluster, names, started)
        finally:
            end_all(started)
