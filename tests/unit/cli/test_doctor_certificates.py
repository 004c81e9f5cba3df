"""What `raftctl doctor` says of an agent's certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from raft_agent.config import load
from raft_agent.tls.files import TlsFiles
from raftctl.doctor_certificates import certificates
from raftctl.doctor_checks import Finding
from tests.unit.config_files import SERVER
from tests.unit.tls.papers import Office, node


def finding(tmp_path: Path, files: TlsFiles | None, *overrides: str) -> Finding | None:
    file = tmp_path / "raft.toml"
    file.write_text(SERVER)
    given = [] if files is None else [f"tls.{name}={getattr(files, name)}" for name in FILES]
    found = [*certificates(load(file, overrides=[*given, *overrides], environ={}))]
    assert len(found) < 2
    return found[0] if found else None


FILES = ("ca", "cert", "key")


def test_good_certificates_are_fine(tmp_path: Path) -> None:
    found = finding(tmp_path, Office(tmp_path).issue(node("node-01")))
    assert found is not None
    assert found.level == "ok"


@pytest.mark.parametrize("at_days", [0.5, -3])
def test_one_that_ends_or_has_ended_is_told_with_the_command(
    tmp_path: Path, at_days: float
) -> None:
    office = Office(tmp_path)
    files = office.issue(node("node-01"), at_days=-3 if at_days < 0 else 0)
    if at_days > 0:
        from raft_agent.tls.authority import read_certificates  # noqa: PLC0415

        public = read_certificates(Path(files.cert).read_bytes())[0].public_key()
        pem = office.authority.sign(node("node-01"), public, days=20)  # type: ignore[arg-type]
        Path(files.cert).write_bytes(pem)
    found = finding(tmp_path, files)
    assert found is not None
    assert found.level == ("warn" if at_days > 0 else "fail")
    assert files.cert in found.fix


@pytest.mark.parametrize(
    ("address", "is_told"),
    [("0.0.0.0:5555", True), ("10.0.0.1:5555", True), ("127.0.0.1:1", False), ("[::1]:1", False)],
)
def test_no_tls_is_told_where_others_could_come_from(
    tmp_path: Path, address: str, is_told: bool
) -> None:
    found = finding(tmp_path, None, f"server.listen_addr={address}")
    assert (found is not None) == is_told
