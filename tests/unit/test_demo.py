"""`make demo` shows a whole cluster, and says what to do when the one in its directory is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tools import demo

NAMES = ["node-01", "node-02", "node-03"]


def a_raftctl(folder: Path, statuses: dict[str, dict[str, object]]) -> Path:
    """A raftctl that knows these statuses and refuses everything else; its directory."""
    program = folder / "raftctl"
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        f"statuses = {json.dumps({name: json.dumps(told) for name, told in statuses.items()})}\n"
        "_, *words = sys.argv\n"
        "if words[0] == 'dev': sys.exit(0)\n"
        "if words[-1] == 'status': print(statuses[words[1]])\n"
        "else: sys.exit(1)\n"
    )
    program.chmod(0o755)
    return folder


def status(name: str, **more: object) -> dict[str, object]:
    return {"node_id": name, "leader": "node-02", "cluster_id": "c0ffee", "removed": False, **more}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo runs: a cluster of three was there before."""
    for name in NAMES:
        (tmp_path / ".demo" / name).mkdir(parents=True)
        (tmp_path / ".demo" / name / "raft.toml").touch()
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    return tmp_path


REMOVED = status("node-01", leader=None, removed=True)
FRESH = status("node-03", leader=None, cluster_id="")


@pytest.mark.parametrize(
    ("statuses", "strangers"),
    [
        ([REMOVED, status("node-02"), status("node-03")], "node-01 is no member"),
        ([REMOVED, status("node-02"), FRESH], "node-01, node-03 are no members"),
    ],
)
def test_a_cluster_that_lost_members_is_not_shown_but_explained(
    statuses: list[dict[str, object]],
    strangers: str,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = dict(zip(NAMES, statuses, strict=True))
    monkeypatch.setattr(demo, "BIN", a_raftctl(checkout, told))
    assert demo.main() == 1
    shown = capsys.readouterr()
    assert strangers in shown.err
    assert "rm -r .demo" in shown.err
    assert "leads. Writes go to it" not in shown.out
