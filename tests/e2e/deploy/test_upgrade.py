"""Another release comes to all members while clients write."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raft_agent.api.client import Endpoint, SyncClient
from raft_agent.tls.files import TlsFiles
from tests.e2e.deploy.cluster import statuses
from tests.e2e.deploy.machines import ROOT, TIMING, Site
from tests.e2e.writers import Writers
from tests.kernel.netns import inside

pytestmark = pytest.mark.long


def _releases(cluster: Site) -> set[str]:
    """The versions that members run."""
    return {str(status["version"]) for status in statuses(cluster).values()}


def another_version(home: Path, version: str, *, starts: bool = True) -> Path:
    """A checkout that says it is of that version."""
    source = home / f"source-{version}"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("node_agent", "cli", "requirements", "tools"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    named = source / "node_agent/raft_agent/__init__.py"
    lines = named.read_text().splitlines()
    new = [f'__version__ = "{version}"' if "__version__ =" in line else line for line in lines]
    named.write_text("\n".join(new) + "\n")
    if not starts:
        main = source / "node_agent/raft_agent/runtime/__init__.py"
        main.write_text(main.read_text() + '\nraise RuntimeError("this release does not start")\n')
    return source


def test_an_upgrade_under_load_loses_nothing_and_one_that_does_not_start_is_taken_back(
    cluster: Site, measured: Callable[[str], None]
) -> None:
    cluster.spent = True
    one = cluster.machines["node-01"]
    before = json.loads(one.raftctl("-o json status"))["term"]

    pki = cluster.home / "pki"
    files = TlsFiles(*(str(pki / name) for name in ("ca.pem", "admin.pem", "admin-key.pem")))
    endpoints = {
        name: Endpoint(f"{machine.address}:5555", files)
        for name, machine in cluster.machines.items()
    }
    writers = Writers(endpoints, clients=32)
    later = another_version(cluster.home, "0.1.1")
    with inside(cluster.namespace), writers.writing():
        cluster.play("upgrade.yml", "-e", f"raft_source={later}")
    assert _releases(cluster) == {"0.1.1"}
    after = json.loads(one.raftctl("-o json status"))["term"]
    gap_s = writers.longest_gap_s()
    measured(
        f"upgrade.yml under 32 clients: {len(writers.acks)} writes, nobody's was answered for "
        f"{gap_s:.3f} s (bar: 1 s), the leader moved {after - before} times"
    )
    assert writers.errors == []
    _all_there(cluster, writers, endpoints)
    assert after - before <= 2, "the leader moved more often than twice"
    # A busy machine takes its time for everything, but only who misses a leader waits that long.
    assert gap_s < TIMING["election_timeout_min_ms"] / 1000, "a leader went without handing over"

    _refused_while_one_is_down(cluster)
    _taken_back(cluster)


def _all_there(cluster: Site, writers: Writers, endpoints: dict[str, Endpoint]) -> None:
    with inside(cluster.namespace), SyncClient(endpoints["node-02"], 20) as client:
        keys = {key for _, key in writers.acks}
        found = set()
        after = ""
        while True:
            page = client.list("w", limit=1000, after=after)
            found |= {item.key for item in page.keys}
            if not page.more:
                break
            after = page.keys[-1].key
    assert len(keys) > 100
    assert keys - found == set()


def _refused_while_one_is_down(cluster: Site) -> None:
    cluster.machines["node-03"].run("systemctl stop raft-agent")
    latest = another_version(cluster.home, "0.1.2")
    refused = cluster.play("upgrade.yml", "-e", f"raft_source={latest}", check=False)
    assert refused.returncode != 0
    assert "the agent of node-03 does not run" in refused.stdout
    cluster.machines["node-03"].run("systemctl start raft-agent")
    cluster.machines["node-03"].run("until raftctl --node node-03 health; do sleep 0.2; done")
    assert _releases(cluster) == {"0.1.1"}


def _taken_back(cluster: Site) -> None:
    broken = another_version(cluster.home, "0.1.3", starts=False)
    failed = cluster.play("upgrade.yml", "-e", f"raft_source={broken}", check=False)
    assert failed.returncode != 0
    assert "this release does not start" in failed.stdout
    assert len(set(re.findall(r"^fatal: \[([\w-]+)\]", failed.stdout, re.MULTILINE))) == 1
    cluster.machines["node-01"].run("until raftctl --node node-01 health; do sleep 0.2; done")
    assert _releases(cluster) == {"0.1.1"}
