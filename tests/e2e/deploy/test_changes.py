"""What happens to a cluster in its life: hosts come, go and are replaced, its settings change, and
it is backed up and restored.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e.deploy.cluster import NAMES, members, pids
from tests.e2e.deploy.machines import TIMING, Site

pytestmark = pytest.mark.long


def test_a_host_joins_with_all_that_the_cluster_knows_and_leaves(cluster: Site) -> None:
    one = cluster.machines["node-01"]
    one.raftctl("--forward propose put city Graz")
    before = pids(cluster)

    four = cluster.add("node-04")
    four.wait()
    cluster.play("join.yml", "-e", "raft_host=node-04")
    assert members(one).keys() == {*NAMES, "node-04"}
    assert {member["role"] for member in members(one).values()} == {"voter"}
    assert four.raftctl("propose get city") == "Graz\n"

    cluster.play("leave.yml", "-e", "raft_member=node-04")
    assert members(one).keys() == set(NAMES)
    off = four.run("systemctl is-enabled raft-agent", check=False)
    assert off.stdout.strip() == "disabled"
    cluster.remove("node-04")
    assert pids(cluster) == before


def test_a_machine_that_lost_its_disk_is_replaced_under_its_name_once_that_is_said(
    cluster: Site,
) -> None:
    one, three = cluster.machines["node-01"], cluster.machines["node-03"]
    one.raftctl("--forward propose put city Graz")
    lost = members(one)["node-03"]["id"]
    three.kill()
    three.make()
    three.boot()
    three.wait()
    refused = cluster.play("site.yml", check=False)
    assert refused.returncode != 0
    assert "Is the right disk mounted there?" in refused.stdout
    assert members(one)["node-03"]["id"] == lost
    replace = json.dumps({"raft_cluster_replace": ["node-03"]})
    cluster.play("site.yml", "-e", replace)
    assert members(one)["node-03"]["id"] != lost
    assert three.raftctl("propose get city") == "Graz\n"


def test_nobody_is_restarted_for_a_changed_setting_while_a_member_is_cut_off(cluster: Site) -> None:
    beats = TIMING["heartbeat_interval_ms"] + 1
    cluster.variables["raft_node_settings"] = {"timing": {**TIMING, "heartbeat_interval_ms": beats}}
    three = cluster.machines["node-03"]
    others = [cluster.machines[name].address for name in NAMES[:2]]
    three.run("; ".join(f"ip route add blackhole {address}/32" for address in others))
    cluster.machines["node-01"].run(
        "until raftctl --node node-01 -o json health | grep -q unreachable; do sleep 0.2; done"
    )
    before = pids(cluster)
    refused = cluster.play("site.yml", check=False)
    assert refused.returncode != 0
    said = re.sub(r"\s+", " ", refused.stdout)
    assert re.search(r"node-0[12] must not be stopped now: [^.]*node-03 is unreachable", said), said
    assert pids(cluster) == before
    setting = f"heartbeat_interval_ms = {beats}"
    assert setting not in cluster.machines["node-01"].run("cat /etc/raft/raft.toml").stdout
    three.run("; ".join(f"ip route del blackhole {address}/32" for address in others))
    cluster.machines["node-01"].run(
        "while raftctl --node node-01 -o json health | grep -q unreachable; do sleep 0.2; done"
    )
    cluster.play("site.yml")
    after = pids(cluster)
    for name, machine in cluster.machines.items():
        assert after[name] != before[name]
        assert setting in machine.run("cat /etc/raft/raft.toml").stdout


def test_a_backup_becomes_the_same_data_on_machines_that_were_wiped(cluster: Site) -> None:
    one, three = cluster.machines["node-01"], cluster.machines["node-03"]
    one.raftctl("--forward propose put city Graz")
    one.raftctl("--forward propose put river Mur")
    one.raftctl('--forward send "before the fire"')
    was = json.loads(one.raftctl("-o json status"))["cluster_id"]
    (cluster.home / "backups").mkdir()
    (cluster.home / "backups" / "raft-20200101T000000Z.raft").touch()
    cluster.play("backup.yml", "-e", "raft_backup_keep=1")
    (backup,) = (cluster.home / "backups").iterdir()
    assert "2020" not in backup.name
    refused = cluster.play("restore.yml", "-e", f"raft_backup_file={backup}", check=False)
    assert refused.returncode != 0
    assert "has the data of a member" in refused.stdout

    cluster.play("reset.yml", "-e", "raft_reset=yes", "-e", "raft_wipe_data=true")
    assert one.run("ls -A /var/lib/raft").stdout == ""
    cluster.play("restore.yml", "-e", f"raft_backup_file={backup}")
    for machine in (one, three):
        assert machine.raftctl("propose get city") == "Graz\n"
        assert machine.raftctl("propose get river") == "Mur\n"
        assert "before the fire" in machine.raftctl("messages")
    assert members(one).keys() == set(NAMES)
    assert json.loads(one.raftctl("-o json status"))["cluster_id"] != was


def test_hosts_back_up_by_the_clock_and_forget_old_backups(cluster: Site) -> None:
    """Every two seconds, so that there is something to forget soon: on one host by number, on
    another by age.
    """
    one, two = cluster.machines["node-01"], cluster.machines["node-02"]
    folder = "/var/backups/raft"
    often = {
        "raft_autobackup_schedule": "*:*:0/2",
        "raft_autobackup_spread_s": 0,
        "raft_autobackup_after": f'cp "$FILE" {folder}/copied',
    }
    cluster.own_variables = {
        "node-01": {**often, "raft_autobackup_keep": 3},
        "node-02": {**often, "raft_autobackup_keep": 1000, "raft_autobackup_keep_days": 30},
    }
    cluster.play("site.yml")
    shown = one.run("systemd-analyze security --no-pager raft-backup.service").stdout
    found = re.search(r"Overall exposure level for raft-backup.service: ([\d.]+)", shown)
    assert found is not None
    assert float(found[1]) <= 2.5, shown
    one.run(f"until [ $(ls {folder}/raft-*.raft | wc -l) = 3 ]; do sleep 0.2; done")
    first = one.run(f"ls {folder}/raft-*.raft | head -n 1").stdout.strip()
    one.run(
        f"until [ ! -e {first} ] && [ $(ls {folder}/raft-*.raft | wc -l) = 3 ]; do sleep 0.2; done"
    )

    two.run(f"until [ -e {folder}/copied ]; do sleep 0.2; done; touch {folder}/notes")
    for name, age in (("raft-20200101T000000Z", 31), ("raft-20200102T000000Z", 29)):
        two.run(f"cd {folder} && cp -p copied {name}.raft && touch -d '{age} days ago' {name}.raft")
    two.run(f"touch -d '90 days ago' {folder}/notes")
    two.run(f"until [ ! -e {folder}/raft-20200101T000000Z.raft ]; do sleep 0.2; done")
    two.run(f"ls {folder}/raft-20200102T000000Z.raft {folder}/notes")
    two.run(f"raftctl snapshot status {folder}/copied")
    assert two.run(f"stat --format='%a %U' {folder}/copied").stdout.split() == ["600", "raft"]
    three = cluster.machines["node-03"]
    assert three.run("systemctl cat raft-backup.timer", check=False).returncode != 0

    cluster.own_variables = {}
    cluster.play("site.yml")
    assert one.run("systemctl cat raft-backup.timer", check=False).returncode != 0
    assert one.run(f"ls {folder}/raft-*.raft").stdout
