"""The container images of this checkout, made by hand: a Debian root is the first layer, the wheel
with what it needs is the second.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.e2e.debian import once, remove, root, run
from tools import bundle

ROOT = Path(__file__).resolve().parents[4]
PAUSE = "raft.test/pause:1"
AGENT = "raft.test/raft-agent:test"
LATER_AGENT = "raft.test/raft-agent:later"
OPERATOR = "raft.test/raft-operator:test"
_PLACE = ROOT / "build" / "kube"
_PACKAGES = ("libbpf1", "python3", "python3-venv")
_SETUP = """
set -eu
rm -f "$1/etc/hostname" "$1/etc/resolv.conf"
rm -rf "$1"/var/lib/apt/lists "$1"/var/cache "$1"/usr/share/doc "$1"/usr/share/locale
mkdir "$1/wheels"
""".strip()
_INSTALL = """
set -eu
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount --bind "$3" "$2/root/wheels"
chroot "$2/root" sh -c '
    set -eu
    python3 -m venv /opt/raft
    /opt/raft/bin/pip install --quiet --disable-pip-version-check --no-index --no-deps /wheels/*.whl
    /opt/raft/bin/pip uninstall --quiet --yes pip setuptools
    ln -s /opt/raft/bin/raft* /usr/local/bin/
'
""".strip()
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def images() -> Path:
    """A directory with two files for `ctr images import`: agent.tar, which has what holds pods
    open, too, and operator.tar.
    """
    wheels = {name: _wheels(name) for name in ("runtime", "operator")}
    with tempfile.TemporaryDirectory(prefix="raft-kube-") as scratch:
        ours = bundle.build_wheel(ROOT, Path(scratch))
        digest = hashlib.sha256(ours.read_bytes() + Path(__file__).read_bytes())
        digest.update(repr(wheels).encode())
        target = _PLACE / digest.hexdigest()[:12]
        if not target.exists():
            remove(_PLACE)

        def make(into: Path) -> None:
            into.mkdir()
            base = _layer(root(_PACKAGES, _SETUP))
            installed = {
                name: _layer(_installed([ours, *files.glob("*.whl")], Path(scratch) / name))
                for name, files in wheels.items()
            }
            with _Archive(into / "agent.tar") as archive:
                for name in (AGENT, LATER_AGENT):
                    program = ["/usr/local/bin/raft-agent"]
                    archive.add(name, [base, installed["runtime"]], program)
                archive.add(PAUSE, [_layer(_pause(Path(scratch)))], ["/pause"])
            with _Archive(into / "operator.tar") as archive:
                program = ["/usr/local/bin/raft-operator"]
                archive.add(OPERATOR, [base, installed["operator"]], program)

        return once(target, make)


def _wheels(name: str) -> Path:
    """What requirements/NAME.txt locks."""
    lock = (ROOT / "requirements" / f"{name}.txt").read_text()
    machine = platform.machine()
    place = bundle.wheels_directory(ROOT / "build" / "deploy", lock, machine, "3.11")
    bundle.fetch_wheels(lock, machine, "3.11", place)
    return place


def _pause(scratch: Path) -> Path:
    """A directory with the program that sleeps."""
    place = scratch / "pause"
    place.mkdir()
    source = Path(__file__).with_name("pause.c")
    run("gcc", "-static", "-Os", "-s", "-o", place / "pause", source)
    return place


def _installed(wheels: Iterable[Path], scratch: Path) -> Path:
    """What the installed wheels add to the base."""
    for folder in ("upper", "work", "root", "wheels"):
        (scratch / folder).mkdir(parents=True)
    for wheel in wheels:
        (scratch / "wheels" / wheel.name).write_bytes(wheel.read_bytes())
    base = root(_PACKAGES, _SETUP)
    run("unshare", "--mount", "sh", "-c", _INSTALL, "sh", base, scratch, scratch / "wheels")
    return scratch / "upper"


def _layer(folder: Path) -> bytes:
    """Everything below the folder, owned by root. Devices are left to whoever runs it."""

    def owned(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if entry.isdev():
            return None
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for entry in sorted(folder.iterdir()):
            tar.add(entry, entry.name, filter=owned)
    return content.getvalue()


class _Archive:
    """An OCI image layout in a tar file."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w")  # noqa: SIM115
        self._written: set[str] = set()
        self._manifests: list[dict[str, object]] = []

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *_: object) -> None:
        index = {"schemaVersion": 2, "mediaType": _TYPE.format("index.v1"),
                 "manifests": self._manifests}  # fmt: skip
        self._put("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        self._put("index.json", json.dumps(index).encode())
        self._tar.close()

    def add(self, name: str, layers: list[bytes], entrypoint: list[str]) -> None:
        """An image NAME:TAG of these layers, the lowest first."""
        described = [self._blob(layer, "layer.v1.tar") for layer in layers]
        system = {"architecture": _MACHINES[platform.machine()], "os": "linux"}
        config = system | {
            "config": {
                "Entrypoint": entrypoint,
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [each["digest"] for each in described]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _TYPE.format("manifest.v1"),
            "config": self._blob(json.dumps(config).encode(), "config.v1"),
            "layers": described,
        }
        names = {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        }
        blob = self._blob(json.dumps(manifest).encode(), "manifest.v1")
        self._manifests.append(blob | {"annotations": names, "platform": system})

    def _blob(self, content: bytes, kind: str) -> dict[str, object]:
        """Its description; written once, however many images have it."""
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._written:
            self._written.add(digest)
            self._put(f"blobs/sha256/{digest}", content)
        media = _TYPE.format(kind) if "layer" not in kind else _TYPE[: -len("+json")].format(kind)
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    def _put(self, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))


_TYPE = "application/vnd.oci.image.{}+json"
