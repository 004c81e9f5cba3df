#!/usr/bin/env python3
"""An inventory of the Lima VMs of raft-ebpf, which are those whose name begins with raft-.

Without any, it is empty but for the group lima, by which site.yml knows that it has to make them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PREFIX = "raft-"


def instances() -> list[dict[str, Any]]:
    """What `limactl list --json` says: one object a line, and nothing when there is no VM.

    Raises OSError without limactl, subprocess.CalledProcessError when it fails.
    """
    done = subprocess.run(
        ["limactl", "list", "--json"],  # noqa: S607
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


def inventory(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The VMs that run, as Ansible wants them. Lima keeps for each a file that says how SSH
    reaches it."""
    hosts = {}
    for vm in found:
        if not vm["name"].startswith(PREFIX) or vm["status"] != "Running":
            continue
        name = vm["name"].removeprefix(PREFIX)
        hosts[name] = {
            "ansible_host": vm["hostname"],
            "ansible_ssh_common_args": f"-F '{vm['sshConfigFile']}'",
            "raft_address": vm.get("param", {}).get("address", "").partition("/")[0],
        }
    names = sorted(hosts)
    return {
        "lima": {"hosts": names},
        "raft": {"hosts": names},
        "_meta": {"hostvars": hosts},
    }


def main() -> int:
    if sys.argv[1:2] == ["--host"]:
        print("{}")
        return 0
    try:
        found = instances()
    except OSError:
        print("limactl is not installed (brew install lima)", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"limactl list --json failed: {error.stderr.strip()}", file=sys.stderr)
        return 1
    print(json.dumps(inventory(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
