"""What happens to machines: a cluster comes back from it without hands."""

from __future__ import annotations

import datetime
import json

import pytest

from tests.e2e.deploy.cluster import all_healthy, leader
from tests.e2e.deploy.machines import Site

pytestmark = pytest.mark.long

HOUR = datetime.timedelta(hours=1)


def test_a_cluster_comes_back_when_its_leader_reboots_and_when_all_lose_power(
    cluster: Site,
) -> None:
    cluster.machines["node-01"].raftctl("--forward propose put city Graz")
    _one_reboots(cluster)
    _all_lose_power(cluster)


def _still_there(cluster: Site) -> None:
    all_healthy(cluster)
    for machine in cluster.machines.values():
        assert machine.raftctl("propose get city") == "Graz\n"


def _one_reboots(cluster: Site) -> None:
    """The leader, by its own systemd; the others serve meanwhile."""
    machine = leader(cluster)
    others = [other for other in cluster.machines.values() if other is not machine]
    machine.reboot()
    assert others[0].raftctl("propose get city") == "Graz\n"
    machine.wait()
    _still_there(cluster)


def _all_lose_power(cluster: Site) -> None:
    for machine in cluster.machines.values():
        machine.kill()
    for machine in cluster.machines.values():
        machine.boot()
    cluster.wait()
    _still_there(cluster)


# The data move to a disk that is nearly full, with the room that the log has written in advance.
_SMALL_DISK = """
set -eu
systemctl stop raft-agent
mkdir /mnt/small
mount -t tmpfs -o size=$(($(du -sm /var/lib/raft | cut -f 1) + 16))m tmpfs /mnt/small
cp -a --sparse=never /var/lib/raft/. /mnt/small
mount --bind /mnt/small /var/lib/raft
systemctl start raft-agent
"""
# And back.
_LARGE_DISK = """
set -eu
systemctl stop raft-agent
umount /var/lib/raft
find /var/lib/raft -mindepth 1 -delete
cp -a /mnt/small/. /var/lib/raft
umount /mnt/small
systemctl start raft-agent
"""


def test_a_leader_whose_disk_is_full_gives_way_until_there_is_room_again(cluster: Site) -> None:
    led = leader(cluster)
    full = next(machine for machine in cluster.machines.values() if machine is not led)
    full.run(_SMALL_DISK)
    all_healthy(cluster)
    full.raftctl(f"--forward leader transfer {full.name}")
    assert leader(cluster) is full
    full.run("fallocate -l $(df --output=avail -B1 /var/lib/raft | tail -n 1) /var/lib/raft/junk")
    # Its log has some prewritten room left, which is used up first.
    put = f"head -c 1048576 /dev/zero | raftctl --node {led.name} --forward propose put big -"
    for _ in range(60):
        led.run(put, check=False)
        if leader(cluster) is not full:
            break
    assert leader(cluster) is not full
    led.raftctl("--forward propose put meanwhile yes")
    note = json.loads(full.raftctl("-o json status"))["note"]
    assert "space" in note.lower(), note
    full.run("rm /var/lib/raft/junk")
    all_healthy(cluster)
    assert full.raftctl("propose get meanwhile") == "yes\n"
    full.run(_LARGE_DISK)
    all_healthy(cluster)


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


_CLOCK_OF_ALL = """
rm -r /etc/systemd/system/raft-agent.service.d /etc/raft/clock
systemctl daemon-reload
systemctl restart raft-agent
"""


def test_clocks_that_jump_by_an_hour_do_no_harm(cluster: Site) -> None:
    """The agents' clocks on the wall (the machines share this one's kernel, and its clock is
    everybody's): the leader's an hour forth and back again, then everybody's.
    """
    cluster.machines["node-01"].raftctl("--forward propose put city Graz")
    for machine in cluster.machines.values():
        machine.run(_CLOCK)
        all_healthy(cluster)
    led = leader(cluster)
    began = datetime.datetime.now(datetime.UTC)
    machines = list(cluster.machines.values())
    for word, jumped in (("+3600", [led]), ("+0", [led]), ("+3600", machines)):
        for machine in jumped:
            machine.run(f"echo {word} > /etc/raft/clock")
        led.raftctl(f'--forward send "the clock says {word}"')
        _still_there(cluster)
    # The time in the log has never gone back.
    sent = led.raftctl("-o json messages --limit 3").splitlines()
    times = [datetime.datetime.fromisoformat(json.loads(line)["time"]) for line in sent]
    assert times == sorted(times, reverse=True)
    assert times[0] - began > HOUR / 2, "the agent did not see its clock jump"
    for machine in cluster.machines.values():
        machine.run(_CLOCK_OF_ALL)
        all_healthy(cluster)
