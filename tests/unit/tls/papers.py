"""Certificates for tests: an authority in a directory, and what it signs."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any
from unittest import mock

from raft_agent.tls import authority as making
from raft_agent.tls.authority import Authority, Subject, make_authority, make_key
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Kind, Role


def node(name: str, *hosts: str) -> Subject:
    return Subject(Kind.NODE, name, hosts)


def client(name: str, role: Role | None) -> Subject:
    return Subject(Kind.CLIENT, name, (), role)


class Office:
    """An authority, and a directory in which everything that it makes is stored."""

    def __init__(self, directory: Path, name: str = "test") -> None:
        self.directory = directory
        self.authority: Authority = make_authority(name)
        self.ca = directory / f"{name}-ca.pem"
        self.ca.write_bytes(self.authority.certificate_pem())
        self.crl = directory / f"{name}-crl.pem"

    def sign(self, subject: Subject, **more: Any) -> bytes:
        """A certificate alone, for a key that nobody has."""
        return self.authority.sign(subject, make_key().public_key(), **more)

    def issue(self, subject: Subject, *, crl: bool = False, at_days: int = 0) -> TlsFiles:
        """Certificate and key in files. `at_days`: made so many days from now (before: negative),
        valid for one day."""
        key = make_key()
        when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=at_days)
        if at_days:
            with mock.patch.object(making, "_now", return_value=when.replace(microsecond=0)):
                pem = self.authority.sign(subject, key.public_key(), days=1)
        else:
            pem = self.authority.sign(subject, key.public_key())
        cert = self.directory / f"{subject.name}.pem"
        cert.write_bytes(pem)
        private = self.directory / f"{subject.name}-key.pem"
        private.touch(0o600)
        private.write_bytes(making.key_pem(key))
        return TlsFiles(str(self.ca), str(cert), str(private), str(self.crl) if crl else "")
