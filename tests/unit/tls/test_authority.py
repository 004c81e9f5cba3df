"""What an authority signs, and what it does not."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from raft_agent.tls.authority import (
    Subject,
    hosts_of,
    key_pem,
    make_authority,
    make_key,
    make_request,
    read_authority,
    read_certificates,
    read_request,
    read_revocations,
)
from raft_agent.tls.certificate import identity_of
from raft_agent.tls.errors import TlsError
from raft_agent.tls.identity import Identity, Kind, Role
from tests.unit.tls.papers import Office, client, node


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def read(pem: bytes) -> x509.Certificate:
    return read_certificates(pem)[0]


def test_an_authority_may_sign_certificates_and_lists_but_no_other_authority(
    office: Office,
) -> None:
    found = office.authority.certificate.extensions
    constraints = found.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = found.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert usage.crl_sign
    assert not usage.digital_signature


def test_keys_are_on_p_256() -> None:
    assert isinstance(make_key().curve, ec.SECP256R1)


def test_a_node_has_its_name_its_hosts_and_both_usages(office: Office) -> None:
    certificate = read(office.sign(node("node-01", "raft.example", "192.0.2.7", "[2001:db8::1]")))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:raft:node:node-01"]
    assert names.get_values_for_type(x509.DNSName) == ["node-01", "raft.example"]
    addresses = [str(item) for item in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["192.0.2.7", "2001:db8::1"]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca
    assert identity_of(certificate) == Identity(Kind.NODE, "node-01")


def test_a_client_has_its_name_and_role_and_can_be_no_server(office: Office) -> None:
    certificate = read(office.sign(client("alice", Role.WRITER)))
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert identity_of(certificate) == Identity(Kind.CLIENT, "alice", Role.WRITER)


def test_a_certificate_never_outlives_its_authority(tmp_path: Path) -> None:
    authority = make_authority("short", days=3)
    certificate = read(authority.sign(node("node-01"), make_key().public_key(), days=365))
    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_serial_numbers_are_never_used_twice(office: Office) -> None:
    serials = {read(office.sign(node("node-01"))).serial_number for _ in range(20)}
    assert len(serials) == 20


def test_a_certificate_is_valid_on_a_machine_whose_clock_is_a_little_behind(
    office: Office,
) -> None:
    certificate = read(office.sign(node("node-01")))
    behind = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=4)
    assert certificate.not_valid_before_utc < behind


def test_an_authority_is_read_back_from_its_files(office: Office) -> None:
    again = read_authority(office.authority.certificate_pem(), office.authority.private_key_pem())
    assert again.has_signed(read(office.sign(node("node-01"))))


def test_another_authoritys_key_is_refused(office: Office) -> None:
    other = make_authority("other")
    with pytest.raises(TlsError, match="does not belong to its certificate"):
        read_authority(office.authority.certificate_pem(), other.private_key_pem())


def test_a_nodes_certificate_signs_nobody(office: Office) -> None:
    key = make_key()
    pem = office.authority.sign(node("node-01"), key.public_key())
    with pytest.raises(TlsError, match="not one of an authority"):
        read_authority(pem, key_pem(key))


def test_a_request_carries_who_asks_and_under_which_addresses(office: Office) -> None:
    key = make_key()
    request = read_request(make_request(node("node-01", "192.0.2.7", "raft.example"), key))
    assert identity_of(request) == Identity(Kind.NODE, "node-01")
    assert hosts_of(request) == ("node-01", "raft.example", "192.0.2.7")
    subject = node("node-01", *hosts_of(request))
    certificate = read(office.authority.sign(subject, request.public_key()))
    assert certificate.public_key() == key.public_key()


def test_a_request_that_was_altered_is_refused() -> None:
    pem = make_request(node("node-01"), make_key())
    request = x509.load_pem_x509_csr(pem)
    der = bytearray(request.public_bytes(Encoding.DER))
    der[-1] ^= 1
    broken = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    with pytest.raises(TlsError, match="not signed with its own key"):
        read_request(broken)


def test_the_list_of_revoked_certificates_grows_and_keeps_its_dates(office: Office) -> None:
    first = office.authority.revoke([11])
    second = office.authority.revoke([12, 11], first)
    found = read_revocations(second)
    assert {item.serial_number for item in found} == {11, 12}
    before = read_revocations(first).get_revoked_certificate_by_serial_number(11)
    after = found.get_revoked_certificate_by_serial_number(11)
    assert before is not None
    assert after is not None
    assert after.revocation_date_utc == before.revocation_date_utc
    number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert number == 2


def test_another_authoritys_list_is_not_continued(office: Office) -> None:
    other = make_authority("other")
    with pytest.raises(TlsError, match="another authority's"):
        office.authority.revoke([1], other.revoke([2]))


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (node("node 01"), "can't be a member's name"),
        (node("n" * 64), "can't be a member's name"),
        (node("node-01", "not a/host"), "neither a host's name nor an IP address"),
        (node("node-01", "192.0.2.7:5555"), "neither a host's name nor an IP address"),
        (client("", Role.READER), "can't be a client's name"),
        (client("a\nb", Role.READER), "can't be a client's name"),
        (Subject(Kind.CLIENT, "alice", ("192.0.2.7",), Role.READER), "has no addresses"),
        (Subject(Kind.NODE, "node-01", (), Role.ADMIN), "no role"),
    ],
)
def test_what_can_be_no_certificate_is_refused(
    office: Office, subject: Subject, words: str
) -> None:
    with pytest.raises(TlsError, match=words):
        office.sign(subject)
