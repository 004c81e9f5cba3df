"""[tls] in raft.toml: all of it or nothing, and files that can be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raft_agent.config import Config, ConfigError, load
from raft_agent.main import main
from raft_agent.tls.authority import key_pem, make_key
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Role
from tests.unit.config_files import SERVER, read, refusal
from tests.unit.tls.papers import Office, client, node


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "raft.toml"


def section(files: TlsFiles) -> str:
    lines = [f'ca = "{files.ca}"', f'cert = "{files.cert}"', f'key = "{files.key}"']
    lines += [f'crl = "{files.crl}"'] if files.crl else []
    return "\n".join([SERVER, "[tls]", *lines, ""])


def checked(file: Path, text: str, *overrides: str) -> Config:
    file.write_text(text)
    return load(file, overrides=overrides, environ={}, with_certificates=True)


def test_without_tls_there_are_no_files(file: Path) -> None:
    assert read(file, SERVER).tls.files is None
    assert read(file, SERVER + "[tls]\nclear_headers = false\n").tls.files is None


def test_the_files_can_be_given_by_file_environment_and_set(file: Path) -> None:
    text = SERVER + '[tls]\nca = "/a/ca.pem"\ncert = "/a/node.pem"\n'
    config = read(file, text, "tls.key=/b/key.pem", RAFT_TLS_CERT="/c/node.pem")
    assert config.tls.files == TlsFiles("/a/ca.pem", "/c/node.pem", "/b/key.pem")
    assert config.tls.clear_headers


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_a_part_of_tls_is_refused_with_what_is_missing(file: Path, name: str) -> None:
    given = [f'{other} = "/a/{other}"' for other in ("ca", "cert", "key") if other != name]
    said = refusal(file, "\n".join([SERVER, "[tls]", *given]))
    assert said.startswith(f"raft.toml:5: tls.{name} is missing")
    assert "to [tls]" in said


def test_good_files_are_accepted(file: Path, tmp_path: Path) -> None:
    files = Office(tmp_path).issue(node("node-01"))
    assert checked(file, section(files)).tls.files == files


def lose_certificate(files: TlsFiles) -> None:
    Path(files.cert).unlink()


def take_other_key(files: TlsFiles) -> None:
    Path(files.key).write_bytes(key_pem(make_key()))


def show_key(files: TlsFiles) -> None:
    Path(files.key).chmod(0o644)


@pytest.mark.parametrize(
    ("spoil", "place", "words"),
    [
        (lose_certificate, (7, "cert"), "can't be read: No such file"),
        (take_other_key, (8, "key"), "does not belong to the certificate in"),
        (show_key, (8, "key"), "chmod 600"),
    ],
)
def test_a_file_that_can_not_be_used_is_refused_with_its_line(
    file: Path,
    tmp_path: Path,
    spoil: Callable[[TlsFiles], None],
    place: tuple[int, str],
    words: str,
) -> None:
    files = Office(tmp_path).issue(node("node-01"))
    spoil(files)
    with pytest.raises(ConfigError) as caught:
        checked(file, section(files))
    line, key = place
    [problem] = caught.value.problems
    assert problem.where == f"{file}:{line}"
    assert problem.text.startswith(f"tls.{key}: {getattr(files, key)}: ")
    assert words in problem.text


@pytest.mark.parametrize(
    ("subject", "at_days", "words"),
    [
        (node("node-02"), 0, "but this is node-01: have one made for node-01"),
        (client("node-01", Role.ADMIN), 0, "a node's is needed"),
        (node("node-01"), -3, "have a new one made"),
        (node("node-01"), 3, "this machine's clock right"),
    ],
)
def test_a_certificate_that_is_not_this_nodes_or_not_of_today_is_refused(
    file: Path, tmp_path: Path, subject: object, at_days: int, words: str
) -> None:
    files = Office(tmp_path).issue(subject, at_days=at_days)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=words):
        checked(file, section(files))


def test_reading_log_levels_again_does_not_ask_for_the_certificates(
    file: Path, tmp_path: Path
) -> None:
    files = Office(tmp_path).issue(node("node-01"))
    lose_certificate(files)
    assert read(file, section(files)).tls.files == files


def test_check_looks_into_the_files(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = Office(tmp_path).issue(node("node-01"))
    file.write_text(section(files))
    assert main(["--config", str(file), "--check"]) == 0
    take_other_key(files)
    assert main(["--config", str(file), "--check"]) == 2
    assert f"{file}:8: tls.key: {files.key}" in capsys.readouterr().err
