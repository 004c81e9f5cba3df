"""Everything that a machine needs to run this checkout, in one file, for machines without internet.

`python tools/bundle.py --machine aarch64 --python 3.11` builds the wheel, gets the wheels of every
dependency in the locked versions for that machine (once: they are kept in the output directory, so
that later runs need no network either), and prints what came of it as JSON: the name of the
release, and the path of the tar file. The same checkout gives the same release name.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
MACHINES = ("x86_64", "aarch64")
# PEP 600: wheels for these and for older C libraries run on Debian 12, which has glibc 2.36.
_GLIBC_MINORS = (17, 24, 26, 27, 28, 31, 34, 35, 36)


class BundleError(Exception):
    """What could not be built or fetched, and what to do."""


def platforms(machine: str) -> list[str]:
    """The platform tags of wheels that run on Debian 12 on that machine, as pip wants them."""
    return [f"manylinux2014_{machine}", *(f"manylinux_2_{n}_{machine}" for n in _GLIBC_MINORS)]


def _entries(lock: str) -> Iterator[str]:
    """The lock's entries: a requirement with its hashes on the lines that follow."""
    entry: list[str] = []
    for line in lock.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        entry.append(line.rstrip("\\ ").strip())
        if not line.endswith("\\"):
            yield " ".join(entry)
            entry = []


def for_linux(lock: str, machine: str, python: str) -> str:
    """The lock with those entries alone that Linux needs, without the conditions: pip judges them
    by the machine that it runs on, which may be a Mac."""
    target = {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    kept = []
    for entry in _entries(lock):
        text, hashes = entry.partition(" --hash=")[::2]
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(target):
            kept.append(f"{requirement.name}{requirement.specifier} --hash={hashes}")
    return "\n".join(kept) + "\n"


def fetch_wheels(lock: str, machine: str, python: str, into: Path) -> None:
    """The wheels of a lock for a machine, into a directory that is there only once it is complete.

    Raises BundleError when there is none for some dependency, or when the network is away.
    """
    if into.is_dir():
        return
    into.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".wheels-", dir=into.parent))
    try:
        wanted = scratch / "wanted.txt"
        wanted.write_text(for_linux(lock, machine, python))
        options = [f"--platform={tag}" for tag in platforms(machine)]
        _run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"),
                *("--implementation=cp", f"--python-version={python}", *options),
                *("--dest", str(scratch), "-r", str(wanted)),
            ],
            f"the wheels for {machine} and Python {python} could not be had: run this once where "
            "the package index can be reached",
        )
        wanted.unlink()
        scratch.chmod(0o755)
        scratch.rename(into)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def wheels_directory(out: Path, lock: str, machine: str, python: str) -> Path:
    """Where the wheels of a lock are kept."""
    digest = hashlib.sha256(lock.encode()).hexdigest()
    return out / "wheels" / f"{machine}-py{python}-{digest[:12]}"


def build_wheel(source: Path, into: Path) -> Path:
    """The checkout's own wheel. Raises BundleError."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into)]
    _run(command, f"the wheel of {source} could not be built", cwd=source)
    (wheel,) = into.glob("*.whl")
    return wheel


def bundle(source: Path, machine: str, python: str, out: Path) -> dict[str, str]:
    """{"release": name, "file": path of the tar}. Raises BundleError."""
    lock = (source / "requirements" / "runtime.txt").read_text()
    # The installer travels along: Debian's python3 has none without python3-venv.
    installer = (source / "requirements" / "installer.txt").read_text()
    digest = hashlib.sha256((lock + installer).encode()).hexdigest()
    wheels = wheels_directory(out, lock + installer, machine, python)
    fetch_wheels(lock + installer, machine, python, wheels)
    with tempfile.TemporaryDirectory(prefix="raft-bundle-") as scratch:
        wheel = build_wheel(source, Path(scratch))
        content = hashlib.sha256(wheel.read_bytes() + digest.encode()).hexdigest()
        release = f"{parse_wheel_filename(wheel.name)[1]}-{content[:8]}"
        target = out / f"raft-ebpf-{release}-{machine}-py{python}.tar"
        if not target.exists():
            _pack(target, wheel, lock, sorted(wheels.iterdir()))
    return {"release": release, "file": str(target)}


def _pack(target: Path, wheel: Path, lock: str, wheels: list[Path]) -> None:
    scratch = target.with_suffix(f".{os.getpid()}.partial")
    try:
        with tarfile.open(scratch, "w") as tar:
            for file in [wheel, *wheels]:
                tar.add(file, file.name)
            listed = wheel.with_name("runtime.txt")
            listed.write_text(lock)
            tar.add(listed, listed.name)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def _run(command: list[str], problem: str, cwd: Path | None = None) -> None:
    done = subprocess.run(  # noqa: S603
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BundleError(f"{problem}\n{(done.stderr or done.stdout).strip()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--machine", choices=MACHINES, required=True)
    parser.add_argument("--python", default="3.11", help="the machine's Python, as in 3.11")
    parser.add_argument("--source", type=Path, default=ROOT, help="another checkout to build")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "deploy")
    arguments = parser.parse_args()
    try:
        source, out = arguments.source.resolve(), arguments.out.resolve()
        print(json.dumps(bundle(source, arguments.machine, arguments.python, out)))
    except (BundleError, OSError) as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
