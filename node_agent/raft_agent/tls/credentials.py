"""One's own certificate, whom to trust, and the contexts of TLS that follow from both.

TLS 1.3 alone, and both sides show a certificate. Connections are made with the context that is in
force; when the files change, those that come later get another one, and none that stands is
touched.
"""

from __future__ import annotations

import contextlib
import datetime
import ssl
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from raft_agent.tls.authority import (
    has_signed,
    is_authority,
    read_certificates,
    read_revocations,
)
from raft_agent.tls.certificate import UNREADABLE, identity_of
from raft_agent.tls.errors import CertificateRefused, TlsError
from raft_agent.tls.files import Contents, TlsFiles, read_files
from raft_agent.tls.identity import Identity, Kind

# How often files that are being replaced are read again until they go together.
_ATTEMPTS = 5
_CRL_BEGINS = b"-----BEGIN X509 CRL-----"

T = TypeVar("T")


class PeerCertificate(msgspec.Struct, frozen=True):
    """What is kept of the certificate that the other side has shown. `issuer` stands for the name
    of the authority in whose list `serial` would be revoked.
    """

    identity: Identity
    issuer: str
    serial: int
    not_after: datetime.datetime


class Loaded(msgspec.Struct, frozen=True):
    """What the files held when they were read. `server` is for connections that are accepted;
    `to_node` for those to a node that is known by name; `to_host` for those to a host, whose name
    or address must stand in the certificate. `revoked`: (issuer, serial).
    `crl_due`: when the first of the lists should have been made anew; None without one.
    """

    own: Identity
    not_after: datetime.datetime
    authorities_end: datetime.datetime
    server: ssl.SSLContext
    to_node: ssl.SSLContext
    to_host: ssl.SSLContext
    revoked: frozenset[tuple[str, int]]
    crl_due: datetime.datetime | None


class Credentials:
    """Those of this node or client. `expected` is whom the certificate must be for; its role is not
    compared, and an empty name fits all. Raises TlsError, which names the file.

    Not for several threads at once.
    """

    def __init__(self, files: TlsFiles, expected: Identity | Kind) -> None:
        self.files = files
        self._expected = expected
        # Taken first: a change while they are read is seen as one afterwards.
        self._signature = self._seen = files.signature()
        self.loaded = load(files, expected)

    @property
    def own(self) -> Identity:
        """Whom the certificate is for."""
        return self.loaded.own

    @property
    def not_after(self) -> datetime.datetime:
        """When it ends."""
        return self.loaded.not_after

    def server_context(self) -> ssl.SSLContext:
        """For a connection that was accepted. Ask anew for each."""
        return self.loaded.server

    def client_context(self) -> ssl.SSLContext:
        """For a connection to a node: `check` with its name must follow the handshake. Ask anew
        for each."""
        return self.loaded.to_node

    def host_context(self) -> ssl.SSLContext:
        """For a connection to a host; `server_hostname` is what must stand in its certificate."""
        return self.loaded.to_host

    def reload(self) -> bool:
        """Read the files now; True. Raises TlsError, and then all stays as it was."""
        signature = self.files.signature()
        self._signature = self._seen = signature
        self.loaded = load(self.files, self._expected)
        return True

    def refresh(self) -> None:
        """Read the files when they have changed. Those that can't be used change nothing, and are
        for the next change."""
        if self.files.signature() != self._signature:
            with contextlib.suppress(TlsError):
                self.reload()

    def reload_if_changed(self) -> bool:
        """Read the files when they have changed and then stood still from one call to the next, so
        that a certificate is not read without the key that comes a moment later. True when they
        were read. Raises TlsError, once for each change, and then all stays as it was.
        """
        signature = self.files.signature()
        is_still = signature == self._seen
        self._seen = signature
        if not is_still or signature == self._signature:
            return False
        return self.reload()

    def check(
        self, der: bytes | None, *, kind: Kind | None = None, name: str = ""
    ) -> PeerCertificate:
        """Who is on the other side, after the handshake, which has checked the signatures and the
        dates. `der` is what getpeercert(binary_form=True) gives. `kind` and `name`: who it must be.

        Raises CertificateRefused.
        """
        if der is None:
            raise CertificateRefused("certificate", "it has shown no certificate")
        peer = _read_peer(der)
        self.check_again(peer)
        identity = peer.identity
        if kind is not None and identity.kind is not kind:
            raise CertificateRefused(
                "role", f"it has the certificate of {identity}, where a {kind}'s is needed"
            )
        if name and identity.name != name:
            raise CertificateRefused("name", f"it has the certificate of {identity}, not of {name}")
        return peer

    def check_again(self, peer: PeerCertificate) -> None:
        """Whether a connection that stands may go on. Raises CertificateRefused."""
        if (peer.issuer, peer.serial) in self.loaded.revoked:
            raise CertificateRefused("revoked", f"the certificate of {peer.identity} is revoked")


def _read_peer(der: bytes) -> PeerCertificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        return PeerCertificate(
            identity_of(certificate),
            _comparable(certificate.issuer),
            certificate.serial_number,
            certificate.not_valid_after_utc,
        )
    except UNREADABLE as error:
        raise CertificateRefused("certificate", f"its certificate can't be read: {error}") from None


def load(files: TlsFiles, expected: Identity | Kind) -> Loaded:
    """Read and check the files. Raises TlsError, which names the file."""
    for _ in range(_ATTEMPTS):
        contents = read_files(files)
        try:
            loaded = _load(files, contents, expected)
        except UNREADABLE as error:
            text = f"this file, or {files.ca} or the list, holds what can't be read: {error}"
            raise TlsError(text, files.cert) from None
        # The library ssl reads certificate and key from their files: were they those?
        if read_files(files) == contents:
            return loaded
    raise TlsError("the files change all the time: replace them once, and then wait", files.cert)


def _load(files: TlsFiles, contents: Contents, expected: Identity | Kind) -> Loaded:
    authorities = _authorities(files, contents)
    chain = _in_file(files.cert, read_certificates, contents.cert)
    own = _own_identity(files, chain[0], expected)
    _check_key(files, contents.key, chain[0])
    _check_dates(files.cert, chain[0])
    _check_chain(files, chain, authorities)
    revocations = _revocations(files, contents, authorities)
    _check_not_revoked(files, chain[0], revocations)
    contexts = _Contexts(files, authorities)
    return Loaded(
        own=own,
        not_after=chain[0].not_valid_after_utc,
        authorities_end=max(item.not_valid_after_utc for item in authorities),
        server=contexts.make(ssl.PROTOCOL_TLS_SERVER),
        to_node=contexts.make(ssl.PROTOCOL_TLS_CLIENT),
        to_host=contexts.make(ssl.PROTOCOL_TLS_CLIENT, check_hostname=True),
        revoked=frozenset(
            (_comparable(item.issuer), entry.serial_number)
            for item in revocations
            for entry in item
        ),
        crl_due=min(
            (item.next_update_utc for item in revocations if item.next_update_utc), default=None
        ),
    )


class _Contexts:
    """Makes contexts of ssl from files that were checked."""

    def __init__(self, files: TlsFiles, authorities: Sequence[x509.Certificate]) -> None:
        self._files = files
        pem = b"".join(item.public_bytes(serialization.Encoding.PEM) for item in authorities)
        self._authorities = pem.decode()

    def make(self, protocol: int, *, check_hostname: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = check_hostname
        context.hostname_checks_common_name = False
        context.verify_mode = ssl.CERT_REQUIRED
        # An authority between two others can be trusted by itself, without the one above it.
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            # A ticket would let a client in again whose certificate was revoked in between.
            context.num_tickets = 0
        try:
            context.load_verify_locations(cadata=self._authorities)
            # Without a password it would ask the terminal for the one of a key that has one.
            context.load_cert_chain(self._files.cert, self._files.key, password=_no_password)
        except (ssl.SSLError, OSError) as error:
            raise TlsError(f"can't be used: {error}", self._files.cert) from error
        return context


def _no_password() -> str:
    return ""


def _authorities(files: TlsFiles, contents: Contents) -> Sequence[x509.Certificate]:
    found = _in_file(files.ca, read_certificates, contents.ca)
    for certificate in found:
        if not is_authority(certificate):
            raise TlsError(
                f"the certificate of {_name(certificate)} is not one of an authority; here belong "
                "those by whom others' certificates were signed",
                files.ca,
            )
    return found


def _own_identity(
    files: TlsFiles, certificate: x509.Certificate, expected: Identity | Kind
) -> Identity:
    try:
        own = identity_of(certificate)
    except CertificateRefused as refused:
        raise TlsError(
            f"the certificate of {_name(certificate)} can't be used: {refused.text}", files.cert
        ) from None
    kind = expected if isinstance(expected, Kind) else expected.kind
    if own.kind is not kind:
        raise TlsError(
            f"is the certificate of a {own.kind} ({own}); a {kind}'s is needed", files.cert
        )
    if isinstance(expected, Identity) and own.name != expected.name:
        raise TlsError(
            f"is the certificate of {own}, but this is {expected.name}: have one made for "
            f"{expected.name}",
            files.cert,
        )
    return own


def _check_key(files: TlsFiles, pem: bytes, certificate: x509.Certificate) -> None:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise TlsError(
            "the key is encrypted, and nobody is there at start to say the password: store it "
            "without one, readable by its owner alone",
            files.key,
        ) from None
    except UNREADABLE as error:
        raise TlsError(f"has no private key in PEM: {error}", files.key) from None
    if key.public_key() != certificate.public_key():
        raise TlsError(
            f"the key does not belong to the certificate in {files.cert}: they are made together",
            files.key,
        )


def _check_dates(path: str, certificate: x509.Certificate) -> None:
    now = datetime.datetime.now(datetime.UTC)
    if certificate.not_valid_after_utc < now:
        raise TlsError(
            f"the certificate of {_name(certificate)} has ended on "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: have a new one made",
            path,
        )
    if certificate.not_valid_before_utc > now:
        raise TlsError(
            f"the certificate of {_name(certificate)} begins on "
            f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only: is this machine's clock "
            f"right? It says {now:%Y-%m-%d %H:%M}",
            path,
        )


def _check_chain(
    files: TlsFiles, chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]
) -> None:
    """Others would refuse what does not lead to an authority; say it here."""
    current, others = chain[0], list(chain[1:])
    while not any(has_signed(authority, current) for authority in authorities):
        above = next((item for item in others if has_signed(item, current)), None)
        if above is None:
            issuer = current.issuer.rfc4514_string()
            is_namesake = any(authority.subject == current.issuer for authority in authorities)
            where = f"which is not in {files.ca}"
            if is_namesake:
                where = f"but with another key than the {issuer} in {files.ca} has"
            raise TlsError(
                f"the certificate of {_name(chain[0])} was signed by {issuer}, {where}", files.cert
            )
        others.remove(above)
        current = above


def _revocations(
    files: TlsFiles, contents: Contents, authorities: Sequence[x509.Certificate]
) -> list[x509.CertificateRevocationList]:
    if not files.crl:
        return []
    parts = contents.crl.split(_CRL_BEGINS)[1:]
    if not parts:
        raise TlsError("has no list of revoked certificates in PEM", files.crl)
    found = [_in_file(files.crl, read_revocations, _CRL_BEGINS + part) for part in parts]
    for item in found:
        if not any(_has_signed_list(authority, item) for authority in authorities):
            raise TlsError(
                f"the list of {item.issuer.rfc4514_string()} was signed by no authority in "
                f"{files.ca}",
                files.crl,
            )
    return found


def _check_not_revoked(
    files: TlsFiles,
    certificate: x509.Certificate,
    revocations: Sequence[x509.CertificateRevocationList],
) -> None:
    for item in revocations:
        if _comparable(item.issuer) != _comparable(certificate.issuer):
            continue
        if item.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise TlsError(
                f"the certificate of {_name(certificate)} is revoked, as {files.crl} says: have a "
                "new one made",
                files.cert,
            )


def _has_signed_list(
    authority: x509.Certificate, revocations: x509.CertificateRevocationList
) -> bool:
    if revocations.issuer != authority.subject:
        return False
    try:
        return revocations.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except UNREADABLE:
        return False


def _in_file(path: str, read: Callable[[bytes], T], data: bytes) -> T:
    try:
        return read(data)
    except TlsError as error:
        raise TlsError(error.text, path) from None


def _comparable(name: x509.Name) -> str:
    """The same for two encodings of a name (RFC 5280 §7.1): a list may have another one of its
    authority's name than the certificates in it."""
    return " ".join(name.rfc4514_string().casefold().split())


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "an unnamed subject"
