"""The commands of docs/security.md, in their order, against agents that run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import AgentNotReachable, Endpoint, SyncClient
from raft_agent.tls.files import TlsFiles
from tests.e2e.agents import LocalCluster, local_cluster, wait_for
from tests.e2e.certified import replace, use

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
BLOCK = re.compile(
    r"<!-- not run: tests/e2e/test_security_page.py [^\n]*\n```sh\n(.*?)^```", re.M | re.S
)
BIN = Path(sys.executable).parent


def reads(cluster: LocalCluster) -> dict[str, int]:
    """How often each agent has read its certificates anew."""
    return {
        agent.name: sum(event.kind == "certificates_read" for event in agent.events())
        for agent in cluster
    }


def put_in_place(cluster: LocalCluster, change: Callable[[], None]) -> None:
    """Change files that all agents use, and wait until they have read them."""
    before = reads(cluster)
    change()
    wait_for(
        "all agents to read their certificates",
        lambda: all(count > before[name] for name, count in reads(cluster).items()) or None,
    )


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Where the page's commands are typed."""
    (tmp_path / "desk").mkdir()
    return tmp_path / "desk"


@pytest.mark.long
def test_the_page_does_what_it_says(desk: Path, tmp_path: Path) -> None:
    with local_cluster(start=False) as cluster:
        addresses = {f"192.168.105.1{n}:5555": a.address for n, a in enumerate(cluster, 1)}
        etc = tmp_path / "etc"
        etc.mkdir()

        def type_in(block: str) -> str:
            text = block
            for shown, real in addresses.items():
                text = text.replace(shown, real)
            text = re.sub(r"192\.168\.105\.1\d", "127.0.0.1", text)
            done = subprocess.run(
                ["bash", "-euc", text],
                cwd=desk,
                env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert done.returncode == 0, f"{text}\n{done.stderr}"
            return done.stdout

        def copy(source: str, target: str) -> None:
            replace(etc / target, (desk / source).read_bytes())

        set_up, request, ask, renew, both, by_new, revoke = BLOCK.findall(PAGE.read_text())

        assert "Kind:         node" in type_in(set_up)
        copy("pki/ca.pem", "ca.pem")
        for agent in cluster:
            copy(f"pki/{agent.name}.pem", f"{agent.name}.pem")
            copy(f"pki/{agent.name}-key.pem", f"{agent.name}-key.pem")
            here = [str(etc / name) for name in ("ca.pem", f"{agent.name}.pem")]
            use(agent, TlsFiles(*here, str(etc / f"{agent.name}-key.pem")))
        cluster.start()
        cluster.leader()

        assert "node-04" in type_in(request)
        assert sorted(file.name for file in (desk / "node-04").iterdir()) == [
            "node-04-key.pem",
            "node-04.csr",
            "node-04.pem",
        ]
        assert "RAFT Cluster Status" in type_in(ask)

        type_in(renew)
        before = reads(cluster)["node-01"]
        copy("pki/node-01.pem", "node-01.pem")
        wait_for("node-01 to read it", lambda: reads(cluster)["node-01"] > before or None)

        type_in(both)
        put_in_place(cluster, lambda: copy("both.pem", "ca.pem"))
        type_in(by_new)
        put_in_place(
            cluster,
            lambda: [copy(f"pki/{agent.name}.pem", f"{agent.name}.pem") for agent in cluster],
        )
        put_in_place(cluster, lambda: copy("new/ca.pem", "ca.pem"))
        assert_served(desk, cluster, "new/ca.pem")

        # The page revokes with the first authority; here the new one is in force.
        shutil.copytree(desk / "new", desk / "pki", dirs_exist_ok=True)
        assert "Kind:         crl" in type_in(revoke)
        for agent in cluster:
            agent.stop()
            copy("pki/crl.pem", "crl.pem")
            agent.environment["RAFT_TLS_CRL"] = str(etc / "crl.pem")
            agent.start()
        cluster.leader()
        with pytest.raises(AgentNotReachable):
            assert_served(desk, cluster, "new/ca.pem")


def assert_served(desk: Path, cluster: LocalCluster, authority: str) -> None:
    """That the page's client is, by an agent that shows a certificate of `authority`."""
    files = [str(desk / name) for name in (authority, "pki/alice.pem", "pki/alice-key.pem")]
    with SyncClient(Endpoint(cluster.leader().address, TlsFiles(*files))) as alice:
        assert alice.request(protocol.Status(1)).role == "leader"
