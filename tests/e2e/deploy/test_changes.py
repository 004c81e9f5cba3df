"""What happens to a cluster in its life: hosts come, go, are replaced and upgraded."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from raft_agent.api.client import Endpoint, SyncClient
from raft_agent.tls.files import TlsFiles
from tests.e2e.deploy.machines import ROOT, Machine, Site, site
from tests.e2e.writers import Writers
from tests.kernel.netns import inside

pytestmark = pytest.mark.long

NAMES = ("node-01", "node-02", "node-03")


def members(machine: Machine) -> dict[str, dict[str, str]]:
    """By name, as the leader has them."""
    listed = json.loads(machine.raftctl("-o json member list"))["members"]
    return {member["name"]: member for member in listed}


def releases(made: Site) -> dict[str, str]:
    """The version that each member runs."""
    return {
        name: json.loads(machine.raftctl("-o json status"))["version"]
        for name, machine in made.machines.items()
    }


def another_version(home: Path, version: str, *, starts: bool = True) -> Path:
    """A checkout that says it is of that version."""
    source = home / f"source-{version}"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("node_agent", "cli", "requirements", "tools"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    named = source / "node_agent/raft_agent/__init__.py"
    lines = named.read_text().splitlines()
    new = [f'__version__ = "{version}"' if "__version__ =" in line else line for line in lines]
    named.write_text("\n".join(new) + "\n")
    if not starts:
        main = source / "node_agent/raft_agent/runtime/__init__.py"
        main.write_text(main.read_text() + '\nraise RuntimeError("this release does not start")\n')
    return source


def test_hosts_come_and_go_and_one_is_replaced_under_its_name() -> None:
    with site(*NAMES) as made:
        made.play("site.yml")
        one = made.machines["node-01"]
        one.raftctl("--forward propose put city Graz")

        made.add("node-04").wait()
        made.play("join.yml", "-e", "raft_host=node-04")
        assert members(one).keys() == {*NAMES, "node-04"}
        assert {member["role"] for member in members(one).values()} == {"voter"}
        assert made.machines["node-04"].raftctl("propose get city") == "Graz\n"

        made.play("leave.yml", "-e", "raft_member=node-04")
        assert members(one).keys() == set(NAMES)
        off = made.machines["node-04"].run("systemctl is-enabled raft-agent", check=False)
        assert off.stdout.strip() == "disabled"

        _wiped_and_replaced(made)
        _guarded(made)


def _guarded(made: Site) -> None:
    """While a member is cut off nobody is restarted for a changed setting; later all are."""
    made.variables["raft_node_log_level"] = "debug"
    three = made.machines["node-03"]
    others = [made.machines[name].address for name in NAMES[:2]]
    three.run("; ".join(f"ip route add blackhole {address}/32" for address in others))
    made.machines["node-01"].run(
        "until raftctl --node node-01 -o json health | grep -q unreachable; do sleep 0.2; done"
    )
    before = pids(made)
    refused = made.play("site.yml", check=False, hosts=NAMES)
    assert refused.returncode != 0
    said = re.sub(r"\s+", " ", refused.stdout)
    assert re.search(r"node-0[12] must not be stopped now: [^.]*node-03 is unreachable", said), said
    assert pids(made) == before
    assert "debug" not in made.machines["node-01"].run("cat /etc/raft/raft.toml").stdout
    three.run("; ".join(f"ip route del blackhole {address}/32" for address in others))
    made.machines["node-01"].run(
        "while raftctl --node node-01 -o json health | grep -q unreachable; do sleep 0.2; done"
    )
    made.play("site.yml", hosts=NAMES)
    for name in NAMES:
        assert pids(made)[name] != before[name]
        assert "debug" in made.machines[name].run("cat /etc/raft/raft.toml").stdout


def pids(made: Site) -> dict[str, str]:
    """Of the agents, by node."""
    return {
        name: made.machines[name].run("systemctl show -P MainPID raft-agent").stdout.strip()
        for name in NAMES
    }


def _wiped_and_replaced(made: Site) -> None:
    one, three = made.machines["node-01"], made.machines["node-03"]
    lost = members(one)["node-03"]["id"]
    three.kill()
    three.make()
    three.boot()
    three.wait()
    refused = made.play("site.yml", check=False, hosts=NAMES)
    assert refused.returncode != 0
    assert "Is the right disk mounted there?" in refused.stdout
    assert members(one)["node-03"]["id"] == lost
    replace = json.dumps({"raft_cluster_replace": ["node-03"]})
    made.play("site.yml", "-e", replace, hosts=NAMES)
    assert members(one)["node-03"]["id"] != lost
    assert three.raftctl("propose get city") == "Graz\n"


def test_a_backup_becomes_the_same_data_on_machines_that_were_wiped() -> None:
    with site(*NAMES) as made:
        made.play("site.yml")
        one, three = made.machines["node-01"], made.machines["node-03"]
        one.raftctl("--forward propose put city Graz")
        one.raftctl("--forward propose put river Mur")
        one.raftctl('--forward send "before the fire"')
        was = json.loads(one.raftctl("-o json status"))["cluster_id"]
        made.play("backup.yml")
        (backup,) = (made.home / "backups").iterdir()
        refused = made.play("restore.yml", "-e", f"raft_backup_file={backup}", check=False)
        assert refused.returncode != 0
        assert "has the data of a member" in refused.stdout

        _backed_up_by_the_clock(made)

        made.play("reset.yml", "-e", "raft_reset=yes", "-e", "raft_wipe_data=true")
        assert one.run("ls -A /var/lib/raft").stdout == ""
        made.play("restore.yml", "-e", f"raft_backup_file={backup}")
        for machine in (one, three):
            assert machine.raftctl("propose get city") == "Graz\n"
            assert machine.raftctl("propose get river") == "Mur\n"
            assert "before the fire" in machine.raftctl("messages")
        assert members(one).keys() == set(NAMES)
        assert json.loads(one.raftctl("-o json status"))["cluster_id"] != was


def _backed_up_by_the_clock(made: Site) -> None:
    """Every two seconds, so that there is something to forget soon: on one host by number, on
    another by age."""
    one, two = made.machines["node-01"], made.machines["node-02"]
    folder = "/var/backups/raft"
    made.variables |= {
        "raft_autobackup_spread_s": 0,
        "raft_autobackup_after": f'cp "$FILE" {folder}/copied',
    }
    made.own_variables = {
        "node-01": {"raft_autobackup_schedule": "*:*:0/2", "raft_autobackup_keep": 3},
        "node-02": {
            "raft_autobackup_schedule": "*:*:0/2",
            "raft_autobackup_keep": 1000,
            "raft_autobackup_keep_days": 30,
        },
    }
    made.play("site.yml")
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
    three = made.machines["node-03"]
    assert three.run("systemctl cat raft-backup.timer", check=False).returncode != 0

    made.own_variables = {}
    made.play("site.yml")
    assert one.run("systemctl cat raft-backup.timer", check=False).returncode != 0
    assert one.run(f"ls {folder}/raft-*.raft").stdout


def test_an_upgrade_under_load_loses_nothing_and_one_that_does_not_start_is_taken_back() -> None:
    with site(*NAMES) as made:
        made.play("site.yml")
        one = made.machines["node-01"]
        before = json.loads(one.raftctl("-o json status"))["term"]

        pki = made.home / "pki"
        files = TlsFiles(*(str(pki / name) for name in ("ca.pem", "admin.pem", "admin-key.pem")))
        endpoints = {
            name: Endpoint(f"{machine.address}:5555", files)
            for name, machine in made.machines.items()
        }
        writers = Writers(endpoints, clients=32)
        later = another_version(made.home, "0.1.1")
        with inside(made.namespace), writers.writing():
            made.play("upgrade.yml", "-e", f"raft_source={later}")
        assert set(releases(made).values()) == {"0.1.1"}
        print(f"{len(writers.acks)} writes, longest gap {writers.longest_gap_s():.3f} s")
        assert writers.errors == []
        _all_there(made, writers, endpoints)
        after = json.loads(one.raftctl("-o json status"))["term"]
        assert after - before <= 2, "the leader moved more often than twice"

        _refused_while_one_is_down(made)
        _taken_back(made)


def _all_there(made: Site, writers: Writers, endpoints: dict[str, Endpoint]) -> None:
    with inside(made.namespace), SyncClient(endpoints["node-02"], 20) as client:
        keys = {key for _, key in writers.acks}
        found = set()
        after = ""
        while True:
            page = client.list("w", limit=1000, after=after)
            found |= {item.key for item in page.keys}
            if not page.more:
                break
            after = page.keys[-1].key
    assert len(keys) > 100
    assert keys - found == set()


def _refused_while_one_is_down(made: Site) -> None:
    made.machines["node-03"].run("systemctl stop raft-agent")
    latest = another_version(made.home, "0.1.2")
    refused = made.play("upgrade.yml", "-e", f"raft_source={latest}", check=False)
    assert refused.returncode != 0
    assert "the agent of node-03 does not run" in refused.stdout
    made.machines["node-03"].run("systemctl start raft-agent")
    made.machines["node-03"].run("until raftctl --node node-03 health; do sleep 0.2; done")
    assert set(releases(made).values()) == {"0.1.1"}


def _taken_back(made: Site) -> None:
    broken = another_version(made.home, "0.1.3", starts=False)
    failed = made.play("upgrade.yml", "-e", f"raft_source={broken}", check=False)
    assert failed.returncode != 0
    assert "this release does not start" in failed.stdout
    assert len(set(re.findall(r"^fatal: \[([\w-]+)\]", failed.stdout, re.MULTILINE))) == 1
    made.machines["node-01"].run("until raftctl --node node-01 health; do sleep 0.2; done")
    assert set(releases(made).values()) == {"0.1.1"}
