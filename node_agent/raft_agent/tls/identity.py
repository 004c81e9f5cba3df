"""Who a certificate is for, and what it may do.

A node's certificate names the member in a URI of its subject alternative names
(`urn:raft:node:NAME`) and is for both sides of a connection (extended key usages serverAuth and
clientAuth, RFC 5280 §4.2.1.12). A client's has its name as common name, its role as
organizational unit, and clientAuth alone. Each must lack what makes the other one, so that no
certificate is both.
"""

from __future__ import annotations

import enum
import re

import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from raft_agent.tls.errors import CertificateRefused

NODE_URI = "urn:raft:node:"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# RFC 5280, appendix A: the longest common name.
_MAX_CLIENT_NAME = 64


class Kind(enum.StrEnum):
    NODE = "node"
    CLIENT = "client"


class Role(enum.StrEnum):
    """What a client may do; each may do what those before it may."""

    READER = "reader"
    WRITER = "writer"
    ADMIN = "admin"


class Identity(msgspec.Struct, frozen=True):
    """`role` is a client's, None where its certificate gives none."""

    kind: Kind
    name: str
    role: Role | None = None

    def __str__(self) -> str:
        if self.kind is Kind.NODE:
            return f"node {self.name}"
        return f"client {self.name} ({self.role or 'no role'})"


def is_member_name(name: str) -> bool:
    """Whether `name` can be a member's: up to 63 letters, digits, `.`, `_`, `-`."""
    return _NAME.fullmatch(name) is not None


def is_client_name(name: str) -> bool:
    """Whether `name` can be a client's: printable text of 1 to 64 characters."""
    return 1 <= len(name) <= _MAX_CLIENT_NAME and name.isprintable() and name == name.strip()


def identity_of(certificate: x509.Certificate | x509.CertificateSigningRequest) -> Identity:
    """Whom the certificate (or request) names. Whether to trust it is another question.

    Raises CertificateRefused when that is neither a node nor a client.
    """
    try:
        uris = [uri for uri in _uris(certificate) if uri.startswith(NODE_URI)]
        usages = _usages(certificate)
        common_names = _of_subject(certificate, NameOID.COMMON_NAME)
        units = _of_subject(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME)
    except ValueError as error:
        raise CertificateRefused("certificate", f"it can't be read: {error}") from None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise CertificateRefused(
            "certificate", "it is not for clients of TLS (extended key usage clientAuth)"
        )
    is_server = ExtendedKeyUsageOID.SERVER_AUTH in usages
    if uris and is_server:
        return _node(uris)
    if uris or is_server:
        raise CertificateRefused(
            "certificate",
            f"it is neither a node's, which has both a {NODE_URI}NAME and the extended key usage "
            "serverAuth, nor a client's, which has neither",
        )
    return _client(common_names, units)


def _node(uris: list[str]) -> Identity:
    names = [uri.removeprefix(NODE_URI) for uri in uris]
    if len(names) > 1:
        raise CertificateRefused("certificate", "it names several nodes")
    if not is_member_name(names[0]):
        raise CertificateRefused("certificate", f"{names[0]!r} can't be the name of a node")
    return Identity(Kind.NODE, names[0])


def _client(common_names: list[str], units: list[str]) -> Identity:
    if len(common_names) != 1 or not is_client_name(common_names[0]):
        raise CertificateRefused("certificate", "it has no usable common name")
    roles = [role for role in Role if role in units]
    if len(roles) > 1:
        raise CertificateRefused("certificate", f"it gives several roles: {', '.join(roles)}")
    return Identity(Kind.CLIENT, common_names[0], roles[0] if roles else None)


def _uris(certificate: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return found.value.get_values_for_type(x509.UniformResourceIdentifier)


def _usages(
    certificate: x509.Certificate | x509.CertificateSigningRequest,
) -> frozenset[x509.ObjectIdentifier]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(found.value)


def _of_subject(
    certificate: x509.Certificate | x509.CertificateSigningRequest, oid: x509.ObjectIdentifier
) -> list[str]:
    return [str(item.value) for item in certificate.subject.get_attributes_for_oid(oid)]
