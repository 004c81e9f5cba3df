"""All certificates and the authority are replaced under load, and no write fails."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raft_agent.api.client import Client, Endpoint
from raft_agent.tls.authority import Authority, Subject, make_authority, read_certificates
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Role
from tests.e2e.agents import Agent, LocalCluster, local_cluster, wait_for
from tests.e2e.certified import LOOPBACK, replace, use
from tests.unit.tls.papers import Office, client, node

CLIENTS = 16


class Writers:
    """Clients that write without pause to one agent, each write once and on one connection; a
    failure of any of them is kept. `renewed`: more of them, which come with each step.
    """

    def __init__(self, agent: Agent) -> None:
        self.done = 0
        self.failures: list[str] = []
        self.longest_s = 0.0
        self._address = agent.address
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._stop = asyncio.Event()
        self._running: list[asyncio.Future[None]] = []

    @contextlib.contextmanager
    def working(self) -> Iterator[Writers]:
        self._thread.start()
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            for running in self._running:
                asyncio.run_coroutine_threadsafe(_ended(running), self._loop).result(30)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def more(self, files: TlsFiles, count: int) -> None:
        """`count` new connections with these certificates, and a write over each."""

        async def begin() -> None:
            ready = []
            for _ in range(count):
                first = self._loop.create_future()
                name = f"w{len(self._running)}"
                self._running.append(self._loop.create_task(self._write(files, name, first)))
                ready.append(first)
            await asyncio.gather(*ready)

        asyncio.run_coroutine_threadsafe(begin(), self._loop).result(30)

    async def _write(self, files: TlsFiles, name: str, first: asyncio.Future[None]) -> None:
        number = 0
        try:
            endpoint = Endpoint(self._address, files)
            async with Client(endpoint, timeout_s=10, exactly_once=False) as some:
                while not self._stop.is_set():
                    number += 1
                    began = time.monotonic()
                    await some.put(f"{name}/{number}", b"x" * 100)
                    self.longest_s = max(self.longest_s, time.monotonic() - began)
                    self.done += 1
                    if not first.done():
                        first.set_result(None)
        except Exception as error:
            self.failures.append(f"{name}, write {number}: {error!r}")
            if not first.done():
                first.set_exception(error)


async def _ended(running: asyncio.Future[None]) -> None:
    await running


class Rotation:
    """The files of a cluster and of its clients, and the steps in which they are replaced."""

    def __init__(self, cluster: LocalCluster, office: Office) -> None:
        self.cluster = cluster
        self._office = office
        self._files: dict[str, tuple[Subject, TlsFiles]] = {}
        for agent in cluster:
            subject = node(agent.name, LOOPBACK)
            self._files[agent.name] = (subject, self._own_ca(subject))
            use(agent, self._files[agent.name][1])
        writer = client("writer", Role.WRITER)
        self.writer = self._own_ca(writer)
        self._files["writer"] = (writer, self.writer)

    def _own_ca(self, subject: Subject) -> TlsFiles:
        """Each has the authorities in a file of its own, as on machines of their own."""
        files = self._office.issue(subject)
        ca = self._office.directory / f"{subject.name}-ca.pem"
        ca.write_bytes(Path(files.ca).read_bytes())
        return TlsFiles(str(ca), files.cert, files.key)

    def trust(self, *authorities: Authority) -> None:
        """Everybody trusts these from now on, one after the other."""
        pem = b"".join(item.certificate_pem() for item in authorities)
        for name, (_, files) in self._files.items():
            self._replace(name, {files.ca: pem})

    def certify(self, authority: Authority) -> None:
        """Everybody gets a new certificate, one after the other."""
        for name, (subject, files) in self._files.items():
            former = read_certificates(Path(files.cert).read_bytes())[0]
            pem = authority.sign(subject, former.public_key())  # type: ignore[arg-type]
            self._replace(name, {files.cert: pem})

    def _replace(self, name: str, contents: dict[str, bytes]) -> None:
        agent = self.cluster.agents.get(name)
        before = 0 if agent is None else _times_read(agent)
        for file, data in contents.items():
            replace(file, data)
        if agent is not None:
            wait_for(f"{name} to read its files", lambda: _times_read(agent) > before or None)

    def restart_a_follower(self) -> None:
        """So that connections between members are made with what is in force now."""
        follower = self.cluster.followers()[0]
        assert follower.stop() == 0
        follower.start()
        self.cluster.leader()
        # Its dead connections are made anew in both directions.
        wait_for(f"{follower.name} to be reached", lambda: _is_reached(self.cluster, follower))


def _times_read(agent: Agent) -> int:
    return sum(event.kind == "certificates_read" for event in agent.events())


def _is_reached(cluster: LocalCluster, follower: Agent) -> bool | None:
    status = cluster.leader().status()
    if status is None or status.progress is None:
        return None
    progress = status.progress.get(follower.name)
    return True if progress is not None and progress.lag < 100_000 else None


@pytest.mark.long
def test_no_write_fails_while_everything_is_replaced(tmp_path: Path) -> None:
    office = Office(tmp_path)
    with local_cluster(start=False) as cluster:
        rotation = Rotation(cluster, office)
        cluster.start()
        new = make_authority("new")
        with Writers(cluster.leader()).working() as writers:
            writers.more(rotation.writer, CLIENTS)
            for step in (
                lambda: rotation.certify(office.authority),
                lambda: rotation.trust(office.authority, new),
                lambda: rotation.certify(new),
                lambda: rotation.trust(new),
            ):
                step()
                writers.more(rotation.writer, CLIENTS)
                rotation.restart_a_follower()
                writers.more(rotation.writer, CLIENTS)
        assert writers.failures == []
        assert writers.done > 1000
        print(f"{writers.done} writes, the longest took {writers.longest_s:.3f} s")
        leader = cluster.leader()
        assert not [line for line in leader.log_text().splitlines() if " ERROR " in line]
