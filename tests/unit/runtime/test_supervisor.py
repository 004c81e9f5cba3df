"""What systemd hears from the agent, over a real socket of the kind that it listens at."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from raft_agent.runtime.supervisor import Supervisor
from tests.unit.runtime.jumping import JumpingLoop


class Listener:
    """systemd's end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)

    def heard(self) -> list[str]:
        self._socket.settimeout(20)
        return self._socket.recv(4096).decode().split("\n")

    def has_heard_nothing(self) -> bool:
        self._socket.setblocking(False)
        try:
            self._socket.recv(4096)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    listener = Listener(address)
    yield listener
    listener.close()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = JumpingLoop()
    yield loop
    loop.close()


def test_a_life_is_told_in_its_order(listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
    supervisor = Supervisor(loop)
    supervisor.ready()
    supervisor.reloading()
    supervisor.reloaded()
    supervisor.stopping()
    assert listener.heard()[0] == "READY=1"
    reloading, stamp = listener.heard()
    assert reloading == "RELOADING=1"
    assert stamp.startswith("MONOTONIC_USEC=")
    assert listener.heard() == ["READY=1"]
    assert listener.heard() == ["STOPPING=1"]


def test_an_abstract_address_is_understood(
    monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop
) -> None:
    name = f"raft-test-notify-{os.getpid()}"
    listener = Listener(f"\0{name}")
    try:
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        Supervisor(loop).waiting("the disk is full")
        assert listener.heard() == ["STATUS=the disk is full"]
    finally:
        listener.close()


def test_the_watchdog_is_fed_by_the_turning_loop_until_the_end(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    supervisor = Supervisor(loop)
    supervisor.ready()
    assert listener.heard()[0] == "READY=1"
    assert listener.heard() == ["WATCHDOG=1"]
    assert listener.has_heard_nothing()  # a loop that does not turn feeds nothing
    loop.run_until_complete(asyncio.sleep(0.011))
    loop.run_until_complete(asyncio.sleep(0))
    assert listener.heard() == ["WATCHDOG=1"]
    supervisor.stopping()
    assert listener.heard()[-1] == "STOPPING=1"
    loop.run_until_complete(asyncio.sleep(0.02))
    assert listener.has_heard_nothing()


@pytest.mark.parametrize(
    ("limit", "pid"), [("", "1"), ("no number", "1"), ("30000", "1"), ("0", "self")]
)
def test_a_watchdog_that_is_not_for_this_process_is_not_fed(
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    loop: asyncio.AbstractEventLoop,
    limit: str,
    pid: str,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", limit)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "self" else pid)
    Supervisor(loop).ready()
    assert listener.heard()[0] == "READY=1"
    assert listener.has_heard_nothing()


def test_without_systemd_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    made: list[object] = []
    monkeypatch.setattr(socket, "socket", lambda *kind: made.append(kind))
    supervisor = Supervisor(loop)
    supervisor.ready()
    supervisor.stopping()
    assert made == []


def test_a_socket_that_is_gone_stops_nobody_and_is_told_to_who_debugs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loop: asyncio.AbstractEventLoop,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    with caplog.at_level("DEBUG", "raft.runtime"):
        Supervisor(loop).ready()
    assert "systemd can't be told READY=1: [Errno 2] No such file or directory" in caplog.text


def test_what_systemd_set_is_not_handed_on(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop
) -> None:
    """A child process would be taken for the agent."""
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    Supervisor(loop)
    assert {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys() == set()


def test_a_reload_leaves_what_the_agent_waits_for_to_be_read(
    listener: Listener, loop: asyncio.AbstractEventLoop
) -> None:
    supervisor = Supervisor(loop)
    supervisor.ready()
    supervisor.waiting("the disk is full")
    supervisor.reloading()
    supervisor.reloaded()
    heard = [listener.heard() for _ in range(4)]
    assert [lines[0] for lines in heard[2:]] == ["RELOADING=1", "READY=1"]
    assert not any(line.startswith("STATUS=") for lines in heard[2:] for line in lines)


def test_a_reload_before_the_agent_serves_does_not_say_that_it_is_ready(
    listener: Listener, loop: asyncio.AbstractEventLoop
) -> None:
    supervisor = Supervisor(loop)
    supervisor.reloading()
    supervisor.reloaded()
    assert listener.has_heard_nothing()
