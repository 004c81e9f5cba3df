"""Agents that speak TLS, and clients with certificates, for the end-to-end tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raft_agent.api.client import Endpoint
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Role
from tests.e2e.agents import Agent, LocalCluster, local_cluster
from tests.unit.tls.papers import Office, client, node

LOOPBACK = "127.0.0.1"


def use(agent: Agent, files: TlsFiles) -> None:
    """Have the agent start with these files."""
    agent.environment |= {
        "RAFT_TLS_CA": files.ca,
        "RAFT_TLS_CERT": files.cert,
        "RAFT_TLS_KEY": files.key,
        "RAFT_TLS_CRL": files.crl,
    }


@contextmanager
def certified_cluster(office: Office, nodes: int = 3) -> Iterator[LocalCluster]:
    """A running cluster with certificates of `office`, whose list of revoked ones it follows."""
    office.crl.write_bytes(office.authority.revoke([]))
    with local_cluster(nodes, start=False) as cluster:
        for agent in cluster:
            use(agent, office.issue(node(agent.name, LOOPBACK), crl=True))
        cluster.start()
        cluster.leader()
        yield cluster


def endpoint(agent: Agent, office: Office, role: Role | None, name: str = "") -> Endpoint:
    """For a client with a new certificate and this role."""
    return Endpoint(agent.address, office.issue(client(name or f"a-{role}", role)))


def raftctl(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run raftctl and wait for its end."""
    return subprocess.run(
        [sys.executable, "-m", "raftctl.main", *words],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def options(agent: Agent, files: TlsFiles) -> dict[str, str]:
    """The environment in which raftctl reaches the agent."""
    return {
        "RAFTCTL_ENDPOINT": agent.address,
        "RAFTCTL_CACERT": files.ca,
        "RAFTCTL_CERT": files.cert,
        "RAFTCTL_KEY": files.key,
    }


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    """What raftctl -o json has printed."""
    return json.loads(done.stdout)


def replace(file: str | Path, data: bytes) -> None:
    """Put new contents into the file in one step, as people should."""
    place = Path(file)
    new = place.with_name(f".{place.name}.new")
    new.touch(0o600)
    new.write_bytes(data)
    new.replace(place)
