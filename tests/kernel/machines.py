"""Debian's kernels, booted under qemu with one program in their initramfs (guest.c).

Kernels and libraries come from the archive that this host's apt uses, other releases too, through
apt with directories of its own, into build/kernels; nothing of it is installed.
"""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from raft_agent.kernel import OBJECT_PATH
from tests.kernel import userland
from tests.kernel.harness import run

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "kernels"
GUEST = Path(__file__).with_name("guest.c")
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_BOOT_SECONDS = 240
_PYTEST_SECONDS = 600


@dataclass(frozen=True)
class Machine:
    """A Debian release on an architecture."""

    suite: str
    architecture: str
    kernel: str  # what its version begins with

    @property
    def name(self) -> str:
        return f"{self.kernel} {self.architecture}"

    @property
    def directory(self) -> Path:
        return CACHE / f"{self.suite}-{self.architecture}"


MACHINES = (
    Machine("bullseye", "amd64", "5.10"),
    Machine("bookworm", "amd64", "6.1"),
    Machine("trixie", "amd64", "6.12"),
    Machine("bookworm", "arm64", "6.1"),
)

_QEMU = {
    "amd64": ("qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max"),
    "arm64": ("qemu-system-aarch64", "-machine", "virt", "-cpu", "max,pauth-impdef=on"),
}
_CONSOLE = {"amd64": "ttyS0", "arm64": "ttyAMA0"}
# An emulated processor that has to wait misses the ticks by which the kernel tries its timer, and
# then the kernel panics.
_WORDS = {"amd64": ("quiet", "panic=-1", "no_timer_check"), "arm64": ("quiet", "panic=-1")}
_COMPILER = {"amd64": "gcc", "arm64": "aarch64-linux-gnu-gcc"}


def missing(machine: Machine) -> str | None:
    """What keeps the machine from being built here, None when nothing does."""
    programs = ("apt-get", "dpkg-deb", _QEMU[machine.architecture][0])
    for program in (*programs, _COMPILER[machine.architecture]):
        if shutil.which(program) is None:
            return f"needs {program}: run tools/setup.sh kernels as root"
    if not _KEYS.exists():
        return "needs Debian's archive keys: apt-get install debian-archive-keyring"
    if "" not in _archives():
        return "needs lists of a Debian archive: run apt-get update as root"
    return None


@cache
def _archives() -> dict[str, str]:
    """Where this host's apt gets Debian from, by what follows a release's name there: "" and, when
    the host has it, "-security"."""
    which = ("Created-By: Packages", "Origin: Debian")
    shown = run("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", *which)
    found: dict[str, str] = {}
    for line in shown.splitlines():
        codename, _, uri = line.partition(" ")
        _, dash, pocket = codename.partition("-")
        if dash + pocket in ("", "-security"):
            found.setdefault(dash + pocket, uri)
    return found


def _apt(machine: Machine, program: str, *arguments: str) -> str:
    """apt over the machine's release and architecture, whatever this host runs."""
    state = machine.directory / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    sources = state / "sources.list"
    sources.write_text(
        "".join(
            f"deb [signed-by={_KEYS}] {uri} {machine.suite}{pocket} main\n"
            for pocket, uri in _archives().items()
        )
    )
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": state / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": state / "cache",
        "APT::Architecture": machine.architecture,
        "APT::Architectures": machine.architecture,
        "APT::Sandbox::User": "",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    done = subprocess.run(
        [program, *words, "-qq", *arguments],
        cwd=state,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{program} {arguments}: {done.stderr}"
    return done.stdout


def _fetch(machine: Machine, package: str) -> None:
    """Unpacks a package into the machine's root."""
    _apt(machine, "apt-get", "download", package)
    for archive in (machine.directory / "apt").glob("*.deb"):
        run("dpkg-deb", "-x", archive, machine.directory / "root")
        archive.unlink()


def prepare(machine: Machine) -> Path:
    """The root with the kernel, its modules and libraries; from the archive the first time."""
    root = machine.directory / "root"
    if not any(root.glob("boot/vmlinuz-*")):
        _apt(machine, "apt-get", "update")
        shown = _apt(machine, "apt-cache", "show", "--no-all-versions", _image(machine))
        (depends,) = (line for line in shown.splitlines() if line.startswith("Depends:"))
        _fetch(machine, depends.split()[1])
        if machine.architecture != "amd64":
            for package in ("libbpf-dev", "libelf-dev", "zlib1g-dev"):
                _fetch(machine, package)
    return root


def _image(machine: Machine) -> str:
    return f"linux-image-cloud-{machine.architecture}"


def release(machine: Machine) -> str:
    """The exact version of the kernel that was fetched."""
    (kernel,) = (machine.directory / "root").glob("boot/vmlinuz-*")
    return kernel.name.removeprefix("vmlinuz-")


def _compile(machine: Machine, root: Path) -> Path:
    binary = machine.directory / "init"
    places = (
        []
        if machine.architecture == "amd64"
        else [f"-I{root}/usr/include", f"-L{root}/usr/lib/aarch64-linux-gnu"]
    )
    run(
        *(_COMPILER[machine.architecture], "-static", "-O2", "-Wall", "-Wextra", "-Werror"),
        *("-o", binary, GUEST, *places, "-lbpf", "-lelf", "-lz"),
    )
    return binary


def modules(machine: Machine, *names: str) -> dict[str, bytes]:
    """These modules of the machine's kernel and what they depend on, unpacked, by name and in the
    order in which they can be loaded; what is built in is left out."""
    root = machine.directory / "root"
    places = {
        path.name.partition(".")[0].replace("-", "_"): path
        for path in root.rglob("kernel/**/*.ko*")
    }
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name not in found and name in places:
            data = places[name].read_bytes()
            unpacked = lzma.decompress(data) if places[name].suffix == ".xz" else data
            # The section .modinfo; the kernel's names of modules have no dashes.
            needed = re.search(rb"\0depends=([^\0]*)\0", unpacked)
            for other in needed[1].decode().split(",") if needed and needed[1] else ():
                add(other.replace("-", "_"))
            found[name] = unpacked

    for name in names:
        add(name)
    return found


def archive(files: dict[str, bytes]) -> bytes:
    """An initramfs in the newc format of Documentation/driver-api/early-userspace."""
    made = bytearray()

    def add(name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        made.extend(b"070701" + b"".join(b"%08X" % field for field in fields))
        for part in (name.encode() + b"\0", data):
            made.extend(part)
            made.extend(bytes(-len(made) % 4))

    above = {parent for name in files for parent in PurePosixPath(name).parents}
    for folder in sorted({"dev", "proc", "sys", "tmp", *map(str, above - {PurePosixPath(".")})}):
        add(folder, 0o40755, b"")
    add("dev/console", 0o20600, b"", (5, 1))
    for name, data in files.items():
        add(name, 0o100755, data)
    add("TRAILER!!!", 0, b"")
    return bytes(made)


def boot(machine: Machine, cases: bytes, stream: bytes) -> list[str]:
    """What guest.c printed on this machine."""
    root = prepare(machine)
    files = {
        "init": _compile(machine, root).read_bytes(),
        "raft_tc.bpf.o": OBJECT_PATH.read_bytes(),
        "cases": cases,
        "stream": stream,
    }
    for name, module in modules(machine, "sch_ingress", "cls_bpf").items():
        files[f"{name}.ko"] = module
    return start(machine, files)


def boot_pytest(machine: Machine, tests: Sequence[str], given: dict[str, bytes]) -> list[str]:
    """What guest_pytest.py printed of these tests on this machine, which has this host's Python,
    this checkout, and `given` by path."""
    prepare(machine)
    files = {path.removeprefix("/"): data for path, data in userland.files().items()}
    here = userland.checkout("node_agent/raft_agent", "tests/kernel", "tests/unit/machine")
    files |= {f"checkout/{path}": data for path, data in here.items()} | given
    return start(
        machine,
        files,
        f"rdinit={userland.python()}",
        f"PYTHONPATH={':'.join(userland.search_path('/checkout'))}",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1",
        *("--", "-S", "/checkout/tests/kernel/guest_pytest.py"),
        *(f"/checkout/{test}" for test in tests),
        seconds=_PYTEST_SECONDS,
    )


def command(machine: Machine, initramfs: Path, words: Sequence[str], *options: str) -> list[str]:
    """What runs the machine, with `words` on its kernel's command line and what is attached to it
    by `options`. It prints on its standard output, and ends when it is switched off."""
    (kernel,) = (machine.directory / "root").glob("boot/vmlinuz-*")
    said = [f"console={_CONSOLE[machine.architecture]}", *_WORDS[machine.architecture], *words]
    return [
        *_QEMU[machine.architecture],
        *("-nographic", "-no-reboot", "-kernel", str(kernel), "-initrd", str(initramfs)),
        *("-append", " ".join(said), *options),
    ]


def start(
    machine: Machine, files: dict[str, bytes], *words: str, seconds: float = _BOOT_SECONDS
) -> list[str]:
    """What the machine's first process, /init or what `words` on the kernel's command line say,
    printed until the machine went off; its last word must be "done"."""
    initramfs = machine.directory / "initramfs"
    initramfs.write_bytes(archive(files))
    done = subprocess.run(
        command(machine, initramfs, words, "-m", "1024", "-smp", "2", "-nic", "none"),
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
    )
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "done" in lines, done.stdout[-5000:] + done.stderr
    return lines
