"""Certificates and keys as files: made with the right modes, replaced in one step, described."""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from raftctl.errors import CommandError

if TYPE_CHECKING:
    from cryptography import x509

    from raft_agent.tls.authority import Authority
    from raft_agent.tls.identity import Identity

CA, CA_KEY, CRL = "ca.pem", "ca-key.pem", "crl.pem"

_T = TypeVar("_T")


def certificate_file(directory: Path, name: str) -> Path:
    return directory / f"{name}.pem"


def key_file(directory: Path, name: str) -> Path:
    return directory / f"{name}-key.pem"


@contextmanager
def in_words() -> Iterator[None]:
    """Turns what is wrong with certificates and files into CommandError."""
    from raft_agent.tls.errors import TlsError  # noqa: PLC0415

    try:
        yield
    except TlsError as error:
        raise CommandError(
            str(error),
            hint="What a file holds: raftctl cert show FILE; what is taken: raftctl cert --help",
        ) from error
    except OSError as error:
        raise CommandError(
            f"{error.filename or 'a file'}: {error.strerror}",
            hint="Give a --dir that is there and that you may use, or go on as its owner",
        ) from error


def refuse_existing(*files: Path, force: bool) -> None:
    """Raises CommandError when one of the files is there: a key that is lost can't be made anew."""
    for file in files:
        if not force and (file.exists() or file.is_symlink()):
            raise CommandError(
                f"{file} exists already, and is left as it is",
                hint="Choose another --dir, or replace it with --force",
            )


def write(file: Path, data: bytes, *, private: bool = False) -> None:
    """Put the file into its place in one step, readable by its owner alone if `private`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as out:
            if not private:
                os.fchmod(out.fileno(), 0o644)
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def read(file: Path, take: Callable[[bytes], _T]) -> _T:
    """What `take` makes of the file. Raises TlsError that names it."""
    from raft_agent.tls.certificate import UNREADABLE  # noqa: PLC0415
    from raft_agent.tls.errors import TlsError  # noqa: PLC0415
    from raft_agent.tls.files import read_file  # noqa: PLC0415

    data = read_file(str(file))
    try:
        return take(data)
    except TlsError as error:
        raise TlsError(error.text, str(file)) from None
    except UNREADABLE as error:
        raise TlsError(f"holds what can't be read: {error}", str(file)) from None


def open_authority(directory: Path) -> Authority:
    """The authority in `directory`. Raises TlsError, or CommandError when there is none."""
    from raft_agent.tls.authority import read_authority  # noqa: PLC0415
    from raft_agent.tls.files import read_file  # noqa: PLC0415

    certificate, key = directory / CA, directory / CA_KEY
    if not key.exists():
        raise CommandError(
            f"There is no authority in {directory}: {key} is missing",
            hint=f"raftctl cert ca --dir {shlex.quote(str(directory))} makes one; --ca-dir names "
            "the directory of one that exists",
        )
    found = read_file(str(key), private=True)
    return read(certificate, lambda pem: read_authority(pem, found))


def identity_in(pem: bytes) -> Identity:
    """Whom the first certificate in a file is for. Raises TlsError."""
    from raft_agent.tls.authority import read_certificates  # noqa: PLC0415
    from raft_agent.tls.certificate import identity_of  # noqa: PLC0415

    return identity_of(read_certificates(pem)[0])


def read_renewable(file: Path, authority_directory: Path) -> x509.Certificate:
    """The certificate in `file`, which the authority in the directory has signed and not revoked.
    Raises TlsError, or CommandError."""
    from raft_agent.tls.authority import has_signed, read_certificates  # noqa: PLC0415
    from raft_agent.tls.authority import read_revocations as lists  # noqa: PLC0415

    found = read(file, read_certificates)[0]
    authority = authority_directory / CA
    if not any(has_signed(item, found) for item in read(authority, read_certificates)):
        raise CommandError(
            f"{file} was not signed by the authority in {authority}",
            hint="--former-ca-dir names the directory of the authority that is being replaced; of "
            "any other one nothing is renewed",
        )
    crl = authority_directory / CRL
    if crl.exists() and read(crl, lists).get_revoked_certificate_by_serial_number(
        found.serial_number
    ):
        raise CommandError(
            f"{file} is revoked, as {crl} says, and what was taken back is not renewed",
            hint="raftctl cert node and raftctl cert client make a new one, with a new key",
        )
    return found


def describe(certificate: x509.Certificate) -> dict[str, Any]:
    """A certificate as data for people and programs; times in RFC 3339."""
    from raft_agent.tls.authority import is_authority  # noqa: PLC0415

    facts: dict[str, Any] = {
        "serial": f"{certificate.serial_number:x}",
        "issuer": certificate.issuer.rfc4514_string(),
        "not_before": f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        "not_after": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
    }
    if is_authority(certificate):
        return {"kind": "ca", "name": certificate.subject.rfc4514_string(), **facts}
    return {**_who(certificate), **facts}


def describe_request(request: x509.CertificateSigningRequest) -> dict[str, Any]:
    """A request as data: who asks to be whom."""
    return {"request_for": _who(request)}


def describe_revocations(revocations: x509.CertificateRevocationList) -> dict[str, Any]:
    """A list of revoked certificates as data."""
    due = revocations.next_update_utc
    return {
        "kind": "crl",
        "issuer": revocations.issuer.rfc4514_string(),
        "made": f"{revocations.last_update_utc:%Y-%m-%dT%H:%M:%SZ}",
        "due": None if due is None else f"{due:%Y-%m-%dT%H:%M:%SZ}",
        "revoked": [f"{item.serial_number:x}" for item in revocations],
    }


def _who(certificate: x509.Certificate | x509.CertificateSigningRequest) -> dict[str, Any]:
    from raft_agent.tls.authority import hosts_of  # noqa: PLC0415
    from raft_agent.tls.certificate import identity_of  # noqa: PLC0415
    from raft_agent.tls.errors import CertificateRefused  # noqa: PLC0415

    try:
        identity = identity_of(certificate)
    except CertificateRefused as refused:
        return {
            "kind": "unknown",
            "name": certificate.subject.rfc4514_string(),
            "problem": refused.text,
        }
    facts: dict[str, Any] = {"kind": str(identity.kind), "name": identity.name}
    if identity.kind == "node":
        facts["hosts"] = list(hosts_of(certificate))
    else:
        facts["role"] = identity.role
    return facts


def lines_of(facts: dict[str, Any]) -> str:
    """The data as lines of text."""
    lines = []
    for key, value in facts.items():
        if isinstance(value, dict):
            lines.append(f"{_label(key)}:")
            lines += [f"  {line}" for line in lines_of(value).splitlines()]
        else:
            lines.append(f"{_label(key) + ':':<13} {_shown(value)}")
    return "\n".join(lines)


def _label(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "none"
    return str(value)
