"""What happens to machines: a cluster comes back from it without hands."""

from __future__ import annotations

import datetime
import json

import pytest

from tests.e2e.agents import wait_for
from tests.e2e.deploy.machines import Machine, Site, site

pytestmark = pytest.mark.long

NAMES = ("node-01", "node-02", "node-03")
DATA_MIB = 96
HOUR = datetime.timedelta(hours=1)


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
            said = machine.run(f"raftctl --node {machine.name} -o json health", check=False)
            if not said.stdout.startswith("{"):
                return None
            health = json.loads(said.stdout)
            if not health.get("leader"):
                return None
            if {member["state"] for member in health["members"]} != {"healthy"}:
                return None
        return True

    wait_for("all members to be healthy", well, timeout_s=300)


def test_a_cluster_comes_back_from_reboots_full_disks_and_clocks_that_jump() -> None:
    with site(*NAMES, data_mib=DATA_MIB) as made:
        made.variables["raft_preflight_min_free_mib"] = 32
        made.play("site.yml")
        made.machines["node-01"].raftctl("--forward propose put city Graz")
        _one_reboots(made)
        _all_lose_power(made)
        _a_disk_is_full(made)
        _clocks_jump(made)


def _still_there(made: Site) -> None:
    all_healthy(made)
    for machine in made.machines.values():
        assert machine.raftctl("propose get city") == "Graz\n"


def _one_reboots(made: Site) -> None:
    """The leader, by its own systemd; the others serve meanwhile."""
    machine = leader(made)
    others = [other for other in made.machines.values() if other is not machine]
    machine.reboot()
    assert others[0].raftctl("propose get city") == "Graz\n"
    machine.wait()
    _still_there(made)


def _all_lose_power(made: Site) -> None:
    for machine in made.machines.values():
        machine.kill()
    for machine in made.machines.values():
        machine.boot()
    made.wait()
    _still_there(made)


def _a_disk_is_full(made: Site) -> None:
    """The leader's: another one leads until there is room again."""
    full = leader(made)
    other = next(machine for machine in made.machines.values() if machine is not full)
    full.run("fallocate -l $(df --output=avail -B1 /var/lib/raft | tail -n 1) /var/lib/raft/junk")
    # Its log has some prewritten room left, which is used up first.
    put = f"head -c 1048576 /dev/zero | raftctl --node {other.name} --forward propose put big -"
    for _ in range(60):
        other.run(put, check=False)
        if leader(made) is not full:
            break
    assert leader(made) is not full
    other.raftctl("--forward propose put meanwhile yes")
    note = json.loads(full.raftctl("-o json status"))["note"]
    assert "space" in note.lower(), note
    full.run("rm /var/lib/raft/junk")
    _still_there(made)
    assert full.raftctl("propose get meanwhile") == "yes\n"


_CLOCK = """
mkdir -p /etc/systemd/system/raft-agent.service.d
cat > /etc/systemd/system/raft-agent.service.d/clock.conf <<END
[Service]
Environment=LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketime.so.1)
Environment=FAKETIME_TIMESTAMP_FILE=/etc/raft/clock FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1
END
echo +0 > /etc/raft/clock
systemctl daemon-reload
systemctl restart raft-agent
"""


def _clocks_jump(made: Site) -> None:
    """The agents' clocks on the wall (the machines share this one's kernel, and its clock is
    everybody's): the leader's an hour forth and back again, then everybody's."""
    for machine in made.machines.values():
        machine.run(_CLOCK)
        all_healthy(made)
    led = leader(made)
    began = datetime.datetime.now(datetime.UTC)
    for word, jumped in (("+3600", [led]), ("+0", [led]), ("+3600", [*made.machines.values()])):
        for machine in jumped:
            machine.run(f"echo {word} > /etc/raft/clock")
        led.raftctl(f'--forward send "the clock says {word}"')
        _still_there(made)
    # The time in the log has never gone back.
    sent = led.raftctl("-o json messages --limit 3").splitlines()
    times = [datetime.datetime.fromisoformat(json.loads(line)["time"]) for line in sent]
    assert times == sorted(times, reverse=True)
    assert times[0] - began > HOUR / 2, "the agent did not see its clock jump"
