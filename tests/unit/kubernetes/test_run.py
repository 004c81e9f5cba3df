"""The operator starts under whatever user a container gives it."""

from __future__ import annotations

import getpass
import logging
from collections.abc import Iterator
from pathlib import Path

import kopf
import pytest

from raft_operator import main, run


@pytest.fixture
def _log_of_its_own() -> Iterator[None]:
    """What the program sets up for its process does not stay for other tests."""
    loggers = [logging.getLogger(name) for name in ("", "kopf", "aiohttp", "asyncio")]
    levels, handlers = [logger.level for logger in loggers], loggers[0].handlers[:]
    loggers[0].handlers[:] = []
    yield
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.usefixtures("_log_of_its_own")
def test_a_user_without_a_name_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main.main([]) == 1
    said = capfd.readouterr().err
    assert "there is no Kubernetes to talk to" in said
    assert "getpwuid" not in said


@pytest.mark.parametrize(
    ("host", "server"),
    [
        ("10.96.0.1", "https://10.96.0.1:6443"),
        ("fd00::1", "https://[fd00::1]:6443"),
        ("", "https://kubernetes.default.svc"),
    ],
)
def test_a_pod_reaches_the_api_server_at_the_address_that_it_is_given(
    host: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = kopf.ConnectionInfo(server="https://kubernetes.default.svc", token="t")
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: account)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    found = run.log_in()
    assert found is not None
    assert (found.server, found.token) == (server, "t")
