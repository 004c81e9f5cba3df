"""The load of `raftctl bench` from several processes, forked before asyncio is imported."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from raftctl.bench_requests import Plan
from raftctl.bench_stats import Tally
from raftctl.errors import NOT_REACHABLE, CommandError

if TYPE_CHECKING:
    from raft_agent.api.endpoint import Endpoint

_INTERRUPT = {signal.SIGINT}


def run_processes(plan: Plan, target: str | Endpoint, processes: int) -> Tally:
    """What `processes` that share the load of `plan` have measured together; all start when all
    have connected. Raises CommandError when one can't be started, or ends without a result."""
    running: set[int] = set()
    # Ctrl+C goes to all of them, a signal from elsewhere to this process alone: the children must
    # hear of it in any case, and report what they have. Were this process to end amid the forks,
    # they would take the end of its pipe for the start.
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
    before = signal.signal(signal.SIGINT, lambda *_: _interrupt(running))
    go_read, go_write = os.pipe()
    children: list[tuple[int, int]] = []
    try:
        for number in range(processes):
            share = plan.clients // processes + (number < plan.clients % processes)
            rate = plan.rate * share / plan.clients
            part = replace(plan, clients=share, rate=rate)
            children.append(_fork_child(part, target, go_read, go_write))
            running.add(children[-1][0])
    except OSError as refused:
        # Before this process lets go of the pipe: they would take that for the start.
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        signal.signal(signal.SIGINT, before)
        raise CommandError(
            f"Process {len(children) + 1} of {processes} can't be started: {refused.strerror}",
            hint="Use fewer --processes, or raise the limits: ulimit -u; ulimit -n",
        ) from refused
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
    os.close(go_read)
    total = Tally()
    failure = ""
    # A child that could not connect gives its report at once, without the "r" of the others.
    heads = [os.read(report, 1) for _pid, report in children]
    os.close(go_write)  # the start: every child sees the end of the pipe
    for (pid, report), head in zip(children, heads, strict=True):
        with os.fdopen(report, "rb") as pipe:
            answer = head.replace(b"r", b"") + pipe.read()
        running.discard(pid)  # before its number can become another process's
        os.waitpid(pid, 0)
        if answer[:1] == b"t":
            total.merge(Tally.decode(answer[1:]))
        else:
            failure = answer[1:].decode() or failure or "it gave no reason"
    signal.signal(signal.SIGINT, before)
    if failure:
        raise CommandError(
            f"A load process ended: {failure}",
            NOT_REACHABLE,
            "Does the agent still answer? raftctl doctor; with fewer --clients it may take all",
        )
    return total


def _fork_child(plan: Plan, target: str | Endpoint, go_read: int, go_write: int) -> tuple[int, int]:
    """(pid, where it reports) of a process that puts `plan` into effect once nobody has `go_write`
    open any more. Raises OSError."""
    report_read, report_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(go_write)
        os.close(report_read)
        _child(plan, target, go_read, report_write)
    os.close(report_write)
    return pid, report_read


def _interrupt(running: set[int]) -> None:
    for pid in running:
        os.kill(pid, signal.SIGINT)


def _child(plan: Plan, target: str | Endpoint, go_fd: int, report_fd: int) -> None:
    """Never returns. Reports "r" when connected, then "t" and the tally or "e" and a reason."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
        from raftctl.bench_load import run_load  # noqa: PLC0415

        tally = run_load(plan, target, os.getpid(), lambda: _write_all(report_fd, b"r"), go_fd)
        _write_all(report_fd, b"t" + tally.encode())
    except KeyboardInterrupt:  # while it connected
        _write_all(report_fd, b"t" + Tally(interrupted=True).encode())
    except BaseException as failure:  # whatever it is must reach the parent, not its stack
        _write_all(report_fd, b"e" + (str(failure) or type(failure).__name__).encode())
    finally:
        sys.stderr.flush()
        os._exit(0)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
