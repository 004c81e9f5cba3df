"""The certificates of one cluster: kept in its Secrets, and the operator's own in files."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from raft_agent.tls.errors import TlsError
from raft_agent.tls.files import TlsFiles
from raft_operator import certificates, resources
from raft_operator.certificates import CERTIFICATE
from raft_operator.kube import SECRETS, Kube, Object
from raft_operator.names import ClusterKey
from raft_operator.resources import Owner
from raft_operator.spec import Spec

Clock = Callable[[], datetime.datetime]


class CredentialsError(Exception):
    """There is no authority, or it can't be used."""


class Credentials(Protocol):
    """What the engine knows of certificates."""

    async def look(self, owner: Owner, spec: Spec, members: Mapping[str, tuple[str, ...]]) -> bool:
        """Whether anything is due, for members that are dialled under these names. Raises
        CredentialsError, KubeError."""

    async def write(self) -> None:
        """Do what was due. Raises KubeError."""

    def files(self) -> TlsFiles | None:
        """The operator's own, to talk to the members; None while there is no authority."""

    def close(self) -> None: ...


class SecretCredentials:
    """Credentials in the Secrets of the cluster."""

    def __init__(self, kube: Kube, clock: Clock) -> None:
        self._kube = kube
        self._clock = clock
        self._due: list[tuple[Object, Object | None]] = []
        self._own: _OwnFiles | None = None

    def close(self) -> None:
        if self._own is not None:
            self._own.remove()
            self._own = None

    async def look(self, owner: Owner, spec: Spec, members: Mapping[str, tuple[str, ...]]) -> bool:
        key, now = owner.key, self._clock()
        authority_secret = await self._kube.get(SECRETS, key.namespace, key.authority_secret)
        nodes_secret = await self._kube.get(SECRETS, key.namespace, key.nodes_secret)
        given = await self._given(key, spec)
        stored, found = resources.secret_data(authority_secret), resources.secret_data(nodes_secret)
        try:
            authority = certificates.next_authority(stored, given, f"raft {key}"[:64], now)
            days = spec.tls.certificate_days
            wanted = certificates.next_certificates(found, authority, members, days, now)
            if CERTIFICATE in stored:
                self._refresh_own(stored, now)
        except TlsError as error:
            raise CredentialsError(f"the certificates can't be made: {error}") from error
        self._due = []
        if stored != authority:
            after = resources.secret(owner, key.authority_secret, authority)
            self._due.append((after, authority_secret))
        if found != wanted:
            self._due.append((resources.secret(owner, key.nodes_secret, wanted), nodes_secret))
        return bool(self._due)

    async def write(self) -> None:
        due, self._due = self._due, []
        # The authority first: what it has signed is worth nothing before it is kept.
        for wanted, found in due:
            await self._kube.put(wanted, found)

    def files(self) -> TlsFiles | None:
        return None if self._own is None else self._own.files

    async def _given(self, key: ClusterKey, spec: Spec) -> dict[str, bytes] | None:
        name = spec.tls.authority_secret
        if not name:
            return None
        found = await self._kube.get(SECRETS, key.namespace, name)
        if found is None:
            raise CredentialsError(
                f"tls.authoritySecret: there is no Secret {name} in the namespace {key.namespace}: "
                f"make it (kubectl create secret tls {name} --cert CA.pem --key CA-KEY.pem), or "
                "leave the field out, and the operator makes an authority"
            )
        return resources.secret_data(found)

    def _refresh_own(self, authority: Mapping[str, bytes], now: datetime.datetime) -> None:
        if self._own is None:
            self._own = _OwnFiles()
        self._own.refresh(authority, now)


class _OwnFiles:
    """A directory that nobody else can look into."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="raft-operator-"))
        paths = (str(self._directory / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        self.files = TlsFiles(*paths)
        self._certificate = b""
        self._trusted = b""
        self._signed_by = b""

    def remove(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def refresh(self, authority: Mapping[str, bytes], now: datetime.datetime) -> None:
        """Raises TlsError."""
        trusted = certificates.trusted(authority)
        if trusted != self._trusted:
            _put(self.files.ca, trusted)
            self._trusted = trusted
        is_current = self._signed_by == authority[CERTIFICATE]
        if not is_current or not certificates.is_fresh(self._certificate, now):
            certificate, key = certificates.admin_certificate(authority, now)
            _put(self.files.key, key)
            _put(self.files.cert, certificate)
            self._certificate, self._signed_by = certificate, authority[CERTIFICATE]


def _put(path: str, data: bytes) -> None:
    """In one step, readable by the owner alone."""
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        Path(temporary).unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    Path(temporary).replace(path)
