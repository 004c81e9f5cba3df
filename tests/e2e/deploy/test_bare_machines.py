"""site.yml takes bare machines to a running cluster, and finds nothing to do the second time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from tests.e2e.deploy.cluster import NAMES, all_healthy, statuses
from tests.e2e.deploy.machines import Site

pytestmark = pytest.mark.long


def changed(output: str) -> dict[str, int]:
    """How much was changed on each host, as the recap says."""
    return {
        host: int(count)
        for host, count in re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", output, re.MULTILINE)
    }


def test_bare_machines_become_a_healthy_cluster(cluster: Site) -> None:
    all_healthy(cluster)
    found = statuses(cluster)
    assert len({status["cluster_id"] for status in found.values()}) == 1
    for status in found.values():
        assert sorted(status["voters"]) == sorted(NAMES)
        assert status["ebpf"]["state"] == "attached", status["ebpf"]

    cluster.machines["node-01"].raftctl('--forward send "Hello from the cluster"')
    read = cluster.machines["node-03"].raftctl("messages --limit 1")
    assert "Hello from the cluster" in read

    _tls_is_on(cluster)
    _the_service_is_shut_in(cluster)
    _one_that_is_killed_comes_back(cluster)


def test_the_second_run_changes_nothing(cluster: Site, measured: Callable[[str], None]) -> None:
    started = time.monotonic()
    again = cluster.play("site.yml")
    measured(f"site.yml again, nothing to do: {time.monotonic() - started:.0f} s (bar: 40 s)")
    assert changed(again.stdout) == dict.fromkeys(NAMES, 0), again.stdout[-3000:]


def _tls_is_on(made: Site) -> None:
    """The people's certificate is served over the network, and nobody without one is."""
    pki = made.home / "pki"
    assert {file.name for file in pki.iterdir()} >= {"ca.pem", "ca-key.pem", "admin.pem"}
    assert not list(pki.glob("node-*-key.pem"))  # the nodes' keys were made where they stay
    one = made.machines["node-01"]
    key = one.run("stat --format='%a %U %G' /etc/raft/tls/node-01-key.pem").stdout.split()
    assert key == ["640", "root", "raft"]
    for file in ("ca.pem", "admin.pem", "admin-key.pem"):
        one.run(
            f"cat > /root/{file} <<'END'\n{(pki / file).read_text()}END\nchmod 600 /root/{file}"
        )
    endpoint = f"raftctl --endpoint {made.machines['node-02'].address}:5555 --cacert /root/ca.pem"
    one.run(f"{endpoint} --cert /root/admin.pem --key /root/admin-key.pem status")
    assert one.run(f"{endpoint} status", check=False).returncode != 0


def _the_service_is_shut_in(made: Site) -> None:
    one = made.machines["node-01"]
    shown = one.run("systemd-analyze security --no-pager raft-agent.service").stdout
    found = re.search(r"Overall exposure level for raft-agent.service: ([\d.]+)", shown)
    assert found is not None
    assert float(found[1]) <= 2.5, shown
    user = one.run("ps -o user= -p $(systemctl show -P MainPID raft-agent.service)").stdout
    assert user.strip() == "raft"


def _one_that_is_killed_comes_back(made: Site) -> None:
    """By systemd's hand alone."""
    three = made.machines["node-03"]
    before = three.run("systemctl show -P MainPID raft-agent.service").stdout
    three.run(f"kill -KILL {before.strip()}")
    three.run(
        f"until [ $(systemctl show -P MainPID raft-agent.service) -gt 0 ] && "
        f"[ $(systemctl show -P MainPID raft-agent.service) != {before.strip()} ] && "
        "systemctl is-active --quiet raft-agent.service; do sleep 0.2; done"
    )
    three.run("until raftctl --node node-03 health > /dev/null; do sleep 0.2; done")
