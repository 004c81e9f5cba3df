"""As much of this host as runs Python in a virtual machine: itself, libraries, libbpf, programs."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from raft_agent.kernel import libbpf

ROOT = Path(__file__).parents[2]
TESTING = ("pytest", "msgspec", "google-crc32c")
_PROGRAMS = ("mount", "umount")
_FILES = ("/etc/passwd", "/etc/group", "/etc/ld.so.cache")
# Of the standard library, what is large and of no use there.
_LEFT_OUT = {"__pycache__", "site-packages", "dist-packages", "test", "idlelib", "lib2to3"}
_LEFT_OUT |= {"ensurepip", "tkinter", "turtledemo", "pydoc_data"}


def python() -> Path:
    """The interpreter itself, not that of a virtual environment."""
    return Path(sys._base_executable).resolve()  # type: ignore[attr-defined]


def agent() -> tuple[str, ...]:
    """The distributions that raft-agent needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return tuple(sorted(_names(project["dependencies"])))


def search_path(checkout: str, distributions: tuple[str, ...] = TESTING) -> list[str]:
    """Where Python finds modules in the machine, with this checkout at `checkout`."""
    sites = map(str, _sites(distributions))
    return [checkout, f"{checkout}/node_agent", *dict.fromkeys(sites)]


@cache
def files(
    distributions: tuple[str, ...] = TESTING, programs: tuple[str, ...] = _PROGRAMS
) -> dict[str, bytes]:
    """All of it by path, with these distributions and all that they require, without this
    checkout."""
    run = {python(), *(Path(place) for name in programs if (place := shutil.which(name)))}
    found = {*run, *map(Path, _FILES), _libbpf()}
    found |= set(_library()) | {path for name in _named(distributions) for path in _installed(name)}
    binaries = [path for path in found if path in run or ".so" in path.suffixes]
    found |= set(_linked_with(binaries))
    made = {str(path): path.read_bytes() for path in sorted(found) if path.is_file()}
    return made | {str(path): code for path, code in compiled(found)}


def checkout(*folders: str) -> dict[str, bytes]:
    """The Python files below these folders of this checkout."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    made = {str(path.relative_to(ROOT)): path.read_bytes() for path in paths}
    return made | {str(path.relative_to(ROOT)): code for path, code in compiled(paths)}


def compiled(paths: Iterable[Path]) -> Iterator[tuple[Path, bytes]]:
    """What this host's Python has compiled of them, as code that is taken without a look at the
    source's time (PEP 552), since to compile takes an emulated processor long."""
    for path in paths:
        cached = Path(importlib.util.cache_from_source(str(path)))
        if path.suffix == ".py" and cached.is_file():
            code = cached.read_bytes()
            yield cached, code[:4] + (1).to_bytes(4, "little") + bytes(8) + code[16:]


def _library() -> Iterator[Path]:
    for place in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        for path in Path(place).rglob("*"):
            parts = path.relative_to(place).parts
            is_built = parts[0].startswith("config-")
            is_of_no_use = is_built or path.name.startswith(("_tkinter", "_test", "xx"))
            if path.suffix in (".py", ".so") and not is_of_no_use and not _LEFT_OUT & {*parts}:
                yield path


def _named(distributions: tuple[str, ...]) -> set[str]:
    """These, and all that they require here."""
    named: set[str] = set()
    waiting = list(distributions)
    while waiting:
        name = waiting.pop()
        if name not in named:
            named.add(name)
            waiting += _names(metadata.requires(name) or ())
    return named


def _names(requirements: Iterable[str]) -> Iterator[str]:
    """Of what is required without an extra, and is installed."""
    for requirement in requirements:
        required = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        if "extra ==" not in requirement and _is_installed(required):
            yield required


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _installed(name: str) -> Iterator[Path]:
    for path in metadata.files(name) or ():
        if path.suffix != ".pyc" and "bin" not in path.parts:
            yield Path(str(path.locate())).resolve()


def _sites(distributions: tuple[str, ...]) -> Iterator[Path]:
    for name in distributions:
        yield Path(str(metadata.distribution(name).locate_file(""))).resolve()


def _libbpf() -> Path:
    """Where the library lies that this process has loaded."""
    libbpf.library()
    maps = Path("/proc/self/maps").read_text()
    return Path(next(line.split()[-1] for line in maps.splitlines() if "libbpf.so" in line))


def _linked_with(binaries: Iterable[Path]) -> Iterator[Path]:
    """Shared libraries, by the paths at which the loader looks for them."""
    # It fails when one of them is linked with nothing.
    command = ["ldd", *map(str, sorted(binaries))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    for place in set(re.findall(r"(?:=> |^\t)(/\S+) \(0x", done.stdout, re.MULTILINE)):
        yield Path(place)
    # ctypes asks for it by this name, which is a link.
    yield _libbpf().with_name("libbpf.so.1")
