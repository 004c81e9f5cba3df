#!/usr/bin/python
"""An Ansible module: how a raft-agent and its files stand on a host. It changes nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: raft_look
short_description: How a raft-agent and its files stand on a host
description: Asks systemd, the agent and the file system at once, and changes nothing.
author: raft-ebpf
options:
  name: {description: The member's name., type: str, required: true}
  etc_dir: {description: Where raft.toml is., type: str, required: true}
  opt_dir: {description: Where the releases are., type: str, required: true}
  data_dir: {description: Where the log is., type: str, required: true}
  release: {description: The release that shall run., type: str, default: ""}
"""

EXAMPLES = r"""
- name: Look
  raft_look: {name: node-01, etc_dir: /etc/raft, opt_dir: /opt/raft, data_dir: /var/lib/raft}
"""

RETURN = r"""
active: {description: Whether the service runs., type: bool, returned: always}
status: {description: What raftctl status says, or nothing., type: dict, returned: always}
health: {description: What raftctl health says, or nothing., type: dict, returned: always}
empty: {description: Whether the data directory holds no member., type: bool, returned: always}
founders: {description: The peers of the first start; none before., type: list, returned: always}
release: {description: The release in force., type: str, returned: always}
certificate: {description: What it says, or nothing., type: dict, returned: always}
pending: {description: Why a start is due; empty when none is., type: list, returned: always}
"""

UNIT = Path("/etc/systemd/system/raft-agent.service")
# How long an agent may take to answer; one that hangs counts as one that does not.
_PATIENCE_S = 10


def answer(command: list[str]) -> dict[str, Any] | None:
    """What raftctl says, as data; None when it does not answer."""
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
        )
        said = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return said if isinstance(said, dict) and "error" not in said else None


def content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def look(name: str, etc: Path, opt: Path, data: Path, release: str) -> dict[str, Any]:
    """All of it; `release`: the one that is wanted."""
    state = subprocess.run(
        ["systemctl", "is-active", "raft-agent.service"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    current = opt / "current"
    in_force = current.resolve().name if current.is_symlink() else ""
    program = opt / "releases" / (in_force or release) / "bin" / "raftctl"
    active = state == "active"
    ask = [str(program), "--node", name, "--timeout", "5", "--output", "json"]
    certificate = etc / "tls" / f"{name}.pem"
    shown = (
        answer([*ask, "cert", "show", str(certificate)])
        if certificate.exists() and program.exists()
        else None
    )
    founders = content(etc / "founders.json")
    return {
        "active": active,
        "status": answer([*ask, "status"]) if active else None,
        "health": answer([*ask, "health"]) if active else None,
        "empty": not (data / "identity").exists(),
        "founders": None if founders is None else json.loads(founders),
        "release": in_force,
        "certificate": shown["found"][0] if shown else None,
        "pending": _pending(etc, active, in_force, release),
    }


def _pending(etc: Path, active: bool, in_force: str, wanted: str) -> list[str]:
    staged = etc / "staged"
    reasons = [] if active else ["the agent does not run"]
    if wanted and in_force != wanted:
        reasons.append(f"release {wanted} in place of {in_force or 'none'}")
    for file, live in (("raft.toml", etc / "raft.toml"), ("raft-agent.service", UNIT)):
        if (prepared := content(staged / file)) is not None and prepared != content(live):
            reasons.append(f"{file} has changed")
    if (etc / "starting").exists():
        reasons.append("the last start did not come to its end")
    return reasons


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "etc_dir": {"type": "str", "required": True},
            "opt_dir": {"type": "str", "required": True},
            "data_dir": {"type": "str", "required": True},
            "release": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    found = look(
        given["name"],
        Path(given["etc_dir"]),
        Path(given["opt_dir"]),
        Path(given["data_dir"]),
        given["release"],
    )
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
