"""The Containerfile makes images of both programs that start as Kubernetes starts them.

Built with buildah from a root that mmdebstrap makes, in place of the registry's Debian image.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import raft_agent
from tests.e2e.debian import run

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = "docker.io/library/debian:bookworm-slim"
# How this machine reaches Debian's packages and PyPI; an ordinary one needs nothing of it.
SETTINGS = ("/etc/apt", "/etc/pip.conf")
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
PROGRAMS = ("buildah", "mmdebstrap")


class Store:
    """Images and containers below one directory, which is gone in the end."""

    def __init__(self, place: Path) -> None:
        self._options = [
            *("--root", str(place / "root"), "--runroot", str(place / "run")),
            *("--storage-driver", "overlay"),
        ]

    def run(self, *arguments: str) -> str:
        """The output of a buildah command. AssertionError with what it says when it fails."""
        done = subprocess.run(
            ["buildah", *self._options, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout.strip()

    def mount(self, image: str) -> Path:
        """A container's root, made from the image."""
        return Path(self.run("mount", self.run("from", "--pull-never", image)))

    def build(self, target: str) -> Path:
        """The root of a container of that image."""
        options = [f"--volume={path}:{path}:ro" for path in SETTINGS if Path(path).exists()]
        if AUTHORITIES.exists():
            options += [f"--volume={AUTHORITIES}:/run/ca.pem:ro", "--env=PIP_CERT=/run/ca.pem"]
        self.run(
            *("build", "--isolation=chroot", "--network=host", "--pull-never", "--layers"),
            *options,
            *("--target", target, "--tag", target, "."),
        )
        return self.mount(target)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"building images takes root and {', '.join(PROGRAMS)} (tools/setup.sh images)")
    place = tmp_path_factory.mktemp("images")
    made = Store(place)
    try:
        _bring_debian(made, place / "debian.tar")
        yield made
    finally:
        made.run("rm", "--all")
        made.run("rmi", "--all", "--force")


def _bring_debian(store: Store, base: Path) -> None:
    """As if it had been pulled."""
    run("mmdebstrap", "--quiet", "--variant=minbase", "bookworm", base)
    container = store.run("from", "scratch")
    store.run("add", container, str(base), "/")
    store.run("commit", "--rm", container, DEBIAN)
    base.unlink()


def start(root: Path, *command: str, user: int = 65532) -> subprocess.CompletedProcess[str]:
    """Runs a program of the image as a user with no rights, on that root."""
    return subprocess.run(
        ["/usr/sbin/chroot", f"--userspec={user}:{user}", str(root), *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
    )


@pytest.mark.parametrize(("target", "programs"), [
    ("agent", ["raft-agent", "raftctl"]),
    ("operator", ["raft-operator"]),
])  # fmt: skip
def test_an_image_runs_its_programs_as_nobody(
    store: Store, target: str, programs: list[str]
) -> None:
    root = store.build(target)
    for program in programs:
        done = start(root, program, "--version")
        assert (done.returncode, done.stderr) == (0, "")
        assert raft_agent.__version__ in done.stdout
    config = json.loads(store.run("inspect", "--type=image", target))["OCIv1"]["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == programs[:1]
    # What was needed to build is not in it, nor what nobody runs.
    for absent in ("checkout", "tools", "wheel", "opt/raft/bin/pip"):
        assert not (root / absent).exists(), absent


def test_the_agents_image_loads_the_kernels_program_and_has_what_probes_run(store: Store) -> None:
    root = store.build("agent")
    load = "from raft_agent.kernel import libbpf; import ctypes; ctypes.CDLL('libbpf.so.1')"
    done = start(root, "/opt/raft/bin/python", "-c", load)
    assert (done.returncode, done.stderr) == (0, "")
    # The operator has a leader hand over by the shell before its pod ends.
    assert start(root, "/bin/sh", "-c", "command -v raftctl").stdout == "/usr/local/bin/raftctl\n"


def test_the_operators_image_runs_what_helm_test_runs(store: Store) -> None:
    root = store.build("operator")
    script = (ROOT / "charts" / "raft" / "files" / "helm_test.py").read_text()
    done = start(root, "python3", "-c", script)
    # Outside of a pod there is no API server to ask.
    assert "KeyError" in done.stderr
    assert done.returncode == 1
