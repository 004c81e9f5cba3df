"""Kubernetes 1.20.2, built from Debian 12's source package with Debian's Go.

It takes about five minutes of two cores, 1.7 GB of memory and 3 GB of disk, once; four programs
are kept in the cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.debian import cache, once, remove, run

VERSION = "1.20.2"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
_PACKAGES = ("golang-1.19-go", "golang-1.19-src", "golang-github-modern-go-reflect2-dev")
# Fetching the source takes the system's own sources of packages, with source packages as well.
_FETCH = r"""
set -eu
sed 's/^deb /deb-src /' "$1/etc/apt/sources.list" > "$1/etc/apt/sources.list.d/source.list"
chroot "$1" apt-get update -qq
mkdir -p "$1/src/kubernetes"
chroot "$1" sh -c 'cd /src && apt-get source -qq --download-only kubernetes'
tar xzf "$1"/src/kubernetes_*.orig.tar.gz -C "$1/src/kubernetes" --strip-components=1
""".strip()
_GO = "/go/src/k8s.io/kubernetes"
_OR_ZERO = " || reflect.DeepEqual(reflect.Zero(reflect.TypeOf(data)), reflect.ValueOf(data))"
_GENERATED = "vendor/k8s.io/kube-openapi/cmd/openapi-gen"


def programs() -> Path:
    """The directory with the four programs. AssertionError with what failed."""
    return once(_place(), _build)


def is_built() -> bool:
    """Whether `programs` returns at once."""
    return _place().exists()


def _place() -> Path:
    """This file is the recipe: another one makes other programs."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    return cache() / "kubernetes" / f"{VERSION}-{digest}"


def _build(into: Path) -> None:
    workshop = into.with_name(f"{into.name}.workshop")
    remove(workshop)
    try:
        run("mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(_PACKAGES)}",
            f"--customize-hook={_FETCH}", "bookworm", str(workshop))  # fmt: skip
        _prepare(workshop)
        for program in PROGRAMS:
            _go(workshop, "build", "-ldflags", _version_flags(), "-o", f"/out/{program}",
                f"./cmd/{program}")  # fmt: skip
        (workshop / "out" / "openapi-gen").unlink()
        (workshop / "out").rename(into)
    finally:
        remove(workshop)


def _prepare(workshop: Path) -> None:
    """The source where Go looks for it, and what the package's tarball lacks."""
    source = workshop / _GO.lstrip("/")
    source.parent.mkdir(parents=True)
    (workshop / "src" / "kubernetes").rename(source)
    (workshop / "out").mkdir()
    # Built with Go 1.18 or later, the vendored reflect2 1.0.1 crashes the API server at the first
    # custom resource. Debian's 1.0.2 does not.
    vendored = source / "vendor/github.com/modern-go/reflect2"
    remove(vendored)
    packaged = workshop / "usr/share/gocode/src/github.com/modern-go/reflect2"
    run("cp", "-rL", packaged, vendored)
    # Two reflect.Values of an empty string were never deeply equal with the Go of its time. With a
    # later one they are, and every empty string in a custom resource would be refused as a null.
    validator = source / "vendor/k8s.io/kube-openapi/pkg/validation/validate/type.go"
    text = validator.read_text()
    assert text.count(_OR_ZERO) == 1
    validator.write_text(text.replace(_OR_ZERO, ""))
    _go(workshop, "build", "-o", "/out/openapi-gen", f"./{_GENERATED}")
    run(
        *("chroot", workshop, "env", *_environment(), "/bin/sh", "-c", f'cd {_GO} && exec "$@"'),
        *("sh", "/out/openapi-gen", "--logtostderr", "-i", ",".join(_described(source))),
        *("-p", "k8s.io/kubernetes/pkg/generated/openapi", "-O", "zz_generated.openapi"),
        *("-h", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt", "-r", "/out/violations"),
    )
    (workshop / "out" / "violations").unlink()


def _described(source: Path) -> Iterator[str]:
    """The packages whose types the API server describes: a comment in them says so."""
    found = set()
    for tree in ("pkg", "cmd", "plugin", "staging/src/k8s.io"):
        for file in (source / tree).rglob("*.go"):
            if file.name.endswith("_test.go") or file.name.startswith("zz_generated"):
                continue
            if "+k8s:openapi-gen=" in file.read_text():
                found.add(str(file.parent.relative_to(source)))
    for folder in sorted(found):
        if "code-generator/" in folder or "sample-apiserver/" in folder:
            continue
        if folder.startswith("staging/src/"):
            yield "k8s.io/kubernetes/vendor/" + folder.removeprefix("staging/src/")
        else:
            yield f"k8s.io/kubernetes/{folder}"


def _environment() -> list[str]:
    processors = os.cpu_count() or 1
    return [
        "HOME=/tmp",
        "GOPATH=/go",
        "GO111MODULE=off",
        f"GOFLAGS=-p={processors}",
        "CGO_ENABLED=0",
        "GOCACHE=/gocache",
        "PATH=/usr/lib/go-1.19/bin:/usr/bin:/bin",
    ]


def _version_flags() -> str:
    major, minor, _ = VERSION.split(".")
    flags = ["-s", "-w"]
    for package in ("component-base/version", "client-go/pkg/version"):
        prefix = f"-X k8s.io/kubernetes/vendor/k8s.io/{package}"
        flags += [f"{prefix}.gitVersion=v{VERSION}", f"{prefix}.gitMajor={major}"]
        flags += [f"{prefix}.gitMinor={minor}", f"{prefix}.gitTreeState=clean"]
    return " ".join(flags)


def _go(workshop: Path, *arguments: str) -> None:
    inside = ("env", *_environment(), "/bin/sh", "-c", f'cd {_GO} && exec go "$@"')
    run("chroot", workshop, *inside, "sh", *arguments)
