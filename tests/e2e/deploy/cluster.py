"""The cluster that the tests share, and what they ask of one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from tests.e2e.agents import wait_for
from tests.e2e.deploy.machines import Machine, Site, bare

NAMES = ("node-01", "node-02", "node-03")


class Shared:
    """Made when the first test wants it; when it is spent, the next test gets another one."""

    def __init__(self, measured: Callable[[str], None]) -> None:
        self._measured = measured
        self._made: Site | None = None

    def take(self) -> Site:
        """As site.yml has left it, or the last test."""
        if self._made is not None and self._made.spent:
            self.close()
        if self._made is None:
            self._made = bare(*NAMES)
            try:
                self._deploy(self._made)
            except BaseException as error:
                self.close(keep=not isinstance(error, KeyboardInterrupt))
                raise
        return self._made

    def _deploy(self, made: Site) -> None:
        started = time.monotonic()
        made.play("site.yml")
        self._measured(
            "site.yml, three bare machines and the wheels at hand: "
            f"{time.monotonic() - started:.0f} s until all are healthy (bar: 180 s)"
        )

    def close(self, *, keep: bool = False) -> None:
        """`keep`: the machines' files stay, and the place is printed."""
        made, self._made = self._made, None
        if made is not None:
            made.close(keep=keep)


def health(machine: Machine) -> dict[str, object]:
    """What it says itself; empty while it says nothing or knows no leader."""
    said = machine.run(f"raftctl --node {machine.name} -o json health", check=False)
    found = json.loads(said.stdout) if said.stdout.startswith("{") else {}
    return found if found.get("leader") else {}


def members(machine: Machine) -> dict[str, dict[str, str]]:
    """By name, as the leader has them."""
    listed = json.loads(machine.raftctl("-o json member list"))["members"]
    return {member["name"]: member for member in listed}


def statuses(made: Site) -> dict[str, dict[str, object]]:
    """By name, as each says itself."""
    return {
        name: json.loads(machine.raftctl("-o json status"))
        for name, machine in made.machines.items()
    }


def pids(made: Site) -> dict[str, str]:
    """Of the agents, by name."""
    return {
        name: machine.run("systemctl show -P MainPID raft-agent").stdout.strip()
        for name, machine in made.machines.items()
    }


def leader(made: Site) -> Machine:
    """Who leads, as soon as somebody does."""

    def found() -> Machine | None:
        for machine in made.machines.values():
            said = machine.run(f"raftctl --node {machine.name} -o json status", check=False)
            if said.returncode == 0 and json.loads(said.stdout)["role"] == "leader":
                return machine
        return None

    return wait_for("a leader", found, timeout_s=180)


def all_healthy(made: Site) -> None:
    """Waits until each member sees all of them well."""

    def well() -> bool | None:
        for machine in made.machines.values():
            states = {member["state"] for member in health(machine).get("members", [])}
            if states != {"healthy"}:
                return None
        return True

    wait_for("all members to be healthy", well, timeout_s=300)
