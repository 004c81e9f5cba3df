"""A stand-in for limactl, which needs macOS or KVM: it makes no VM. It records what it is called
with, refuses what the real one refuses of that, and answers in the shapes of Lima 2.

Its state is in $LIMA_HOME: `calls.jsonl` holds the words of each call, `NAME/vm.json` is what
`list --json` says of a VM. `start` has SSH reach what $STANDIN_SSH says (JSON by instance:
Hostname, Port, User, IdentityFile), and this machine otherwise.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml

HOME = Path(os.environ.get("LIMA_HOME", Path.home() / ".lima"))
_SSH_CONFIG = """\
# This SSH config file can be passed to 'ssh -F'.
# This file is created by Lima, but not used by Lima itself currently.
# Modifications to this file will be lost on restarting the Lima instance.
Host lima-{name}
  IdentityFile "{IdentityFile}"
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  NoHostAuthenticationForLocalhost yes
  PreferredAuthentications publickey
  Compression no
  BatchMode yes
  IdentitiesOnly yes
  GSSAPIAuthentication no
  Ciphers "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
  User {User}
  ControlMaster auto
  ControlPath "{home}/{name}/ssh.sock"
  ControlPersist yes
  Hostname {Hostname}
  Port {Port}
"""


def fatal(text: str) -> int:
    print(f'time="2026-11-28T09:00:00+01:00" level=fatal msg={json.dumps(text)}', file=sys.stderr)
    return 1


def vms() -> dict[str, Path]:
    return {file.parent.name: file for file in sorted(HOME.glob("*/vm.json"))}


def show() -> int:
    """One object a line; without any VM a warning, and nothing."""
    found = vms()
    if not found:
        text = "No instance found. Run `limactl create` to create an instance."
        print(f'time="2026-11-28T09:00:00+01:00" level=warning msg="{text}"', file=sys.stderr)
    for file in found.values():
        print(json.dumps(json.loads(file.read_text())))
    return 0


def create(words: list[str]) -> int:
    """limactl create --tty=false --name=NAME --set EXPRESSION TEMPLATE"""
    options, rest = _options(words)
    name, template = options["--name"], yaml.safe_load(Path(rest[0]).read_text())
    if name in vms():
        return fatal(f'instance "{name}" already exists')
    if problem := _problem(template):
        return fatal(problem)
    expression = options["--set"]
    # Of yq's language the two assignments that lima.yml makes.
    matched = re.fullmatch(r'\.networks = (\[.*\]) \| \.param\.address = "([^"]*)"', expression)
    if matched is None:
        return fatal(f"failed to evaluate yq expression: {expression}")
    template["networks"] = json.loads(matched[1])
    template["param"]["address"] = matched[2]
    folder = HOME / name
    folder.mkdir(parents=True)
    vm = {
        "name": name,
        "hostname": f"lima-{name}",
        "status": "Stopped",
        "dir": str(folder),
        "vmType": "vz",
        "arch": "aarch64",
        "cpus": template["cpus"],
        "memory": 1 << 30,
        "disk": 8 << 30,
        "network": [
            {**network, "macAddress": "52:55:55:00:00:01", "interface": "lima0", "metric": 100}
            for network in template["networks"]
        ],
        "sshConfigFile": str(folder / "ssh.config"),
        "config": {**template, "user": {"name": "me", "uid": 501}},
        "sshAddress": "127.0.0.1",
        "protected": False,
        "limaVersion": "2.0.3",
        "param": template["param"],
        "HostOS": "darwin",
        "HostArch": "aarch64",
        "LimaHome": str(HOME),
        "IdentityFile": str(HOME / "_config" / "user"),
    }
    (folder / "vm.json").write_text(json.dumps(vm))
    return 0


def _problem(template: dict[str, Any]) -> str | None:
    """What Lima's own check of a template has to say of those fields that ours uses."""
    scripts = [part["script"] for key in ("provision", "probes") for part in template[key]]
    for key in template["param"]:
        used = re.compile(r"{{[^}]*\.Param\." + key + r"[^}]*}}|\bPARAM_" + key + r"\b")
        if not any(used.search(script) for script in scripts):
            return (
                f'field `param` key "{key}" is not used in any provision, probe, copyToHost, '
                "or portForward"
            )
    for index, probe in enumerate(template["probes"]):
        if not probe["script"].startswith("#!"):
            return f'field `probe[{index}].script` must start with a "#!" line'
    return None


def start(words: list[str]) -> int:
    _, (name,) = _options(words)
    if name not in vms():
        return fatal(f'instance "{name}" does not exist')
    vm = json.loads(vms()[name].read_text())
    reached = {
        "Hostname": "127.0.0.1",
        "Port": 60022,
        "User": "me",
        "IdentityFile": vm["IdentityFile"],
        **json.loads(os.environ.get("STANDIN_SSH", "{}")).get(name, {}),
    }
    Path(vm["sshConfigFile"]).write_text(_SSH_CONFIG.format(name=name, home=HOME, **reached))
    vm |= {"status": "Running", "sshLocalPort": reached["Port"], "hostAgentPID": 4711}
    vms()[name].write_text(json.dumps(vm))
    return 0


def _options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    options, rest, left = {}, [], list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            rest.append(word)
        elif "=" in word:
            name, _, options_value = word.partition("=")
            options[name] = options_value
        else:
            options[word] = left.pop(0)
    return options, rest


def main() -> int:
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    match sys.argv[1:]:
        case ["list", "--json"]:
            return show()
        case ["create", *words]:
            return create(words)
        case ["start", *words]:
            return start(words)
    return fatal(f"unknown command {sys.argv[1:]!r}")


if __name__ == "__main__":
    sys.exit(main())
