"""What docs/install.md has people type by hand is what the playbooks install."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2

from raft_agent.config import load

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "install.md").read_text()
TEMPLATE = ROOT / "ansible" / "roles" / "raft_node" / "templates" / "raft-agent.service.j2"
ANSIBLES_OWN = "# Written by Ansible from the inventory: changes here do not last.\n"


def block(kind: str) -> str:
    (found,) = re.findall(rf"```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_unit_is_that_of_the_playbooks_without_the_kernel_part() -> None:
    # As Ansible has jinja do it.
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True)  # noqa: S701
    unit = environment.from_string(TEMPLATE.read_text()).render(
        raft_name="node-01",
        raft_data_dir="/var/lib/raft",
        raft_opt_dir="/opt/raft",
        raft_etc_dir="/etc/raft",
        raft_ebpf_enabled=False,
        raft_node_open_files=65536,
        raft_node_memory_max="infinity",
        raft_node_cpus="",
    )
    assert ANSIBLES_OWN + block("ini") == unit


def test_the_agent_takes_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "raft.toml"
    file.write_text(block("toml"))
    # The group is made on the page, and not on the machine of the tests.
    config = load(file, overrides=["server.ipc_group="], environ={})
    assert config.server.node_id == "node-01"
    assert [peer.id for peer in config.peers] == ["node-02", "node-03"]
    assert config.ipc_socket == "/run/raft/node-01.sock"
