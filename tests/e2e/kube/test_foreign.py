"""These tests run on the Kubernetes that KUBECONFIG names, and leave its nodes alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.kube.lab.hosts import system
from tests.e2e.kube.lab.lab import Lab
from tests.e2e.kube.place import ROOT, Operator, Place

pytestmark = pytest.mark.long

FILES = ("test_life.py::test_three_members", "test_faults.py::test_a_kubelet_that_dies")


def test_with_kubeconfig_set_nothing_of_the_tests_own_is_started(
    place: Place, lab: Lab, operator: Operator, tmp_path: Path
) -> None:
    """Seen from there this lab is somebody else's."""
    operator.kill()  # that one has an operator of its own
    authority, kubeconfig, programs = (tmp_path / name for name in ("ca.crt", "config", "bin"))
    authority.write_text(lab.control.authority())
    kubeconfig.write_text(lab.control.kubeconfig("admin", str(authority)))
    programs.mkdir()
    (programs / "kubectl").symlink_to(system() / "usr/bin/kubectl")
    files, names = zip(*(each.split("::") for each in FILES), strict=True)
    done = subprocess.run(
        [
            *(*place.entering(), sys.executable, "-m", "pytest", "-q", "-rs", "-m", "long"),
            *("-k", " or ".join(names), *(f"tests/e2e/kube/{file}" for file in files)),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "PATH": f"{programs}:{os.environ['PATH']}",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 1 skipped" in done.stdout
    assert "the nodes of a Kubernetes that others use are not broken" in done.stdout
