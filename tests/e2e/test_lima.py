"""The Lima VMs: what lima.yml asks limactl for, and which machines the inventory finds.

limactl is a stand-in here (limactl.py says what of it is real): no VM is started.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.lima import ROOT, StandIn

BIN = Path(sys.executable).parent
INVENTORY = ROOT / "ansible" / "inventory" / "lima.py"
TEMPLATE = yaml.safe_load((ROOT / "lima" / "raft-node.yaml").read_text())
CLUSTER = yaml.safe_load((ROOT / "lima" / "cluster.yml").read_text())


@pytest.fixture
def lima(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path)


def inventory(lima: StandIn) -> dict[str, Any]:
    done = subprocess.run(
        [INVENTORY, "--list"], env=lima.environment, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def limactl(lima: StandIn, *words: str) -> None:
    subprocess.run(["limactl", *words], env=lima.environment, check=True, capture_output=True)


def test_the_vms_are_made_once_and_started_when_they_do_not_run(lima: StandIn) -> None:
    first = lima.play("lima.yml")
    assert first.returncode == 0, first.stdout
    nodes = CLUSTER["raft_lima_nodes"]
    assert [call[0] for call in lima.calls()] == ["create"] * 3 + ["start"] * 3
    made = lima.calls()[0]
    assert made[1:3] == ["--tty=false", "--name=raft-node-01"]
    assert made[-1] == str(ROOT / "lima" / "raft-node.yaml")
    hosts = inventory(lima)["_meta"]["hostvars"]
    assert {name: f"{host['raft_address']}/24" for name, host in hosts.items()} == nodes

    before = len(lima.calls())
    again = lima.play("lima.yml")
    assert again.returncode == 0, again.stdout
    assert "changed=0" in again.stdout
    assert len(lima.calls()) == before

    vm = lima.home / "raft-node-02" / "vm.json"
    vm.write_text(vm.read_text().replace('"Running"', '"Stopped"'))
    lima.play("lima.yml")
    assert lima.calls()[before:] == [["start", "--tty=false", "raft-node-02"]]


def test_a_vm_that_was_made_otherwise_is_refused_before_anything_is_changed(lima: StandIn) -> None:
    lima.play("lima.yml")
    before = len(lima.calls())
    moved = json.dumps({"raft_lima_nodes": {"node-01": "192.168.105.21/24", "node-04": "x"}})
    refused = lima.play("lima.yml", "-e", moved)
    assert refused.returncode != 0
    said = re.sub(r"\s+", " ", refused.stdout)
    assert "The VM raft-node-01 has the address 192.168.105.11/24 on shared" in said
    assert "limactl delete raft-node-01" in said
    assert len(lima.calls()) == before


def test_the_network_is_the_one_that_was_asked_for(lima: StandIn) -> None:
    one = {"raft_lima_nodes": {"node-01": "192.168.104.11/24"}, "raft_lima_network": "user-v2"}
    assert lima.play("lima.yml", "-e", json.dumps(one)).returncode == 0
    vm = json.loads((lima.home / "raft-node-01" / "vm.json").read_text())
    assert [network["lima"] for network in vm["network"]] == ["user-v2"]


def test_the_inventory_has_the_vms_of_the_cluster_that_run(lima: StandIn) -> None:
    assert inventory(lima) == {
        "lima": {"hosts": []},
        "raft": {"hosts": []},
        "_meta": {"hostvars": {}},
    }
    lima.play("lima.yml")
    for name, status in (("raft-node-03", "Stopped"), ("other", "Running")):
        vm = json.loads((lima.home / "raft-node-03" / "vm.json").read_text())
        (lima.home / name).mkdir(exist_ok=True)
        (lima.home / name / "vm.json").write_text(json.dumps(vm | {"name": name, "status": status}))
    found = inventory(lima)
    assert found["raft"]["hosts"] == found["lima"]["hosts"] == ["node-01", "node-02"]
    assert found["_meta"]["hostvars"]["node-01"] == {
        "ansible_host": "lima-raft-node-01",
        "ansible_ssh_common_args": f"-F '{lima.home}/raft-node-01/ssh.config'",
        "raft_address": "192.168.105.11",
    }


def test_without_limactl_the_inventory_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, INVENTORY, "--list"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "limactl is not installed (brew install lima)\n"


def test_other_inventories_do_not_ask_for_vms(lima: StandIn, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("raft: {hosts: {one: {ansible_host: 192.0.2.1}}}\n")
    static = subprocess.run(
        [BIN / "ansible-playbook", "-i", hosts, "lima.yml"],
        cwd=ROOT / "ansible",
        env=lima.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert static.returncode == 0, static.stdout
    assert not (lima.home / "calls.jsonl").exists()
    assert "localhost" not in static.stdout


def test_the_template_is_small_and_shuts_the_mac_out() -> None:
    assert TEMPLATE["mounts"] == []
    assert TEMPLATE["containerd"] == {"system": False, "user": False}
    assert TEMPLATE["portForwards"] == [{"guestIP": "0.0.0.0", "proto": "any", "ignore": True}]
    assert TEMPLATE["base"] == "template:_images/debian-12"
    assert TEMPLATE["minimumLimaVersion"] == "2.0.0"  # the scheme is of that version


@pytest.mark.parametrize("part", [*TEMPLATE["provision"], *TEMPLATE["probes"]])
def test_a_script_of_the_template_parses(part: dict[str, str]) -> None:
    script = part["script"]
    program = script.splitlines()[0].removeprefix("#!")
    subprocess.run([program, "-n"], input=script, text=True, check=True)
