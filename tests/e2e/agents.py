"""Real agents as separate processes on loopback, for the end-to-end tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from raft_agent.api import protocol
from raft_agent.api.client import AgentNotReachable, OutcomeUnknown, RequestFailed, SyncClient

T = TypeVar("T")

UNREACHABLE = (AgentNotReachable, OutcomeUnknown, RequestFailed)


def wait_for(what: str, probe: Callable[[], T | None], timeout_s: float = 20.0) -> T:
    """Ask `probe` until it gives something; AssertionError naming `what` when it never does."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = probe()
        if found is not None:
            return found
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for {what}"
        time.sleep(0.01)


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


class Agent:
    """One agent process and its files."""

    def __init__(self, name: str, directory: Path, config: str, wrapper: Sequence[str]) -> None:
        self.name = name
        self.directory = directory
        self.socket_path = directory / "ipc.sock"
        self.data_dir = directory / "data"
        self.log_path = directory / "agent.log"
        self.environment: dict[str, str] = {}
        self.options: tuple[str, ...] = ()
        self.program: tuple[str, ...] = ("-m", "raft_agent.main")
        self.address = ""
        self._wrapper = tuple(wrapper)
        self._config_path = directory / "raft.toml"
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._config_path.write_text(config)

    def start(self) -> None:
        command = [
            *self._wrapper,
            sys.executable,
            *self.program,
            "--config",
            str(self._config_path),
            *self.options,
        ]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(20)
        self.process = None
        return status

    def ask(self, request: protocol.Request, timeout_s: float = 2.0) -> object:
        with SyncClient(str(self.socket_path), timeout_s) as client:
            return client.request(request)

    def status(self) -> protocol.StatusResult | None:
        try:
            answer = self.ask(protocol.Status(1))
        except UNREACHABLE:
            return None
        assert isinstance(answer, protocol.StatusResult)
        return answer

    def events(self, limit: int = 1000) -> list[protocol.EventItem]:
        answer = self.ask(protocol.Events(1, limit))
        assert isinstance(answer, protocol.EventsResult)
        return answer.events

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace")


class LocalCluster:
    """Agents node-01 … on loopback; `stop` ends the processes that it started."""

    def __init__(
        self,
        directory: Path,
        nodes: int = 3,
        *,
        extra: str = "",
        lone: str = "",
        wrapper: Callable[[str], Sequence[str]] = lambda _: (),
    ) -> None:
        """`extra`: more of raft.toml; NAME in it stands for each node's own. `lone`: this one
        founds a cluster of its own, the others wait to be joined.
        """
        self._lone = lone
        names = [f"node-{number:02}" for number in range(1, nodes + 1)]
        ports = dict(zip(names, free_ports(nodes), strict=True))
        self.agents = {}
        for name in names:
            home = directory / name
            peers = "".join(
                f'[[peers]]\nid = "{other}"\naddress = "127.0.0.1:{ports[other]}"\n'
                for other in names
                if other != name and not lone
            )
            config = (
                f'[server]\nnode_id = "{name}"\nlisten_addr = "127.0.0.1:{ports[name]}"\n'
                f'data_dir = "{home / "data"}"\nipc_socket = "{home / "ipc.sock"}"\n'
                f"{extra.replace('NAME', name)}\n{peers}"
            )
            agent = self.agents[name] = Agent(name, home, config, wrapper(name))
            agent.address = f"127.0.0.1:{ports[name]}"
            if name == lone:
                agent.environment["RAFT_CLUSTER_BOOTSTRAP"] = "true"

    def __iter__(self) -> Iterator[Agent]:
        return iter(self.agents.values())

    def start(self) -> None:
        for agent in self:
            if not self._lone or agent.name == self._lone:
                agent.start()

    def kill(self) -> None:
        """SIGKILL to all of them before any is waited for."""
        running = [agent for agent in self if agent.process is not None]
        for agent in running:
            agent.signal(signal.SIGKILL)
        for agent in running:
            agent.kill()

    def leader(self) -> Agent:
        """The agent that leads, once every living one agrees on it."""

        def agreed() -> Agent | None:
            statuses = [agent.status() for agent in self if agent.process is not None]
            if None in statuses:
                return None
            leaders = {status.leader for status in statuses if status is not None}
            leading = [s.node_id for s in statuses if s is not None and s.role == "leader"]
            if len(leading) == 1 and leaders == set(leading):
                return self.agents[leading[0]]
            return None

        return wait_for("one leader that all agree on", agreed)

    def followers(self) -> list[Agent]:
        leader = self.leader()
        return [agent for agent in self if agent is not leader and agent.process is not None]

    def wait_applied(self, index: int) -> None:
        """Until every living agent has applied `index`."""
        for agent in self:
            if agent.process is not None:
                wait_for(f"{agent.name} to apply {index}", lambda a=agent: _applied(a, index))


def _applied(agent: Agent, index: int) -> bool | None:
    status = agent.status()
    return True if status is not None and status.last_applied >= index else None


@contextmanager
def put_away(cluster: LocalCluster, directory: Path) -> Iterator[None]:
    """Kills the agents at the end, and removes their directory. When the test fails, the directory
    with logs and data stays, and its path is printed.
    """
    try:
        yield
    except BaseException:
        print(f"logs and data are kept in {directory}")
        cluster.kill()
        raise
    cluster.kill()
    shutil.rmtree(directory)


@contextmanager
def local_cluster(
    nodes: int = 3,
    *,
    extra: str = "",
    lone: str = "",
    wrapper: Callable[[str], Sequence[str]] = lambda _: (),
    environment: dict[str, str] | None = None,
    start: bool = True,
) -> Iterator[LocalCluster]:
    """A running cluster in a directory of its own; both are gone afterwards, as `put_away` says."""
    directory = Path(tempfile.mkdtemp(prefix="raft-e2e-"))
    cluster = LocalCluster(directory, nodes, extra=extra, lone=lone, wrapper=wrapper)
    for agent in cluster:
        agent.environment.update(environment or {})
    with put_away(cluster, directory):
        if start:
            cluster.start()
        yield cluster
