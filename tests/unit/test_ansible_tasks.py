"""What single tasks of the playbooks do on a host, run here on files and a systemd of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ANSIBLE = Path(__file__).resolve().parents[2] / "ansible"


def prune(opt: Path, etc: Path, keep: int) -> list[str]:
    """Removes old releases as the role does; which are left."""
    tasks = yaml.safe_load((ANSIBLE / "roles/raft_node/tasks/prune.yml").read_text())
    script = tasks[0]["ansible.builtin.shell"]
    variables = {"PATH": os.environ["PATH"], "KEEP": str(keep), "ETC": str(etc)}
    subprocess.run(["/bin/sh", "-c", script], cwd=opt, env=variables, check=True)
    return sorted(release.name for release in (opt / "releases").iterdir())


def installed(opt: Path, etc: Path) -> None:
    """Releases 1 to 5, of which 2 is in force and 1 was before it."""
    for number in range(1, 6):
        release = opt / "releases" / str(number)
        release.mkdir(parents=True)
        os.utime(release, (number, number))
    (opt / "current").symlink_to(opt / "releases/2")
    (etc / "previous").mkdir(parents=True)
    (etc / "previous/current").symlink_to(opt / "releases/1")


@pytest.mark.parametrize("is_link", [False, True])
def test_the_release_in_force_and_the_one_before_it_stay_also_behind_a_link(
    tmp_path: Path, is_link: bool
) -> None:
    opt, etc = tmp_path / "opt", tmp_path / "etc"
    if is_link:
        (tmp_path / "disk").mkdir()
        opt.symlink_to(tmp_path / "disk")
    installed(opt, etc)
    assert prune(opt, etc, keep=1) == ["1", "2", "5"]


def test_where_nothing_was_in_force_before_old_releases_go(tmp_path: Path) -> None:
    opt, etc = tmp_path / "opt", tmp_path / "etc"
    installed(opt, etc)
    (etc / "previous/current").unlink()
    (etc / "previous").rmdir()
    assert prune(opt, etc, keep=2) == ["2", "4", "5"]


# What a systemctl says to `show`, `is-enabled` and `stop`, with its exit statuses.
_SYSTEMCTL = """#!/bin/sh
case "$1" in
show) echo "LoadState={load}"; echo "ActiveState={active}";;
is-enabled) echo disabled; exit 1;;
stop) echo "Job for $2 failed." >&2; exit 1;;
list-unit-files) exit 1;;
esac
"""


@pytest.mark.parametrize(
    ("load", "active", "goes_on"),
    [("not-found", "inactive", True), ("loaded", "inactive", True), ("loaded", "active", False)],
)
def test_a_reset_removes_nothing_under_an_agent_that_could_not_be_stopped(
    tmp_path: Path, load: str, active: str, goes_on: bool
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(_SYSTEMCTL.format(load=load, active=active))
    systemctl.chmod(0o755)
    tasks: list[dict[str, Any]] = next(
        play["tasks"]
        for play in yaml.safe_load((ANSIBLE / "reset.yml").read_text())
        if "tasks" in play
    )
    removing = [task["name"] for task in tasks].index("Remove what was installed")
    stop = next(task for task in tasks[:removing] if task["name"] == "Stop the agent")
    remove = {"name": "Remove", "ansible.builtin.file": {"path": "gone", "state": "absent"}}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [stop, remove]}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    (tmp_path / "gone").touch()
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("ansible-playbook"), "play.yml"),
            *("--inventory", "localhost,", "--connection", "local"),
            *("--extra-vars", f"ansible_python_interpreter={sys.executable}"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == goes_on, done.stdout + done.stderr
    assert (tmp_path / "gone").exists() != goes_on
