"""What travels to machines without internet: the right entries of the lock, for their platform."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tools import bundle

ROOT = Path(__file__).resolve().parents[2]
LOCK = """\
# Written by hand
alpha==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via raft-ebpf
beta==2.0 ; sys_platform == "linux" \\
    --hash=sha256:cc
gamma==3.0 ; sys_platform == "darwin" \\
    --hash=sha256:dd
delta==4.0 ; platform_machine == "aarch64" and python_version < "3.12" \\
    --hash=sha256:ee

# pip-compile has remarks
"""


@pytest.mark.parametrize(
    ("machine", "python", "names"),
    [
        ("x86_64", "3.11", ["alpha", "beta"]),
        ("aarch64", "3.11", ["alpha", "beta", "delta"]),
        ("aarch64", "3.13", ["alpha", "beta"]),
    ],
)
def test_the_lock_is_read_for_the_machine_and_not_for_the_one_that_builds(
    machine: str, python: str, names: list[str]
) -> None:
    lines = bundle.for_linux(LOCK, machine, python).splitlines()
    assert [line.split("==")[0] for line in lines] == names
    assert lines[0] == "alpha==1.0 --hash=sha256:aa --hash=sha256:bb"
    assert all(";" not in line for line in lines)


def test_nothing_of_the_real_lock_is_lost() -> None:
    lock = (ROOT / "requirements" / "runtime.txt").read_text()
    kept = bundle.for_linux(lock, "aarch64", "3.11").splitlines()
    assert len(kept) == lock.count("\n", 0) - sum(
        line.startswith((" ", "#")) for line in lock.splitlines()
    )


def test_wheels_of_newer_systems_than_debian_12_are_not_asked_for() -> None:
    tags = bundle.platforms("aarch64")
    assert "manylinux2014_aarch64" in tags
    assert "manylinux_2_36_aarch64" in tags
    assert "manylinux_2_39_aarch64" not in tags


def test_the_same_checkout_gives_the_same_release_and_another_lock_another(tmp_path: Path) -> None:
    """Without network: the wheels of the dependencies are there already."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "node_agent", "cli", "requirements"):
        (source / name).symlink_to(ROOT / name)
    first = _bundle(source, tmp_path / "out")
    assert _bundle(source, tmp_path / "out") == first
    with tarfile.open(first["file"]) as tar:
        names = tar.getnames()
    assert "runtime.txt" in names
    assert any(name.startswith("raft_ebpf-") for name in names)
    (source / "requirements").unlink()
    (source / "requirements").mkdir()
    for name in ("runtime.txt", "installer.txt"):
        text = (ROOT / "requirements" / name).read_text()
        (source / "requirements" / name).write_text(text + "# another\n")
    assert _bundle(source, tmp_path / "out")["release"] != first["release"]


def _bundle(source: Path, out: Path) -> dict[str, str]:
    lock = "".join(
        (source / "requirements" / f"{name}.txt").read_text() for name in ("runtime", "installer")
    )
    wheels = bundle.wheels_directory(out, lock, "x86_64", "3.11")
    wheels.mkdir(parents=True, exist_ok=True)
    return bundle.bundle(source, "x86_64", "3.11", out)


@pytest.mark.long
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_dependency_has_a_wheel_for_the_boards(tmp_path: Path, python: str) -> None:
    """Boards have no compiler and little memory. Asks the package index."""
    lock = "".join(
        (ROOT / "requirements" / f"{name}.txt").read_text() for name in ("runtime", "installer")
    )
    bundle.fetch_wheels(lock, "aarch64", python, tmp_path / "wheels")
    found = {file.name.split("-")[0].lower() for file in (tmp_path / "wheels").iterdir()}
    assert len(found) == len(bundle.for_linux(lock, "aarch64", python).splitlines())
