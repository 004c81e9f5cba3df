"""What a certificate says about whom it is for.

A node's certificate names the member in a URI of its subject alternative names
(`urn:raft:node:NAME`) and is for both sides of a connection (extended key usages serverAuth and
clientAuth, RFC 5280 §4.2.1.12). A client's has its name as common name, its role as
organizational unit, and clientAuth alone. Each must lack what makes the other one, so that no
certificate is both.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from raft_agent.tls.errors import CertificateRefused
from raft_agent.tls.identity import Identity, Kind, Role, is_client_name, is_member_name

NODE_URI = "urn:raft:node:"

# What the library raises at a part that makes no sense; it reads most parts only when asked.
UNREADABLE = (
    ValueError,
    TypeError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)


def identity_of(certificate: x509.Certificate | x509.CertificateSigningRequest) -> Identity:
    """Whom the certificate (or request) names. Whether to trust it is another question.

    Raises CertificateRefused when that is neither a node nor a client.
    """
    try:
        uris = [uri for uri in _uris(certificate) if uri.startswith(NODE_URI)]
        usages = _usages(certificate)
        common_names = _of_subject(certificate, NameOID.COMMON_NAME)
        units = _of_subject(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME)
    except UNREADABLE as error:
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
