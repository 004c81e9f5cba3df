"""`raftctl cert`: the certificates that `[tls]` and remote clients need."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raftctl import cert_files as files
from raftctl.context import current
from raftctl.errors import CommandError
from raftctl.framework import RaftGroup
from raftctl.output import printable
from raftctl.quantities import Whole

if TYPE_CHECKING:
    from cryptography import x509

    from raft_agent.tls.authority import Subject

# A century: more than any machine lives, and dates that every program can read.
_DAYS = Whole(high=36_500)
# Files of the authority, which may stand in the same directory.
_OTHERS = ("ca", "crl")
_ROLES = ("reader", "writer", "admin")
_SERIAL = re.compile(r"[0-9A-Fa-f]{1,40}")


@click.group(
    cls=RaftGroup,
    examples="""
    raftctl cert ca --dir pki
    raftctl cert node node-01 192.168.105.11 --ca-dir pki --dir pki
    raftctl cert client alice --role writer --ca-dir pki --dir pki
    """,
)
def cert() -> None:
    """Make certificates.

    They are for members (kind node) and for remote clients (kind client, with a role). Everything
    happens in files on this machine; no agent is asked. docs/security.md shows how they are put
    into force, renewed and revoked.
    """


def _directory(name: str = "--dir", text: str = "Where the files are put.") -> Callable[..., Any]:
    attribute = "directory" if name == "--dir" else "ca_directory"
    return click.option(
        name, attribute, metavar="DIR", default=".", type=Path, show_default=True, help=text
    )


def _ca_directory() -> Callable[..., Any]:
    return _directory("--ca-dir", "The authority's directory, with ca.pem and ca-key.pem.")


def _days(default: int) -> Callable[..., Any]:
    text = "How long it is valid."
    return click.option("--days", type=_DAYS, default=default, show_default=True, help=text)


def _force() -> Callable[..., Any]:
    return click.option("--force", is_flag=True, help="Replace files that exist.")


def _role(**more: Any) -> Callable[..., Any]:
    return click.option("--role", type=click.Choice(_ROLES), **more)


def _subject(name: str, hosts: tuple[str, ...], role: str | None) -> Subject:
    """A client's when there is a role, else a node's. Raises TlsError."""
    from raft_agent.tls.authority import Subject  # noqa: PLC0415
    from raft_agent.tls.identity import Kind, Role  # noqa: PLC0415

    kind = Kind.NODE if role is None else Kind.CLIENT
    subject = Subject(kind, name, hosts, None if role is None else Role(role))
    subject.check()
    if "/" in name or name.startswith(".") or name in _OTHERS or name.endswith("-key"):
        raise CommandError(
            f"{name!r} can't be the name of the files of a node or a client",
            hint='Give a name without "/" that starts with no dot and does not end with -key; '
            "the authority's own files are ca, ca-key and crl",
        )
    return subject


def _report(what: str, pem: bytes, **paths: Path) -> None:
    """Shows what was made, and where it is."""
    from raft_agent.tls.authority import read_certificates  # noqa: PLC0415

    facts = files.describe(read_certificates(pem)[0])
    out = current().out
    lines = [f"{out.mark(True)} {what}, valid until {facts['not_after']}"]
    lines += [f"  {label}: {path}" for label, path in paths.items()]
    if "hosts" in facts:
        # Who asked may have asked for those of others.
        lines.append(f"  hosts: {printable(', '.join(facts['hosts']))}")
    data = {label: str(path) for label, path in paths.items()}
    out.result("\n".join(lines), data | facts)


@cert.command(action="make the authority", examples="raftctl cert ca --dir pki --name 'our raft'")
@_directory()
@click.option("--name", default="raft", show_default=True, help="Its name, for people.")
@_days(3650)
@_force()
def ca(directory: Path, name: str, days: int, force: bool) -> None:
    """A certificate authority: who has its key can be anybody in the cluster.

    Keep DIR/ca-key.pem off the members; ca.pem goes to all of them and to all clients.
    """
    from raft_agent.tls.authority import make_authority  # noqa: PLC0415

    certificate, key = directory / files.CA, directory / files.CA_KEY
    with files.in_words():
        files.refuse_existing(key, certificate, force=force)
        authority = make_authority(name, days=days)
        files.write(key, authority.private_key_pem(), private=True)
        files.write(certificate, authority.certificate_pem())
    _report(f"Authority {name}", authority.certificate_pem(), certificate=certificate, key=key)


@cert.command(
    action="make the certificate",
    examples="raftctl cert node node-01 192.168.105.11 raft1.example --ca-dir pki --dir pki",
)
@click.argument("name")
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@_ca_directory()
@_directory()
@_days(365)
@_force()
def node(
    *,
    name: str,
    hosts: tuple[str, ...],
    ca_directory: Path,
    directory: Path,
    days: int,
    force: bool,
) -> None:
    """A key and a certificate for the member NAME.

    HOST: each name and address under which clients dial it; its own name is always among them.
    """
    _issue(_subject_in_words(name, hosts, None), ca_directory, directory, days, force)


@cert.command(
    action="make the certificate",
    examples="raftctl cert client alice --role writer --ca-dir pki --dir pki",
)
@click.argument("name")
@_role(default="reader", show_default=True, help="What NAME may do.")
@_ca_directory()
@_directory()
@_days(365)
@_force()
def client(
    *, name: str, role: str, ca_directory: Path, directory: Path, days: int, force: bool
) -> None:
    """A key and a certificate for the client NAME.

    A reader reads and watches; a writer writes keys, messages, leases and locks, too; an admin
    changes members and settings, too.
    """
    _issue(_subject_in_words(name, (), role), ca_directory, directory, days, force)


def _subject_in_words(name: str, hosts: tuple[str, ...], role: str | None) -> Subject:
    with files.in_words():
        return _subject(name, hosts, role)


def _issue(subject: Subject, ca_directory: Path, directory: Path, days: int, force: bool) -> None:
    from raft_agent.tls.authority import key_pem, make_key  # noqa: PLC0415

    certificate = files.certificate_file(directory, subject.name)
    private = files.key_file(directory, subject.name)
    with files.in_words():
        authority = files.open_authority(ca_directory)
        files.refuse_existing(private, certificate, force=force)
        key = make_key()
        pem = authority.sign(subject, key.public_key(), days=days)
        files.write(private, key_pem(key), private=True)
        files.write(certificate, pem)
    what = f"Certificate of {subject.kind} {subject.name}"
    _report(what, pem, certificate=certificate, key=private)


@cert.command(
    action="make the request",
    examples="raftctl cert csr node-01 192.168.105.11 --dir /etc/raft",
)
@click.argument("name")
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@_role(help="Ask for a client's certificate, with this role, instead of a node's.")
@_directory()
@_force()
def csr(name: str, hosts: tuple[str, ...], role: str | None, directory: Path, force: bool) -> None:
    """A key and a request, on the machine that keeps the key.

    NAME.csr goes to the authority, which signs it with raftctl cert sign; the key travels nowhere.
    """
    from raft_agent.tls.authority import key_pem, make_key, make_request  # noqa: PLC0415

    with files.in_words():
        subject = _subject(name, hosts, role)
        request, private = directory / f"{name}.csr", files.key_file(directory, name)
        files.refuse_existing(private, request, force=force)
        key = make_key()
        pem = make_request(subject, key)
        files.write(private, key_pem(key), private=True)
        files.write(request, pem)
    out = current().out
    text = (
        f"{out.mark(True)} Request of {subject.kind} {name}\n  request: {request}\n  key: {private}"
    )
    out.result(text, {"request": str(request), "key": str(private), "kind": subject.kind})


@cert.command(
    action="sign the request",
    examples="raftctl cert sign node-01.csr node-01 --ca-dir pki --dir pki",
)
@click.argument("request", metavar="FILE", type=Path)
@click.argument("name")
@_role(help="Sign for a client, with this role; without it for a node.")
@_ca_directory()
@_directory()
@_days(365)
@_force()
def sign(
    *,
    request: Path,
    name: str,
    role: str | None,
    ca_directory: Path,
    directory: Path,
    days: int,
    force: bool,
) -> None:
    """Sign a request that came from NAME.

    You say for whom and in which role: a request that asks for anything else is refused. Look at
    it first: raftctl cert show FILE.
    """
    from raft_agent.tls.authority import hosts_of, read_request  # noqa: PLC0415
    from raft_agent.tls.certificate import identity_of  # noqa: PLC0415

    certificate = files.certificate_file(directory, name)
    with files.in_words():
        found = files.read(request, read_request)
        asked = identity_of(found)
        subject = _subject(name, hosts_of(found) if role is None else (), role)
        if (asked.kind, asked.name, asked.role) != (subject.kind, subject.name, subject.role):
            raise CommandError(
                f"{request} asks for {asked}, not for {_who(subject)}",
                hint="Look at it: raftctl cert show FILE; sign for whom it should be",
            )
        authority = files.open_authority(ca_directory)
        files.refuse_existing(certificate, force=force)
        pem = authority.sign(subject, found.public_key(), days=days)
        files.write(certificate, pem)
    _report(f"Certificate of {subject.kind} {name}", pem, certificate=certificate)


def _who(subject: Subject) -> str:
    from raft_agent.tls.identity import Identity  # noqa: PLC0415

    return str(Identity(subject.kind, subject.name, subject.role))


@cert.command(
    action="renew the certificate", examples="raftctl cert renew pki/node-01.pem --ca-dir pki"
)
@click.argument("certificate", metavar="FILE", type=Path)
@click.option(
    "--former-ca-dir",
    "former_directory",
    metavar="DIR",
    type=Path,
    help="The directory of the authority that signed FILE, when the one in --ca-dir takes its "
    "place; ca.pem is enough there.",
)
@_ca_directory()
@_days(365)
def renew(certificate: Path, ca_directory: Path, former_directory: Path | None, days: int) -> None:
    """The certificate in FILE with new dates, for the same key, in the same place.

    FILE must be one that the authority signed itself, or with --former-ca-dir the one that it
    replaces, and that was not revoked: whoever brings a file is not asked anything else.
    """
    from raft_agent.tls.authority import Subject, hosts_of  # noqa: PLC0415

    with files.in_words():
        authority = files.open_authority(ca_directory)
        former = files.read_renewable(certificate, former_directory or ca_directory)
        asked = files.read(certificate, files.identity_in)
        subject = Subject(asked.kind, asked.name, hosts_of(former), asked.role)
        pem = authority.sign(subject, former.public_key(), days=days)
        files.write(certificate, pem)
    _report(f"Certificate of {asked.kind} {asked.name}", pem, certificate=certificate)


@cert.command(
    action="revoke the certificate", examples="raftctl cert revoke pki/alice.pem --ca-dir pki"
)
@click.argument("certificates", metavar="[FILE]...", nargs=-1, type=Path)
@click.option("--serial", "serials", multiple=True, metavar="HEX", help="Instead of a FILE.")
@_ca_directory()
@_days(365)
def revoke(
    certificates: tuple[Path, ...], serials: tuple[str, ...], ca_directory: Path, days: int
) -> None:
    """Put certificates on the list in DIR/crl.pem.

    The list goes to all members as tls.crl; they read it when it changes. With nothing to revoke
    it is only made anew, as it asks for within its days.
    """
    from raft_agent.tls.authority import read_revocations  # noqa: PLC0415

    file = ca_directory / files.CRL
    with files.in_words():
        authority = files.open_authority(ca_directory)
        numbers = [_number(text) for text in serials]
        for certificate in certificates:
            numbers.append(_revocable(certificate, authority.has_signed).serial_number)
        former = files.read(file, lambda pem: pem) if file.exists() else b""
        pem = authority.revoke(numbers, former, days=days)
        files.write(file, pem)
    facts = files.describe_revocations(read_revocations(pem))
    out = current().out
    count = len(facts["revoked"])
    are = "certificate is" if count == 1 else "certificates are"
    text = f"{out.mark(True)} {count} {are} revoked\n  crl: {file}"
    out.result(text, {"crl": str(file)} | facts)


def _revocable(file: Path, is_ours: Callable[[x509.Certificate], bool]) -> x509.Certificate:
    from raft_agent.tls.authority import read_certificates  # noqa: PLC0415

    certificate = files.read(file, read_certificates)[0]
    if not is_ours(certificate):
        raise CommandError(
            f"{file} was not signed by this authority, so it can't take it back",
            hint="Give the authority that signed it: --dir DIR; raftctl cert show says who that is",
        )
    return certificate


def _number(text: str) -> int:
    digits = text.replace(":", "")
    # RFC 5280 §4.1.2.2: positive, of 20 bytes at most.
    if not _SERIAL.fullmatch(digits) or not 0 < int(digits, 16) < 1 << 159:
        raise CommandError(
            f"{text!r} is no serial number in hexadecimal digits",
            hint="raftctl cert show FILE says a certificate's",
        )
    return int(digits, 16)


@cert.command(action="show the file", examples="raftctl cert show pki/node-01.pem pki/crl.pem")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=Path)
def show(paths: tuple[Path, ...]) -> None:
    """What certificates, requests and lists of revoked ones say."""
    shown = []
    with files.in_words():
        for path in paths:
            shown += [{"file": str(path)} | facts for facts in files.read(path, _described)]
    text = "\n\n".join(printable_lines(files.lines_of(facts)) for facts in shown)
    current().out.result(text, {"found": shown})


def printable_lines(text: str) -> str:
    """Others wrote what stands in certificates."""
    return "\n".join(map(printable, text.splitlines()))


def _described(pem: bytes) -> list[dict[str, Any]]:
    from raft_agent.tls import authority  # noqa: PLC0415
    from raft_agent.tls.errors import TlsError  # noqa: PLC0415

    if b"PRIVATE KEY-----" in pem:
        raise TlsError("holds a private key, which is shown to nobody")
    if b"BEGIN CERTIFICATE REQUEST" in pem:
        return [files.describe_request(authority.read_request(pem))]
    if b"BEGIN X509 CRL" in pem:
        return [files.describe_revocations(authority.read_revocations(pem))]
    return [files.describe(item) for item in authority.read_certificates(pem)]
