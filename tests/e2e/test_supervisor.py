"""A real agent under something that listens as systemd does."""

from __future__ import annotations

import signal
import socket

from raft_agent.api import protocol
from tests.e2e.agents import local_cluster


def test_an_agent_that_says_it_is_ready_answers_and_says_when_it_reloads_and_stops() -> None:
    with (
        local_cluster(1, start=False) as cluster,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
    ):
        (agent,) = cluster
        address = str(agent.directory / "notify")
        listener.bind(address)
        listener.settimeout(30)
        agent.environment |= {
            "NOTIFY_SOCKET": address,
            "WATCHDOG_USEC": "600000000",
            "RAFT_CLUSTER_BOOTSTRAP": "true",
        }
        agent.start()
        assert listener.recv(4096).startswith(b"EXTEND_TIMEOUT_USEC=")
        assert listener.recv(4096).startswith(b"READY=1")
        assert isinstance(agent.ask(protocol.Status(1)), protocol.StatusResult)
        assert listener.recv(4096) == b"WATCHDOG=1"
        agent.signal(signal.SIGHUP)
        assert listener.recv(4096).startswith(b"RELOADING=1")
        assert listener.recv(4096).startswith(b"READY=1")
        assert agent.stop() == 0
        assert listener.recv(4096) == b"STOPPING=1"
