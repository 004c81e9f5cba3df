"""The files in the two Secrets of a cluster, and when they are to be others: pure, time comes in.

The authority's Secret is read by the operator alone. The pods' Secret holds whom to trust and a
certificate with its key for each member. An authority is replaced as docs/security.md says: the new
one is trusted by all before it signs anything, and the old one until all it has signed is gone.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from cryptography import x509

from raft_agent.tls.authority import (
    Authority,
    Subject,
    has_signed,
    hosts_of,
    key_pem,
    make_authority,
    make_key,
    read_authority,
    read_certificates,
)
from raft_agent.tls.errors import TlsError
from raft_agent.tls.identity import Kind, Role
from raft_operator.pods import AUTHORITIES_FILE, certificate_file, key_file

Files = Mapping[str, bytes]

CERTIFICATE, KEY = "tls.crt", "tls.key"
_INCOMING, _INCOMING_KEY = "incoming.crt", "incoming.key"
_OUTGOING = "outgoing.crt"
_SINCE = "since"

# Until all kubelets have brought a Secret to their pods, which takes them a minute or two.
SETTLE = datetime.timedelta(hours=1)
# An authority lasts ten years; one is enough to replace it, also where nobody looks for months.
_AUTHORITY_LEFT = datetime.timedelta(days=365)
# The operator's own is made anew in half of that, and is in no Secret.
_ADMIN_DAYS = 2
ADMIN_NAME = "raft-operator"


def next_authority(
    files: Files, given: Files | None, name: str, now: datetime.datetime
) -> dict[str, bytes]:
    """The authority's files as they should be now; the same ones when nothing is due. `given`:
    those of an authority that people brought. Raises TlsError when one of them can't be used."""
    wanted = None if given is None else _pair(given)
    if CERTIFICATE not in files:
        return {**(wanted or _made(name, now)), _SINCE: _text(now)}
    since = _time(files)
    if since > now:
        # A clock was wrong, and nobody knows how long it is since.
        return {**files, _SINCE: _text(now)}
    settled = now - since >= SETTLE
    if _INCOMING in files:
        if not settled:
            return dict(files)
        signing = {CERTIFICATE: files[_INCOMING], KEY: files[_INCOMING_KEY]}
        return {**signing, _OUTGOING: files[CERTIFICATE], _SINCE: _text(now)}
    if _OUTGOING in files:
        kept = {file: data for file, data in files.items() if file != _OUTGOING}
        return {**kept, _SINCE: _text(now)} if settled else dict(files)
    if wanted is None and _left(files[CERTIFICATE], now) < _AUTHORITY_LEFT:
        wanted = _made(name, now)
    if wanted is None or wanted[CERTIFICATE] == files[CERTIFICATE]:
        return dict(files)
    incoming = {_INCOMING: wanted[CERTIFICATE], _INCOMING_KEY: wanted[KEY]}
    return {**files, **incoming, _SINCE: _text(now)}


def trusted(authority: Files) -> bytes:
    """All authorities that members and operator are to trust now."""
    files = (CERTIFICATE, _INCOMING, _OUTGOING)
    return b"".join(authority[file] for file in files if file in authority)


def next_certificates(
    files: Files,
    authority: Files,
    members: Mapping[str, tuple[str, ...]],
    days: int,
    now: datetime.datetime,
) -> dict[str, bytes]:
    """The pods' files as they should be now. `members`: the names under which each is dialled.
    Raises TlsError."""
    signing = read_authority(authority[CERTIFICATE], authority[KEY])
    wanted = {AUTHORITIES_FILE: trusted(authority)}
    for name, hosts in members.items():
        certificate, key = files.get(certificate_file(name)), files.get(key_file(name))
        if certificate is None or key is None or not _lasts(certificate, signing, name, hosts, now):
            private = make_key()
            subject = Subject(Kind.NODE, name, hosts)
            certificate = signing.sign(subject, private.public_key(), days=days, now=now)
            key = key_pem(private)
        wanted |= {certificate_file(name): certificate, key_file(name): key}
    return wanted


def admin_certificate(authority: Files, now: datetime.datetime) -> tuple[bytes, bytes]:
    """A short-lived certificate of the operator's own, and its key. Raises TlsError."""
    signing = read_authority(authority[CERTIFICATE], authority[KEY])
    key = make_key()
    subject = Subject(Kind.CLIENT, ADMIN_NAME, role=Role.ADMIN)
    return signing.sign(subject, key.public_key(), days=_ADMIN_DAYS, now=now), key_pem(key)


def is_fresh(certificate: bytes, now: datetime.datetime) -> bool:
    """Whether the certificate is valid, and at least half of its time is left."""
    (found, *_) = read_certificates(certificate)
    return _is_current(found, now, 2)


def _pair(given: Files) -> dict[str, bytes]:
    if CERTIFICATE not in given or KEY not in given:
        raise TlsError(f"the Secret of the authority needs {CERTIFICATE} and {KEY}")
    read_authority(given[CERTIFICATE], given[KEY])
    return {CERTIFICATE: given[CERTIFICATE], KEY: given[KEY]}


def _made(name: str, now: datetime.datetime) -> dict[str, bytes]:
    authority = make_authority(name, now=now)
    return {CERTIFICATE: authority.certificate_pem(), KEY: authority.private_key_pem()}


def _lasts(
    certificate: bytes,
    signing: Authority,
    name: str,
    hosts: tuple[str, ...],
    now: datetime.datetime,
) -> bool:
    """Whether a member's certificate is as it would be made, and has a third of its time left."""
    try:
        (found, *_) = read_certificates(certificate)
    except TlsError:
        return False
    is_asked_for = set(hosts_of(found)) == {name, *hosts}
    return is_asked_for and _is_current(found, now, 3) and has_signed(signing.certificate, found)


def _is_current(certificate: x509.Certificate, now: datetime.datetime, part: int) -> bool:
    """Whether it is valid, and that part of its time is left. One that a wrong clock made may be
    valid only later."""
    has_begun = certificate.not_valid_before_utc <= now
    return has_begun and certificate.not_valid_after_utc - now > _life(certificate) / part


def _life(certificate: x509.Certificate) -> datetime.timedelta:
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def _left(certificate: bytes, now: datetime.datetime) -> datetime.timedelta:
    (found, *_) = read_certificates(certificate)
    return found.not_valid_after_utc - now


def _text(now: datetime.datetime) -> bytes:
    return now.isoformat(timespec="seconds").encode()


def _time(files: Files) -> datetime.datetime:
    """When the last step was taken; long ago where that can't be read any more."""
    try:
        return datetime.datetime.fromisoformat(files[_SINCE].decode())
    except (KeyError, ValueError):
        return datetime.datetime.fromtimestamp(0, datetime.UTC)
