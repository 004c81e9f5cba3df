"""site.yml over the Lima inventory: machines that limactl is asked for, and reached as it says.

limactl is a stand-in (tests/e2e/limactl.py); the machine that it "starts" is one of the test's own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.e2e.deploy.machines import ROOT, Machine, site
from tests.e2e.lima import StandIn
from tests.kernel.netns import enter

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("bundle")]

ADDRESS = "192.168.105.11/24"
# A second interface as Lima gives one to a VM, and what cloud-init's netplan makes of it there.
_LIMA0 = """
ip link add lima0 type veth peer name lima0-peer
ip link set lima0-peer up
mkdir -p /run/systemd/network
printf '[Match]\\nName=lima0\\n[Network]\\nDHCP=ipv4\\nLinkLocalAddressing=ipv6\\n' \
    > /run/systemd/network/10-netplan-lima0.network
networkctl reload
"""


def _provision(machine: Machine) -> None:
    """What the template has Lima run there."""
    template = yaml.safe_load((ROOT / "lima" / "raft-node.yaml").read_text())
    machine.run(_LIMA0)
    for part in template["provision"]:
        machine.run(f"PARAM_address={ADDRESS} sh -c {_quoted(part['script'])}")
    (probe,) = template["probes"]
    machine.run(f"bash -c {_quoted(probe['script'].replace('{{.Param.address}}', ADDRESS))}")


def _quoted(script: str) -> str:
    return "'" + script.replace("'", "'\\''") + "'"


def test_one_command_makes_a_vm_and_a_cluster_of_it(tmp_path: Path) -> None:
    lima = StandIn(tmp_path)
    with site("node-01") as made:
        machine = made.machines["node-01"]
        _provision(machine)
        reached = {"Hostname": machine.address, "Port": 22, "User": "admin"}
        lima.environment |= {
            "STANDIN_SSH": json.dumps({"raft-node-01": reached | {"IdentityFile": str(made.key)}}),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(made.home),
        }
        variables = {
            "raft_lima_nodes": {"node-01": ADDRESS},
            "raft_bundle_dir": str(ROOT / "build" / "deploy"),
            "raft_pki_dir": str(made.home / "pki"),
        }
        options = ("site.yml", "-e", json.dumps(variables))
        done = lima.play(*options, before=enter(made.namespace))
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr
        assert [call[0] for call in lima.calls()] == ["create", "start"]
        status = json.loads(machine.raftctl("-o json status"))
        assert (status["role"], status["node_id"]) == ("leader", "node-01")
        assert status["members"][0]["address"] == "192.168.105.11:5555"
        again = lima.play(*options, before=enter(made.namespace))
        assert set(re.findall(r"changed=(\d+)", again.stdout)) == {"0"}, again.stdout[-3000:]
