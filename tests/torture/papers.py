"""The certificates of a run's nodes and clients, and how they are replaced."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from raft_agent.tls import authority as making
from raft_agent.tls.authority import Authority, Subject, make_authority, read_certificates
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Role
from tests.e2e.certified import replace
from tests.unit.tls.papers import Office, client, node

# Clocks on the wall go back by hours, and no certificate is valid before it was made.
_EARLIER = datetime.timedelta(days=1)
# Agents look at their files that often; each step of a change of authorities takes longer.
STEP_S = 2.5


@contextmanager
def _a_day_ago() -> Iterator[None]:
    """When certificates are made here."""
    when = datetime.datetime.now(datetime.UTC).replace(microsecond=0) - _EARLIER
    with mock.patch.object(making, "_now", return_value=when):
        yield


class Papers:
    """Everybody has files of their own, as on machines of their own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        with _a_day_ago():
            self._office = Office(directory)
        self._authority = self._office.authority
        self._count = 0
        self._files: dict[str, tuple[Subject, TlsFiles]] = {}

    def of_node(self, name: str, *hosts: str) -> TlsFiles:
        return self._issue(node(name, *hosts))

    def of_clients(self) -> TlsFiles:
        return self._issue(client("clients", Role.WRITER))

    def _issue(self, subject: Subject) -> TlsFiles:
        with _a_day_ago():
            files = self._office.issue(subject)
        ca = self._office.directory / f"{subject.name}-ca.pem"
        ca.write_bytes(Path(files.ca).read_bytes())
        self._files[subject.name] = (subject, TlsFiles(str(ca), files.cert, files.key))
        return self._files[subject.name][1]

    def rotate(self, *, new_authority: bool) -> str:
        """Give everybody a new certificate; a new authority comes in and the old one goes, step by
        step as operators do it."""
        if not new_authority:
            self._certify(self._authority)
            return "new certificates"
        self._count += 1
        with _a_day_ago():
            old, self._authority = self._authority, make_authority(f"authority-{self._count}")
        self._trust(old, self._authority)
        time.sleep(STEP_S)
        self._certify(self._authority)
        time.sleep(STEP_S)
        self._trust(self._authority)
        return "new certificates of a new authority"

    def _trust(self, *authorities: Authority) -> None:
        pem = b"".join(item.certificate_pem() for item in authorities)
        for _, files in self._files.values():
            replace(files.ca, pem)

    def _certify(self, authority: Authority) -> None:
        for subject, files in self._files.values():
            former = read_certificates(Path(files.cert).read_bytes())[0]
            with _a_day_ago():
                pem = authority.sign(subject, former.public_key())  # type: ignore[arg-type]
            replace(files.cert, pem)
