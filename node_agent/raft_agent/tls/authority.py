"""An authority that makes the certificates of a cluster: X.509 (RFC 5280), keys on P-256.

Everything is text in PEM, so that it can be put into files as it is.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable, Sequence

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
    CertificatePublicKeyTypes,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from raft_agent.tls.certificate import NODE_URI, UNREADABLE
from raft_agent.tls.errors import TlsError
from raft_agent.tls.identity import Kind, Role, is_client_name, is_member_name

AUTHORITY_DAYS = 3650
LEAF_DAYS = 365
CRL_DAYS = 365

# Clocks of machines that have just been set up may be behind the authority's.
_CLOCK_SLACK = datetime.timedelta(minutes=5)
_PEM = serialization.Encoding.PEM
_LEAF_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_AUTHORITY_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Subject(msgspec.Struct, frozen=True):
    """Who a certificate is to be for. `hosts` are the names and addresses under which a node is
    dialled; `role` is a client's. `check` says what can't be.
    """

    kind: Kind
    name: str
    hosts: tuple[str, ...] = ()
    role: Role | None = None

    def check(self) -> None:
        """Raises TlsError when there can't be such a certificate."""
        if self.kind is Kind.NODE:
            if not is_member_name(self.name):
                raise TlsError(
                    f"{self.name!r} can't be a member's name: up to 63 letters, digits, `.`, `_`, "
                    "`-`, a letter or digit first"
                )
            if self.role is not None:
                raise TlsError("a node has no role")
        else:
            if not is_client_name(self.name):
                raise TlsError(f"{self.name!r} can't be a client's name: 1 to 64 characters")
            if self.hosts:
                raise TlsError("a client's certificate has no addresses")

    def names(self) -> x509.Name:
        """The distinguished name."""
        unit = "node" if self.kind is Kind.NODE else self.role
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, self.name)]
        if unit is not None:
            parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
        return x509.Name(parts)

    def extensions(self) -> list[x509.ExtensionType]:
        """What a request asks for and a certificate gives."""
        if self.kind is Kind.CLIENT:
            return [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]
        general: list[x509.GeneralName] = [x509.UniformResourceIdentifier(NODE_URI + self.name)]
        # A node can always be asked for by its name, too.
        general += [general_name(host) for host in dict.fromkeys((self.name, *self.hosts))]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return [x509.SubjectAlternativeName(general), x509.ExtendedKeyUsage(usages)]


def general_name(host: str) -> x509.GeneralName:
    """A DNS name or an IP address as it stands in a certificate. Raises TlsError."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        if not host or host.isspace() or "/" in host or ":" in host:
            raise ValueError
        return x509.DNSName(host)
    except ValueError:
        raise TlsError(f"{host!r} is neither a host's name nor an IP address") from None


def make_key() -> ec.EllipticCurvePrivateKey:
    """A new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as text, not encrypted: keep it in a file that only its owner can read."""
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def make_request(subject: Subject, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate signing request (PKCS #10) for an authority somewhere else. Raises TlsError."""
    subject.check()
    builder = x509.CertificateSigningRequestBuilder(subject.names())
    for extension in subject.extensions():
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(_PEM)


def read_request(pem: bytes) -> x509.CertificateSigningRequest:
    """Raises TlsError when `pem` is no request, or its signature is not that of its key."""
    try:
        request = x509.load_pem_x509_csr(pem)
        is_signed = request.is_signature_valid
    except (*UNREADABLE, InvalidSignature) as error:
        raise TlsError(f"is no certificate signing request in PEM{_detail(error)}") from None
    if not is_signed:
        raise TlsError("is a request that was not signed with its own key")
    return request


def hosts_of(
    certificate: x509.Certificate | x509.CertificateSigningRequest,
) -> tuple[str, ...]:
    """The names and addresses in a certificate, or those that a request asks for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return ()
    addresses = found.get_values_for_type(x509.IPAddress)
    return (*found.get_values_for_type(x509.DNSName), *map(str, addresses))


def make_authority(
    name: str, *, days: int = AUTHORITY_DAYS, now: datetime.datetime | None = None
) -> Authority:
    """A new authority with a key of its own, which signs itself. `now`: by a better clock than this
    machine's. Raises TlsError."""
    if not is_client_name(name):
        raise TlsError(f"{name!r} can't be an authority's name: 1 to 64 characters")
    key = make_key()
    now = _now() if now is None else now.replace(microsecond=0)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
        # It signs members and clients, and no other authority.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_AUTHORITY_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def read_authority(certificate_pem: bytes, private_key_pem: bytes) -> Authority:
    """Raises TlsError when the two are not those of one authority."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except UNREADABLE as error:
        raise TlsError(f"the authority's certificate can't be read: {error}") from None
    try:
        key = serialization.load_pem_private_key(private_key_pem, password=None)
    except UNREADABLE as error:
        raise TlsError(f"the authority's key can't be read: {error}") from None
    if key.public_key() != certificate.public_key():
        raise TlsError("the authority's key does not belong to its certificate")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TlsError("the authority's key is not one on an elliptic curve")
    if not is_authority(certificate):
        raise TlsError("the certificate is not one of an authority")
    return Authority(certificate, key)


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may sign others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *UNREADABLE):
        return False


def has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether the key of `authority` has signed `certificate`, and under its name."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


class Authority:
    """Signs certificates, and lists those that it takes back. Made by `make_authority` and
    `read_authority`.
    """

    def __init__(self, certificate: x509.Certificate, key: CertificateIssuerPrivateKeyTypes):
        self.certificate = certificate
        self._key = key

    def certificate_pem(self) -> bytes:
        """What nodes and clients are to trust."""
        return self.certificate.public_bytes(_PEM)

    def private_key_pem(self) -> bytes:
        """Who has this can be anybody in the cluster."""
        return self._key.private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(
        self,
        subject: Subject,
        public_key: CertificatePublicKeyTypes,
        *,
        days: int = LEAF_DAYS,
        now: datetime.datetime | None = None,
    ) -> bytes:
        """A certificate for `subject`, who has the other half of `public_key`. It ends with the
        authority's at the latest. `now`: by a better clock than this machine's. Raises TlsError.
        """
        subject.check()
        now = _now() if now is None else now.replace(microsecond=0)
        ends = min(now + datetime.timedelta(days=days), self.certificate.not_valid_after_utc)
        if ends <= now:
            raise TlsError(
                f"the authority's own certificate ended {self.certificate.not_valid_after_utc}"
            )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject.names())
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SLACK)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_LEAF_USAGE, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        for extension in subject.extensions():
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM)

    def revoke(
        self, serials: Iterable[int], former_pem: bytes = b"", *, days: int = CRL_DAYS
    ) -> bytes:
        """The list of revoked certificates (CRL): what stands in the list `former_pem`, and these
        serial numbers. It asks to be made anew within `days`. Raises TlsError when the former list
        is not this authority's.
        """
        former = None
        revoked: dict[int, datetime.datetime] = {}
        if former_pem:
            former = read_revocations(former_pem)
            if not former.is_signature_valid(self.certificate.public_key()):  # type: ignore[arg-type]
                raise TlsError("the former list of revoked certificates is another authority's")
            revoked = {item.serial_number: item.revocation_date_utc for item in former}
        now = _now()
        for serial in serials:
            revoked.setdefault(serial, now)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now)
            .next_update(now + datetime.timedelta(days=days))
            .add_extension(self._key_identifier(), critical=False)
            .add_extension(x509.CRLNumber(_number_of(former) + 1), critical=False)
        )
        for serial, date in revoked.items():
            item = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(date)
            builder = builder.add_revoked_certificate(item.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM)

    def has_signed(self, certificate: x509.Certificate) -> bool:
        """Whether the certificate is one of this authority's."""
        return has_signed(self.certificate, certificate)

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        found = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)


def read_certificates(pem: bytes) -> Sequence[x509.Certificate]:
    """All certificates in a file, in its order; at least one. Raises TlsError."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except UNREADABLE as error:
        raise TlsError(f"has no certificate in PEM{_detail(error)}") from None


def read_revocations(pem: bytes) -> x509.CertificateRevocationList:
    """One list of revoked certificates. Raises TlsError."""
    try:
        return x509.load_pem_x509_crl(pem)
    except UNREADABLE as error:
        raise TlsError(f"is no list of revoked certificates in PEM{_detail(error)}") from None


def _detail(error: Exception) -> str:
    """What the library says of a file, unless that is only that it is no PEM."""
    text = str(error)
    return "" if not text or "PEM" in text else f": {text}"


def _number_of(revocations: x509.CertificateRevocationList | None) -> int:
    if revocations is None:
        return 0
    try:
        return revocations.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


def _now() -> datetime.datetime:
    """To the second, as certificates have it."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
