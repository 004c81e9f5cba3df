"""Loading certificates, refusing those that can't work, and following the files."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from raft_agent.tls.authority import Authority, Subject, key_pem, make_key
from raft_agent.tls.credentials import Credentials
from raft_agent.tls.errors import CertificateRefused, TlsError
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Identity, Kind, Role
from tests.unit.tls.handshakes import Ends
from tests.unit.tls.papers import Office, client, node

NODE_01 = Identity(Kind.NODE, "node-01")


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def of_node(files: TlsFiles, name: str = "node-01") -> Credentials:
    return Credentials(files, Identity(Kind.NODE, name))


def refusal(files: TlsFiles, expected: Identity | Kind = NODE_01) -> str:
    with pytest.raises(TlsError) as caught:
        Credentials(files, expected)
    return str(caught.value)


# --- handshakes -----------------------------------------------------------------------------------


def test_two_nodes_of_one_authority_know_each_other(office: Office) -> None:
    first = of_node(office.issue(node("node-01")))
    second = of_node(office.issue(node("node-02")), "node-02")
    ends = Ends(first.server_context(), second.client_context()).shake()
    ends.exchange()
    assert ends.client.version() == "TLSv1.3"
    seen = second.check(ends.client.getpeercert(binary_form=True), kind=Kind.NODE, name="node-01")
    assert seen.identity == NODE_01
    assert first.check(ends.server.getpeercert(binary_form=True)).identity.name == "node-02"


def test_older_versions_of_tls_are_refused(office: Office) -> None:
    first = of_node(office.issue(node("node-01")))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        Ends(first.server_context(), old).shake()


def test_who_shows_no_certificate_is_refused(office: Office) -> None:
    first = of_node(office.issue(node("node-01")))
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname = False
    nobody.load_verify_locations(str(office.ca))
    with pytest.raises(ssl.SSLError, match="peer did not return a certificate"):
        Ends(first.server_context(), nobody).shake()


def test_another_authoritys_node_is_refused_by_both_sides(tmp_path: Path) -> None:
    ours = of_node(Office(tmp_path).issue(node("node-01")))
    (tmp_path / "other").mkdir()
    foreign = of_node(Office(tmp_path / "other", "other").issue(node("node-02")), "node-02")
    with pytest.raises(ssl.SSLCertVerificationError):
        Ends(ours.server_context(), foreign.client_context()).shake()
    with pytest.raises(ssl.SSLCertVerificationError):
        Ends(foreign.server_context(), ours.client_context()).shake()


@pytest.mark.parametrize(("at_days", "words"), [(-2, "expired"), (2, "not yet valid")])
def test_a_certificate_out_of_its_time_is_refused(office: Office, at_days: int, words: str) -> None:
    ours = of_node(office.issue(node("node-01")))
    late = office.issue(node("node-02"), at_days=at_days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(late.ca)
    context.load_cert_chain(late.cert, late.key)
    with pytest.raises(ssl.SSLCertVerificationError, match=words):
        Ends(ours.server_context(), context).shake()


def test_a_clients_certificate_serves_nobody(office: Office) -> None:
    ours = of_node(office.issue(node("node-01")))
    files = office.issue(client("alice", Role.ADMIN))
    impostor = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    impostor.load_cert_chain(files.cert, files.key)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"(unsuitable|unsupported).*purpose"):
        Ends(impostor, ours.client_context()).shake()


def test_a_client_can_be_no_node(office: Office) -> None:
    ours = of_node(office.issue(node("node-01")))
    alice = Credentials(office.issue(client("node-02", Role.ADMIN)), Kind.CLIENT)
    ends = Ends(ours.server_context(), alice.client_context()).shake()
    der = ends.server.getpeercert(binary_form=True)
    with pytest.raises(CertificateRefused, match="where a node's is needed") as caught:
        ours.check(der, kind=Kind.NODE, name="node-02")
    assert caught.value.reason == "role"
    assert ours.check(der, kind=Kind.CLIENT).identity.role is Role.ADMIN


def test_a_node_that_claims_anothers_name_is_refused(office: Office) -> None:
    ours = of_node(office.issue(node("node-01")))
    other = of_node(office.issue(node("node-03")), "node-03")
    ends = Ends(ours.server_context(), other.client_context()).shake()
    with pytest.raises(CertificateRefused, match="node node-03, not of node-02") as caught:
        ours.check(ends.server.getpeercert(binary_form=True), kind=Kind.NODE, name="node-02")
    assert caught.value.reason == "name"


def test_a_client_checks_the_host_that_it_dialled(office: Office) -> None:
    ours = of_node(office.issue(node("node-01", "192.0.2.7", "raft.example")))
    alice = Credentials(office.issue(client("alice", Role.READER)), Kind.CLIENT)
    for host in ("192.0.2.7", "raft.example", "node-01"):
        Ends(ours.server_context(), alice.host_context(), host).shake().exchange()
    with pytest.raises(ssl.SSLCertVerificationError, match=r"192\.0\.2\.8"):
        Ends(ours.server_context(), alice.host_context(), "192.0.2.8").shake()


def test_a_common_name_is_no_host(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate without hosts is for nobody that is dialled by one (RFC 9525 §2)."""
    alice = Credentials(office.issue(client("alice", Role.READER)), Kind.CLIENT)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:raft:node:node-01")])
    usages = x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    monkeypatch.setattr(Subject, "extensions", lambda _: [names, usages])
    ours = of_node(office.issue(node("node-01")))
    with pytest.raises(ssl.SSLCertVerificationError, match="node-01"):
        Ends(ours.server_context(), alice.host_context(), "node-01").shake()


def test_a_list_that_spells_its_authority_otherwise_revokes_all_the_same(office: Office) -> None:
    files = office.issue(node("node-02"))
    certificate = x509.load_pem_x509_certificate(Path(files.cert).read_bytes())
    other = of_node(files, "node-02")
    authority = office.authority
    printable = x509.NameAttribute(
        NameOID.COMMON_NAME,
        "test",
        _type=x509.name._ASN1Type.PrintableString,
    )
    respelt = mock.Mock(subject=x509.Name([printable]), extensions=authority.certificate.extensions)
    assert respelt.subject.public_bytes() != certificate.issuer.public_bytes()
    spelling = Authority(respelt, authority._key)
    office.crl.write_bytes(spelling.revoke([certificate.serial_number]))
    ours = of_node(office.issue(node("node-01"), crl=True))
    ends = Ends(ours.server_context(), other.client_context()).shake()
    with pytest.raises(CertificateRefused, match="node node-02 is revoked"):
        ours.check(ends.server.getpeercert(binary_form=True))


def test_a_revoked_certificate_is_refused_also_on_a_connection_that_stands(
    office: Office,
) -> None:
    files = office.issue(node("node-02"))
    other = of_node(files, "node-02")
    serial = x509.load_pem_x509_certificate(Path(files.cert).read_bytes()).serial_number
    office.crl.write_bytes(office.authority.revoke([]))
    ours = of_node(office.issue(node("node-01"), crl=True))
    ends = Ends(ours.server_context(), other.client_context()).shake()
    der = ends.server.getpeercert(binary_form=True)
    standing = ours.check(der)
    office.crl.write_bytes(office.authority.revoke([serial]))
    ours.reload()
    with pytest.raises(CertificateRefused, match="node node-02 is revoked") as caught:
        ours.check_again(standing)
    assert caught.value.reason == "revoked"
    with pytest.raises(CertificateRefused, match="revoked"):
        ours.check(der)


def test_no_session_is_resumed_without_looking_at_the_certificate(office: Office) -> None:
    ours = of_node(office.issue(node("node-01")))
    context = of_node(office.issue(node("node-02")), "node-02").client_context()
    ends = Ends(ours.server_context(), context).shake()
    ends.exchange()
    session = ends.client.session
    assert session is None or not session.has_ticket


def test_during_a_rotation_both_authorities_are_accepted(tmp_path: Path) -> None:
    old, new = Office(tmp_path, "old"), Office(tmp_path, "new")
    first, second = old.issue(node("node-01")), new.issue(node("node-02"))
    both = tmp_path / "both.pem"
    both.write_bytes(old.ca.read_bytes() + new.ca.read_bytes())
    ours = of_node(TlsFiles(str(both), first.cert, first.key))
    theirs = of_node(TlsFiles(str(both), second.cert, second.key), "node-02")
    Ends(ours.server_context(), theirs.client_context()).shake().exchange()
    Ends(theirs.server_context(), ours.client_context()).shake().exchange()


def test_the_list_of_one_authority_does_not_shut_out_those_of_the_other(tmp_path: Path) -> None:
    old, new = Office(tmp_path, "old"), Office(tmp_path, "new")
    first, second = old.issue(node("node-01")), new.issue(node("node-02"))
    both = tmp_path / "both.pem"
    both.write_bytes(old.ca.read_bytes() + new.ca.read_bytes())
    old.crl.write_bytes(old.authority.revoke([1]))
    ours = of_node(TlsFiles(str(both), first.cert, first.key, str(old.crl)))
    theirs = of_node(TlsFiles(str(both), second.cert, second.key), "node-02")
    ends = Ends(ours.server_context(), theirs.client_context()).shake()
    assert ours.check(ends.server.getpeercert(binary_form=True)).identity.name == "node-02"


# --- files ----------------------------------------------------------------------------------------


def other_key(files: TlsFiles, _office: Office) -> None:
    Path(files.key).write_bytes(key_pem(make_key()))


def encrypted_key(files: TlsFiles, _office: Office) -> None:
    key = serialization.load_pem_private_key(Path(files.key).read_bytes(), None)
    Path(files.key).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


def foreign_authority(files: TlsFiles, office: Office) -> None:
    (office.directory / "other").mkdir()
    Path(files.ca).write_bytes(Office(office.directory / "other").ca.read_bytes())


def own_certificate_as_authority(files: TlsFiles, _office: Office) -> None:
    Path(files.ca).write_bytes(Path(files.cert).read_bytes())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda files, _: Path(files.cert).unlink(), "node-01.pem: can't be read: No such file"),
        (lambda files, _: Path(files.ca).write_text("nothing"), "test-ca.pem: has no certificate"),
        (lambda files, _: Path(files.key).write_text("nothing"), "key.pem: has no private key"),
        (lambda files, _: Path(files.key).chmod(0o604), "key.pem: the key has the mode 0604"),
        (lambda files, _: Path(files.key).chmod(0o620), "chmod 600"),
        (other_key, "key.pem: the key does not belong to the certificate in"),
        (encrypted_key, "key.pem: the key is encrypted"),
        (foreign_authority, "node-01.pem: the certificate of .*node-01.* was signed by CN=test"),
        (own_certificate_as_authority, "test-ca.pem: the certificate of .* is not one of an auth"),
    ],
)
def test_files_that_do_not_go_together_are_refused(
    office: Office, spoil: Callable[[TlsFiles, Office], None], words: str
) -> None:
    files = office.issue(node("node-01"))
    spoil(files, office)
    with pytest.raises(TlsError, match=words):
        Credentials(files, NODE_01)


def test_a_key_of_another_user_is_refused(office: Office) -> None:
    files = office.issue(node("node-01"))
    if os.geteuid():
        pytest.skip("needs root: to give a file to another user")
    os.chown(files.key, 12345, -1)
    assert "the key belongs to uid 12345" in refusal(files)


def test_a_group_may_read_a_key_of_root(office: Office) -> None:
    files = office.issue(node("node-01"))
    if os.geteuid():
        pytest.skip("needs root: the file has to be root's")
    Path(files.key).chmod(0o640)
    assert of_node(files).own == NODE_01


@pytest.mark.parametrize(
    ("at_days", "words"), [(-2, "has ended on"), (2, "this machine's clock right")]
)
def test_ones_own_certificate_has_to_be_valid_now(office: Office, at_days: int, words: str) -> None:
    assert words in refusal(office.issue(node("node-01"), at_days=at_days))


def test_ones_own_certificate_must_bear_ones_name(office: Office) -> None:
    said = refusal(office.issue(node("node-02")))
    assert "node-02.pem: is the certificate of node node-02, but this is node-01" in said


def test_a_node_does_not_start_with_a_clients_certificate(office: Office) -> None:
    said = refusal(office.issue(client("node-01", Role.ADMIN)))
    assert "is the certificate of a client" in said
    assert "a node's is needed" in said


def test_a_client_does_not_go_about_with_a_nodes_certificate(office: Office) -> None:
    assert "a client's is needed" in refusal(office.issue(node("node-01")), Kind.CLIENT)


def test_ones_own_revoked_certificate_is_refused(office: Office) -> None:
    files = office.issue(node("node-01"), crl=True)
    serial = x509.load_pem_x509_certificate(Path(files.cert).read_bytes()).serial_number
    office.crl.write_bytes(office.authority.revoke([serial]))
    assert "is revoked" in refusal(files)


def test_a_list_that_no_authority_of_ours_has_signed_is_refused(
    office: Office, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    office.crl.write_bytes(Office(tmp_path / "other").authority.revoke([1]))
    said = refusal(office.issue(node("node-01"), crl=True))
    assert "test-crl.pem: the list of CN=test was signed by no authority" in said


@pytest.mark.parametrize("name", ["ca", "cert", "key", "crl"])
def test_a_pipe_is_refused_and_not_waited_for(office: Office, tmp_path: Path, name: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    files = msgspec.structs.replace(office.issue(node("node-01")), **{name: str(pipe)})
    assert refusal(files) == f"{pipe}: is no file that can be read twice, but a pipe or a device"


def test_an_authority_of_the_same_name_with_another_key_is_told_apart(tmp_path: Path) -> None:
    files = Office(tmp_path).issue(node("node-01"))
    (tmp_path / "other").mkdir()
    namesake = Office(tmp_path / "other")
    said = refusal(msgspec.structs.replace(files, ca=str(namesake.ca)))
    assert f"signed by CN=test, but with another key than the CN=test in {namesake.ca} has" in said


def test_what_is_no_pem_is_refused_in_our_own_words(office: Office, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pem"
    files = office.issue(node("node-01"))
    cut.write_bytes(Path(files.cert).read_bytes()[:300])
    said = refusal(msgspec.structs.replace(files, cert=str(cut)))
    assert said == f"{cut}: has no certificate in PEM"


def test_a_list_that_is_none_is_refused(office: Office) -> None:
    office.crl.write_bytes(office.ca.read_bytes())
    assert "no list of revoked certificates" in refusal(office.issue(node("node-01"), crl=True))


# --- following the files --------------------------------------------------------------------------


def test_new_files_are_for_new_connections_and_leave_the_others_alone(office: Office) -> None:
    ours = of_node(office.issue(node("node-01")))
    theirs = of_node(office.issue(node("node-02")), "node-02")
    standing = Ends(ours.server_context(), theirs.client_context()).shake()
    before = standing.client.getpeercert(binary_form=True)
    office.issue(node("node-01"))
    ours.reload()
    standing.exchange()
    later = Ends(ours.server_context(), theirs.client_context()).shake()
    assert later.client.getpeercert(binary_form=True) != before


def test_changed_files_are_read_once_they_stand_still(office: Office) -> None:
    ours = of_node(office.issue(node("node-01")))
    assert not ours.reload_if_changed()
    office.issue(node("node-01"))
    assert not ours.reload_if_changed()  # the key may still be on its way
    before = ours.loaded
    assert ours.reload_if_changed()
    assert ours.loaded is not before
    assert not ours.reload_if_changed()


def test_files_that_can_not_be_used_leave_everything_as_it_was_and_are_told_once(
    office: Office,
) -> None:
    files = office.issue(node("node-01"))
    ours = of_node(files)
    before = ours.loaded
    good = Path(files.cert).read_bytes()
    Path(files.cert).write_text("half a certific")
    assert not ours.reload_if_changed()
    with pytest.raises(TlsError):
        ours.reload_if_changed()
    assert ours.loaded is before
    assert not ours.reload_if_changed()
    Path(files.cert).write_bytes(good)
    assert not ours.reload_if_changed()
    assert ours.reload_if_changed()


def test_a_client_takes_new_files_with_its_next_connection(office: Office) -> None:
    alice = Credentials(office.issue(client("alice", Role.READER)), Kind.CLIENT)
    before = alice.loaded
    alice.refresh()
    assert alice.loaded is before
    good = office.issue(client("alice", Role.WRITER))
    alice.refresh()
    assert alice.own.role is Role.WRITER
    Path(good.cert).write_text("half a certific")
    alice.refresh()
    assert alice.own.role is Role.WRITER
