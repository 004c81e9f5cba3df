"""`raftctl debug bundle`: what a bug report needs, and nothing that is nobody's business."""

from __future__ import annotations

import errno
import json
import tarfile
from io import BufferedWriter
from pathlib import Path

import pytest
from click.testing import CliRunner

from raftctl import debug
from raftctl.main import cli
from tests.unit.cli.served import raftctl


def parts_of(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        return {
            member.name.partition("/")[2]: (archive.extractfile(member) or archive).read().decode()
            for member in archive.getmembers()
        }


def test_everything_about_the_node_is_in_the_bundle(at: tuple[str, str], tmp_path: Path) -> None:
    raftctl(*at, "propose", "put", "private", "treasure")
    raftctl(*at, "send", "a private word")
    file = tmp_path / "report.tar.gz"
    log = tmp_path / "agent.log"
    log.write_text("a line of the log\n")
    done = raftctl(*at, "debug", "bundle", str(file), "--log", str(log))
    assert done.returncode == 0, done.stderr
    parts = parts_of(file)
    assert json.loads(parts["status.json"])["node_id"] == "node-01"
    for name in ("about", "health", "members", "vitals", "settings", "kernel", "events"):
        assert json.loads(parts[f"{name}.json"]), name
    assert "quorum" in parts["doctor.txt"]
    assert parts["agent.log"] == "a line of the log\n"
    assert file.stat().st_mode & 0o777 == 0o600
    told = "".join(parts.values())
    assert "treasure" not in told
    assert "private" not in told


def test_a_bundle_of_an_agent_that_is_not_there_says_so(tmp_path: Path) -> None:
    file = tmp_path / "report.tar.gz"
    done = raftctl("--socket", str(tmp_path / "nobody"), "debug", "bundle", str(file))
    assert done.returncode == 0, done.stderr
    parts = parts_of(file)
    assert "status.json" not in parts
    assert "nobody" in parts["status.error"]
    assert "fail" in parts["doctor.txt"]


def test_secrets_of_the_configuration_stay_at_home(at: tuple[str, str], tmp_path: Path) -> None:
    config = tmp_path / "raft.toml"
    config.write_text('# mine\n[server]\nnode_id = "n"\n[cluster]\ntoken = "abc-a-long-secret"\n')
    file = tmp_path / "report.tar.gz"
    assert raftctl(*at, "debug", "bundle", str(file), "--config", str(config)).returncode == 0
    text = parts_of(file)["raft.toml"]
    assert "# mine" in text
    assert 'token = "(left out)"' in text
    assert "secret" not in text


def test_a_configuration_in_which_secrets_can_not_be_told_is_left_out(
    at: tuple[str, str], tmp_path: Path
) -> None:
    for number, text in enumerate(
        ('[cluster]\ntoken = "abc\\u002dsecret"\n', "[cluster]\ntoken = abc-secret\n")
    ):
        config = tmp_path / "raft.toml"
        config.write_text(text)
        file = tmp_path / f"{number}.tar.gz"
        assert raftctl(*at, "debug", "bundle", str(file), "--config", str(config)).returncode == 0
        parts = parts_of(file)
        assert "left out" in parts["raft.toml.error"]
        assert "secret" not in "".join(parts.values()).replace("a secret in it", "")


def test_what_is_unpacked_is_one_directory_of_the_bundles_name(tmp_path: Path) -> None:
    for name in ("report.tar.gz", "report.tgz"):
        file = tmp_path / name
        raftctl("--socket", str(tmp_path / "nobody"), "debug", "bundle", str(file))
        with tarfile.open(file) as archive:
            assert {Path(found).parts[0] for found in archive.getnames()} == {"report"}


def test_nothing_is_written_over_a_file_that_is_there(at: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "report.tar.gz"
    file.write_text("precious")
    done = raftctl(*at, "debug", "bundle", str(file))
    assert done.returncode == 1
    assert file.read_text() == "precious"


def test_a_bundle_that_can_not_be_written_leaves_nothing_behind_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(raw: BufferedWriter, *_: object) -> None:
        raw.write(b"the beginning")
        raise OSError(errno.ENOSPC, "No space left on device")

    at = ["--socket", str(tmp_path / "nobody")]
    file = tmp_path / "there" / "report.tar.gz"
    file.parent.mkdir()
    with monkeypatch.context() as full:
        full.setattr(debug, "_write", write)
        done = CliRunner().invoke(cli, [*at, "debug", "bundle", str(file)])
    assert done.exit_code == 1
    assert f"{file}: No space left on device\n  Hint: " in done.stderr
    assert not list(file.parent.iterdir())
    assert CliRunner().invoke(cli, [*at, "debug", "bundle", str(file)]).exit_code == 0
