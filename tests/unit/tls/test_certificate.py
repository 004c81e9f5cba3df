"""Whom a certificate names: a node or a client, and never both."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from raft_agent.tls.authority import make_key
from raft_agent.tls.certificate import identity_of
from raft_agent.tls.errors import CertificateRefused
from raft_agent.tls.identity import Identity, Kind, Role

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


def certificate(
    *,
    names: Sequence[str] = (),
    units: Sequence[str] = (),
    uris: Sequence[str] = (),
    usages: Sequence[x509.ObjectIdentifier] = (),
) -> x509.Certificate:
    """What another authority than ours might sign."""
    key = make_key()
    subject = x509.Name(
        [
            *(x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names),
            *(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if uris:
        general = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(key, hashes.SHA256())


def test_a_node_is_who_its_uri_says_whatever_its_common_name() -> None:
    found = certificate(
        names=["node-02"],
        units=["admin"],
        uris=["https://example", "urn:raft:node:node-01"],
        usages=[SERVER, CLIENT],
    )
    assert identity_of(found) == Identity(Kind.NODE, "node-01")


def test_a_client_whose_common_name_is_a_nodes_is_no_node() -> None:
    found = certificate(names=["node-01"], units=["ops", "admin"], usages=[CLIENT])
    assert identity_of(found) == Identity(Kind.CLIENT, "node-01", Role.ADMIN)


def test_a_client_without_a_role_has_none() -> None:
    found = certificate(names=["alice"], units=["Admin", "node"], usages=[CLIENT])
    assert identity_of(found).role is None


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"names": ["alice"], "units": ["admin"]}, "not for clients of TLS"),
        ({"names": ["alice"], "units": ["admin"], "usages": [SERVER]}, "not for clients of TLS"),
        ({"names": ["a"], "uris": ["urn:raft:node:node-01"], "usages": [CLIENT]}, "neither"),
        ({"names": ["alice"], "units": ["admin"], "usages": [SERVER, CLIENT]}, "neither"),
        (
            {"uris": ["urn:raft:node:a", "urn:raft:node:b"], "usages": [SERVER, CLIENT]},
            "several nodes",
        ),
        ({"uris": ["urn:raft:node:a/../b"], "usages": [SERVER, CLIENT]}, "can't be the name"),
        ({"uris": ["urn:raft:node:"], "usages": [SERVER, CLIENT]}, "can't be the name"),
        ({"units": ["admin"], "usages": [CLIENT]}, "no usable common name"),
        ({"names": ["a", "b"], "units": ["admin"], "usages": [CLIENT]}, "no usable common name"),
        ({"names": ["a\x1b[2J"], "units": ["admin"], "usages": [CLIENT]}, "no usable common name"),
        ({"names": ["alice"], "units": ["reader", "admin"], "usages": [CLIENT]}, "several roles"),
    ],
)
def test_what_is_neither_a_node_nor_a_client_is_refused(
    parts: dict[str, Sequence[str]], words: str
) -> None:
    with pytest.raises(CertificateRefused, match=words) as caught:
        identity_of(certificate(**parts))
    assert caught.value.reason == "certificate"
