"""The agent as a process, seen by what starts and stops it, while it reads what its disk holds."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import SyncClient
from raft_agent.logs import LogContext
from raft_agent.runtime import service
from raft_agent.storage.store import Store
from tests.unit.runtime.test_agent import config_for

PATIENCE_S = 10
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Systemd:
    """Listens at NOTIFY_SOCKET; `opening` is set while a data directory is being opened, which
    lasts until `go` is, or `PATIENCE_S`: `in_time` says for each whether it was in vain."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / "notify"))
        self._socket.settimeout(PATIENCE_S)
        self.opening = threading.Event()
        self.go = threading.Event()
        self.in_time: list[bool] = []
        self.heard: list[str] = []

    def until(self, start: str) -> str:
        """Hear on until a message that starts so; it."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.heard.append(self._socket.recv(4096).decode())
            if self.heard[-1].startswith(start):
                return self.heard[-1]
        raise TimeoutError(f"systemd was not told {start!r}")

    def hold(self, opened: Callable[..., Store]) -> Callable[..., Store]:
        def hold(*arguments: Any, **named: Any) -> Store:
            self.opening.set()
            self.in_time.append(self.go.wait(PATIENCE_S))
            self.opening.clear()
            return opened(*arguments, **named)

        return hold

    def rebuild(self) -> None:
        with SyncClient(str(self.directory / "s"), PATIENCE_S) as client:
            client.request(protocol.Rebuild(1, True))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    monkeypatch.setattr(Store, "open", systemd.hold(Store.open))
    monkeypatch.setattr(service, "_quiet_garbage_collector", lambda: None)  # not for other tests
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    yield systemd
    for number, handler in before.items():
        signal.signal(number, handler)
    systemd.close()


def run_beside(systemd: Systemd, act: Callable[[], None]) -> int:
    """The exit status of an agent that is ended after `act`, which runs in another thread."""
    failed: list[BaseException] = []

    def go_on() -> None:
        try:
            act()
        except BaseException as error:
            failed.append(error)
        finally:
            systemd.go.set()
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=go_on)

    async def main() -> int:
        thread.start()
        return await service.run(config_for(systemd.directory, "node-01"), LogContext())

    status = asyncio.run(main())
    thread.join()
    if failed:
        raise failed[0]
    return status


def test_the_watchdog_is_fed_while_a_node_that_starts_anew_reads_its_disk(
    systemd: Systemd,
) -> None:
    def act() -> None:
        systemd.go.set()
        systemd.until("READY=1")
        systemd.go.clear()
        systemd.rebuild()
        assert systemd.opening.wait(PATIENCE_S)
        systemd.heard.clear()
        systemd.until("STATUS=starting anew")
        for _ in range(3):
            systemd.until("WATCHDOG=1")
        assert not any("READY=1" in said for said in systemd.heard)
        systemd.go.set()
        systemd.until("READY=1\nSTATUS=")

    assert run_beside(systemd, act) == 0
    assert systemd.in_time == [True, True]


def test_the_first_start_takes_as_long_as_it_takes(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raft_agent.runtime.supervisor._EXTENSION_S", 0.03, raising=False)

    def act() -> None:
        for _ in range(3):
            assert systemd.until("EXTEND_TIMEOUT_USEC=") == "EXTEND_TIMEOUT_USEC=30000"
        assert systemd.opening.is_set()
        systemd.go.set()
        systemd.until("READY=1")
        systemd.heard.clear()
        systemd.until("WATCHDOG=1")
        systemd.until("WATCHDOG=1")
        assert {said.split("\n")[0] for said in systemd.heard} == {"WATCHDOG=1"}

    assert run_beside(systemd, act) == 0


def test_sighup_during_a_start_puts_log_levels_in_force_and_says_nothing_of_being_ready(
    systemd: Systemd, caplog: pytest.LogCaptureFixture
) -> None:
    unheard: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _: unheard.append(number))  # or it would end pytest
    told = threading.Event()

    class Hears(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("SIGHUP: "):
                told.set()

    handler = Hears()
    logging.getLogger("raft.runtime").addHandler(handler)
    caplog.set_level(logging.INFO, "raft.runtime")

    def act() -> None:
        assert systemd.opening.wait(PATIENCE_S)
        os.kill(os.getpid(), signal.SIGHUP)
        assert told.wait(PATIENCE_S)
        systemd.go.set()
        systemd.until("READY=1")
        assert not any(said.startswith("RELOADING=1") for said in systemd.heard)

    try:
        assert run_beside(systemd, act) == 0
    finally:
        logging.getLogger("raft.runtime").removeHandler(handler)
    assert not unheard
