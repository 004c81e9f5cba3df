"""The operator starts under whatever user a container gives it."""

from __future__ import annotations

import getpass
import logging
from pathlib import Path

import pytest

from raft_operator import main


def test_a_user_without_a_name_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main.main([]) == 1
    said = capfd.readouterr().err
    assert "there is no Kubernetes to talk to" in said
    assert "getpwuid" not in said
