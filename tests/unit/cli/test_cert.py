"""`raftctl cert`: files with the right modes, never overwritten, and what the authority refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raft_agent.tls.credentials import Credentials
from raft_agent.tls.errors import TlsError
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Identity, Kind, Role
from raftctl.main import cli

NODE_01 = Identity(Kind.NODE, "node-01")


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["cert", *map(str, words)])


def done(*words: str | Path) -> Any:
    result = CliRunner().invoke(cli, ["-o", "json", "cert", *map(str, words)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*words: str | Path) -> str:
    result = run(*words)
    assert result.exit_code == 1, result.output
    return result.stderr


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """A directory with an authority."""
    done("ca", "--dir", tmp_path / "pki")
    return tmp_path / "pki"


def files_of(pki: Path, name: str, directory: Path | None = None) -> TlsFiles:
    home = directory or pki
    crl = pki / "crl.pem"
    return TlsFiles(
        str(pki / "ca.pem"),
        str(home / f"{name}.pem"),
        str(home / f"{name}-key.pem"),
        str(crl) if crl.exists() else "",
    )


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def test_what_is_made_for_a_node_is_what_an_agent_takes(pki: Path) -> None:
    made = done("node", "node-01", "192.0.2.7", "raft.example", "--ca-dir", pki, "--dir", pki)
    assert (made["kind"], made["name"]) == ("node", "node-01")
    assert made["hosts"] == ["node-01", "raft.example", "192.0.2.7"]
    assert Credentials(files_of(pki, "node-01"), NODE_01).own == NODE_01


def test_what_is_made_for_a_client_has_its_role(pki: Path) -> None:
    made = done("client", "alice", "--role", "writer", "--ca-dir", pki, "--dir", pki)
    assert (made["kind"], made["name"], made["role"]) == ("client", "alice", "writer")
    own = Credentials(files_of(pki, "alice"), Kind.CLIENT).own
    assert own == Identity(Kind.CLIENT, "alice", Role.WRITER)


def test_a_client_may_only_read_unless_more_is_said(pki: Path) -> None:
    assert done("client", "bob", "--ca-dir", pki, "--dir", pki)["role"] == "reader"


def test_keys_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        done("ca", "--dir", tmp_path)
        done("node", "node-01", "--ca-dir", tmp_path, "--dir", tmp_path)
        done("csr", "node-02", "--dir", tmp_path)
    finally:
        os.umask(before)
    keys = sorted(tmp_path.glob("*-key.pem"))
    assert [key.name for key in keys] == ["ca-key.pem", "node-01-key.pem", "node-02-key.pem"]
    assert {mode(key) for key in keys} == {0o600}
    assert mode(tmp_path / "ca.pem") == 0o644


@pytest.mark.parametrize(
    "words", [("ca",), ("node", "node-01"), ("client", "node-01"), ("csr", "node-01")]
)
def test_a_key_is_never_overwritten_unless_that_is_said(pki: Path, words: tuple[str, ...]) -> None:
    own = ("--dir", pki) if words[0] in ("ca", "csr") else ("--ca-dir", pki, "--dir", pki)
    if words[0] != "ca":
        done(*words, *own)
    key = pki / f"{words[-1]}-key.pem"
    before = key.read_bytes()
    assert f"{key} exists already" in refused(*words, *own)
    assert key.read_bytes() == before
    done(*words, *own, "--force")
    assert key.read_bytes() != before
    assert mode(key) == 0o600


@pytest.mark.parametrize("name", ["ca", "crl", "ca-key", "a/b", ".hidden"])
def test_a_name_that_would_lead_to_other_files_is_refused(pki: Path, name: str) -> None:
    before = {file: file.read_bytes() for file in pki.iterdir()}
    refused("client", name, "--ca-dir", pki, "--dir", pki, "--force")
    assert {file: file.read_bytes() for file in pki.iterdir()} == before


def test_a_key_never_leaves_the_machine_that_asks(pki: Path, tmp_path: Path) -> None:
    away = tmp_path / "node-02"
    done("csr", "node-02", "192.0.2.2", "--dir", away)
    assert sorted(file.name for file in away.iterdir()) == ["node-02-key.pem", "node-02.csr"]
    made = done("sign", away / "node-02.csr", "node-02", "--ca-dir", pki, "--dir", away)
    assert made["hosts"] == ["node-02", "192.0.2.2"]
    own = Credentials(files_of(pki, "node-02", away), Identity(Kind.NODE, "node-02")).own
    assert own.name == "node-02"
    assert not (pki / "node-02-key.pem").exists()


@pytest.mark.parametrize(
    ("asked", "signed"),
    [
        (("node-02",), ("node-03",)),
        (("alice", "--role", "admin"), ("alice", "--role", "reader")),
        (("alice", "--role", "admin"), ("alice",)),
        (("node-02",), ("node-02", "--role", "admin")),
    ],
)
def test_a_request_for_anything_else_than_what_is_said_is_not_signed(
    pki: Path, tmp_path: Path, asked: tuple[str, ...], signed: tuple[str, ...]
) -> None:
    done("csr", *asked, "--dir", tmp_path)
    request = tmp_path / f"{asked[0]}.csr"
    said = refused("sign", request, *signed, "--ca-dir", pki, "--dir", tmp_path)
    assert f"{request} asks for" in said
    assert not (tmp_path / f"{signed[0]}.pem").exists()


def test_whoever_signs_sees_for_which_hosts(pki: Path, tmp_path: Path) -> None:
    """A request may ask for the addresses of others."""
    done("csr", "node-04", "192.0.2.1", "node-01", "--dir", tmp_path)
    shown = run("sign", tmp_path / "node-04.csr", "node-04", "--ca-dir", pki, "--dir", tmp_path)
    assert "  hosts: node-04, node-01, 192.0.2.1\n" in shown.stdout


def test_a_renewed_certificate_is_for_the_same_key_and_names(pki: Path) -> None:
    own = ("--ca-dir", pki, "--dir", pki)
    before = done("node", "node-01", "192.0.2.7", *own, "--days", "10")
    key = (pki / "node-01-key.pem").read_bytes()
    after = done("renew", pki / "node-01.pem", "--ca-dir", pki, "--days", "400")
    assert (pki / "node-01-key.pem").read_bytes() == key
    assert after["hosts"] == before["hosts"]
    assert after["not_after"] > before["not_after"]
    assert after["serial"] != before["serial"]
    assert Credentials(files_of(pki, "node-01"), NODE_01).own == NODE_01


def test_what_another_authority_signed_is_renewed_only_when_it_is_named(
    pki: Path, tmp_path: Path
) -> None:
    """Whoever brings a file would choose its own role otherwise."""
    done("ca", "--dir", tmp_path / "other")
    own = ("--ca-dir", tmp_path / "other", "--dir", tmp_path / "other")
    done("client", "mallory", "--role", "admin", *own)
    file = tmp_path / "other" / "mallory.pem"
    before = file.read_bytes()
    said = refused("renew", file, "--ca-dir", pki)
    assert f"{file} was not signed by the authority in {pki / 'ca.pem'}" in said
    assert file.read_bytes() == before
    done("renew", file, "--ca-dir", pki, "--former-ca-dir", tmp_path / "other")
    assert done("renew", file, "--ca-dir", pki)["name"] == "mallory"


def test_a_revoked_certificate_is_not_renewed(pki: Path) -> None:
    done("client", "alice", "--ca-dir", pki, "--dir", pki)
    done("revoke", pki / "alice.pem", "--ca-dir", pki)
    assert "is revoked" in refused("renew", pki / "alice.pem", "--ca-dir", pki)


@pytest.mark.parametrize("serial", ["0", "-5", "xyz", "", "f" * 40, "f" * 60, "1_0", "0x1"])
def test_what_is_no_serial_number_is_refused(pki: Path, serial: str) -> None:
    said = refused("revoke", f"--serial={serial}", "--ca-dir", pki)
    assert "is no serial number in hexadecimal digits" in said
    assert not (pki / "crl.pem").exists()


def test_an_authority_is_not_renewed_like_others(pki: Path) -> None:
    assert str(pki / "ca.pem") in refused("renew", pki / "ca.pem", "--ca-dir", pki)


def test_a_revoked_certificate_is_on_the_list_and_the_others_are_not(pki: Path) -> None:
    own = ("--ca-dir", pki, "--dir", pki)
    first, second = (done("node", name, *own) for name in ("node-01", "node-02"))
    made = done("revoke", pki / "node-01.pem", "--ca-dir", pki)
    assert made["revoked"] == [first["serial"]]
    with pytest.raises(TlsError, match="is revoked"):
        Credentials(files_of(pki, "node-01"), NODE_01)
    assert Credentials(files_of(pki, "node-02"), Kind.NODE).own.name == "node-02"
    made = done("revoke", "--serial", second["serial"].upper(), "--ca-dir", pki)
    assert sorted(made["revoked"]) == sorted([first["serial"], second["serial"]])
    assert sorted(done("revoke", "--ca-dir", pki)["revoked"]) == sorted(made["revoked"])


def test_another_authoritys_certificate_can_not_be_revoked(pki: Path, tmp_path: Path) -> None:
    done("ca", "--dir", tmp_path / "other")
    done("node", "node-01", "--ca-dir", tmp_path / "other", "--dir", tmp_path)
    assert "was not signed by this authority" in refused(
        "revoke", tmp_path / "node-01.pem", "--ca-dir", pki
    )
    assert not (pki / "crl.pem").exists()


def test_show_tells_what_is_in_each_file(pki: Path, tmp_path: Path) -> None:
    own = ("--ca-dir", pki, "--dir", pki)
    done("client", "alice", "--role", "admin", *own)
    done("csr", "node-02", "192.0.2.2", "--dir", tmp_path)
    done("revoke", pki / "alice.pem", "--ca-dir", pki)
    found = done(
        "show", pki / "ca.pem", pki / "alice.pem", tmp_path / "node-02.csr", pki / "crl.pem"
    )["found"]
    assert [item.get("kind") for item in found] == ["ca", "client", None, "crl"]
    assert found[1]["role"] == "admin"
    assert found[2]["request_for"]["hosts"] == ["node-02", "192.0.2.2"]
    assert found[3]["revoked"] == [found[1]["serial"]]
    text = run("show", pki / "alice.pem").stdout
    assert "Role:         admin" in text


def test_a_key_is_shown_to_nobody(pki: Path) -> None:
    said = refused("show", pki / "ca-key.pem")
    assert "holds a private key" in said
    assert "BEGIN" not in said


def test_where_there_is_no_authority_the_command_for_one_is_shown(tmp_path: Path) -> None:
    said = refused("node", "node-01", "--ca-dir", tmp_path / "none", "--dir", tmp_path)
    assert f"raftctl cert ca --dir {tmp_path / 'none'}" in said


def test_an_authority_whose_key_others_can_read_is_not_used(pki: Path) -> None:
    (pki / "ca-key.pem").chmod(0o644)
    assert "chmod 600" in refused("node", "node-01", "--ca-dir", pki, "--dir", pki)


def test_a_file_that_is_none_of_all_that_is_refused_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "junk.pem"
    file.write_text("junk")
    assert f"{file}: has no certificate in PEM" in refused("show", file)
    assert f"{tmp_path}/none: can't be read: No such file" in refused("show", tmp_path / "none")
