"""A running node follows the files of its certificates, and warns before they end."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from raft_agent.runtime import certificates
from raft_agent.runtime.certificates import Certificates
from raft_agent.tls.authority import AUTHORITY_DAYS
from raft_agent.tls.credentials import Credentials
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Identity, Kind
from raft_agent.tls.security import Security
from tests.unit.tls.papers import Office, node

TIMEOUT_S = 20.0


class Watched:
    """Certificates of node-01, and the events that they made."""

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._came = asyncio.Event()
        self.credentials = Credentials(files, Identity(Kind.NODE, "node-01"))
        security = Security(self.credentials, clear_headers=True)
        self.certificates = Certificates(self.credentials, security, self._tell)

    def _tell(self, kind: str, **facts: int | str) -> None:
        self.events.append((kind, facts))
        self._came.set()

    async def event(self, kind: str) -> dict[str, Any]:
        """The next event, which must be of this kind."""
        async with asyncio.timeout(TIMEOUT_S):
            while not self.events:
                self._came.clear()
                await self._came.wait()
        found, facts = self.events.pop(0)
        assert found == kind, facts
        return facts


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def watching(
    files: TlsFiles, check: Callable[[Watched], Awaitable[None]], every_s: float = 0.01
) -> None:
    async def main() -> None:
        watched = Watched(files)
        with mock.patch.object(certificates, "LOOK_EVERY_S", every_s):
            watched.certificates.start()
            try:
                await check(watched)
            finally:
                watched.certificates.stop()

    asyncio.run(main())


def test_changed_files_are_read(office: Office) -> None:
    async def check(watched: Watched) -> None:
        before = watched.credentials.loaded
        office.issue(node("node-01"))
        assert "UTC" in (await watched.event("certificates_read"))["ends"]
        assert watched.credentials.loaded is not before

    watching(office.issue(node("node-01")), check)


def test_files_that_can_not_be_used_are_told_and_change_nothing(office: Office) -> None:
    async def check(watched: Watched) -> None:
        before = watched.credentials.loaded
        Path(watched.files.cert).write_text("junk")
        refused = await watched.event("certificates_refused")
        assert refused["reason"].startswith(watched.files.cert)
        assert watched.credentials.loaded is before
        office.issue(node("node-01"))
        await watched.event("certificates_read")

    watching(office.issue(node("node-01")), check)


def test_a_reload_reads_them_at_once_and_again(office: Office) -> None:
    async def check(watched: Watched) -> None:
        for _ in range(2):
            watched.certificates.reload()
            await watched.event("certificates_read")

    watching(office.issue(node("node-01")), check, every_s=1000)


def test_standing_connections_are_looked_at_when_the_list_changes(office: Office) -> None:
    async def check(watched: Watched) -> None:
        with mock.patch.object(watched.certificates.security, "check_again") as looked:
            office.crl.write_bytes(office.authority.revoke([77]))
            await watched.event("certificates_read")
        looked.assert_called_once_with()

    office.crl.write_bytes(office.authority.revoke([]))
    watching(office.issue(node("node-01"), crl=True), check)


def ends_in(files: TlsFiles, **ends: datetime.datetime | None) -> list[str]:
    """What is told at the start when the files end so."""
    kinds: list[str] = []

    async def main() -> None:
        import msgspec  # noqa: PLC0415

        watched = Watched(files)
        watched.credentials.loaded = msgspec.structs.replace(watched.credentials.loaded, **ends)
        watched.certificates.start()
        watched.certificates.stop()
        kinds.extend(kind for kind, _ in watched.events)

    asyncio.run(main())
    return kinds


def test_a_warning_comes_thirty_days_before_the_end(office: Office) -> None:
    files = office.issue(node("node-01"))
    now = datetime.datetime.now(datetime.UTC)
    days = datetime.timedelta(days=1)
    assert ends_in(files) == []
    assert ends_in(files, not_after=now + 31 * days) == []
    assert ends_in(files, not_after=now + 29 * days) == ["certificate_ends"]
    assert ends_in(files, authorities_end=now + 29 * days) == ["authority_ends"]
    assert ends_in(files, crl_due=now + days) == []
    assert ends_in(files, crl_due=now - days) == ["crl_is_old"]
    assert AUTHORITY_DAYS > 31


def test_the_warning_is_not_repeated_all_day(office: Office) -> None:
    async def check(watched: Watched) -> None:
        await watched.event("certificate_ends")
        watched.certificates.reload()
        await watched.event("certificates_read")
        # Read anew: said once more, because it still ends soon; then not again.
        await watched.event("certificate_ends")
        await asyncio.sleep(0)
        assert watched.events == []

    files = office.issue(node("node-01"))
    Path(files.cert).write_bytes(office.authority.sign(node("node-01"), public_key(files), days=10))
    watching(files, check)


def public_key(files: TlsFiles) -> Any:
    from raft_agent.tls.authority import read_certificates  # noqa: PLC0415

    return read_certificates(Path(files.cert).read_bytes())[0].public_key()
