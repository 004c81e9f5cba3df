"""containerd on a host, and a store of images for new hosts to begin with."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.e2e.agents import wait_for
from tests.e2e.debian import once, run
from tests.e2e.kube.lab.hosts import Host
from tests.e2e.kube.lab.images import PAUSE, images
from tests.kernel.netns import namespaces

SOCKET = "/run/containerd/containerd.sock"
_CONFIG = f"""
version = 2
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  # Without CAP_SYS_RESOURCE no pod would start otherwise.
  restrict_oom_score_adj = true
  sandbox_image = "{PAUSE}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/lab/home/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


class Containers:
    """`host`'s containerd."""

    def __init__(self, host: Host) -> None:
        self._host = host
        (host.files / "containerd.toml").write_text(_CONFIG)

    def start(self) -> None:
        """It answers when this returns."""
        self._host.start("containerd", "containerd", "--config=/lab/home/containerd.toml")
        wait_for(f"containerd of {self._host.name}", self._answers, timeout_s=60)

    def load(self, name: str) -> None:
        """The images in NAME.tar."""
        self._ctr("--namespace=k8s.io", "images", "import", f"/lab/images/{name}.tar")

    def _answers(self) -> bool | None:
        log = self._host.log("containerd")
        assert self._host.is_running("containerd"), log.read_text()[-3000:]
        try:
            self._ctr("version")
        except AssertionError:
            return None
        return True

    def _ctr(self, *arguments: str) -> None:
        self._host.run("ctr", f"--address={SOCKET}", *arguments)


def unpacked() -> Path:
    """What containerd keeps once it has the agent's images. Nobody writes there."""
    place = images()
    return once(place.with_name(f"{place.name}-unpacked"), _unpack)


def _unpack(into: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="raft-kube-") as home,
        namespaces("unpack") as (network,),
    ):
        host = Host("unpack", network, Path(home) / "host", Path(home), images())
        host.boot()
        try:
            containers = Containers(host)
            containers.start()
            containers.load("agent")
            host.stop("containerd")
            # Its database is written in place, everything else once.
            run("cp", "-a", host.disk("containerd"), into)
        finally:
            host.power_off()


def begin_with(store: Path, disk: Path) -> None:
    """Gives the empty directory `disk` what `store` holds: in links where that can be, because
    nothing that containerd has unpacked is ever changed, but for its databases.
    """
    same = store.stat().st_dev == disk.stat().st_dev
    run("cp", "-al" if same else "-a", f"{store}/.", disk)
    if same:
        for database in disk.rglob("*.db"):
            content = database.read_bytes()
            database.unlink()
            database.write_bytes(content)
            os.chmod(database, 0o600)  # noqa: PTH101
