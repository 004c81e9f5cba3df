"""A host of the lab: a Debian root of its own, with its own network, mounts and processes.

All of it hangs on the host's first process. When that ends, the kernel ends the others and takes
the mounts away; and it ends when the tests do, however they do, since it reads from their pipe.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.e2e.agents import wait_for
from tests.e2e.control_groups import remove_group
from tests.e2e.debian import root
from tests.kernel.netns import enter

_PACKAGES = (
    "ca-certificates",
    "containerd",
    "containernetworking-plugins",
    "etcd-server",
    "iproute2",
    "kubernetes-client",
    "mount",
    "runc",
)
_SETUP = """
set -eu
rm -f "$1/etc/hostname" "$1/etc/machine-id"
: > "$1/etc/resolv.conf"
mkdir -p "$1/lab/programs" "$1/lab/images" "$1/lab/home" "$1/before"
""".strip()
# The kubelet would set these for the whole machine. Here it finds them set as it wants them, and
# the machine's own are left alone.
_SETTINGS = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
_BOOT = """
set -eu
home=$1 root=$1/root
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$2,upperdir=$home/upper,workdir=$home/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount -t bpf bpf "$root/sys/fs/bpf"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$3" "$root/lab/programs"
mount --bind "$4" "$root/lab/images"
mount --bind "$home/files" "$root/lab/home"
for name in containerd etcd kubelet; do
    mkdir -p "$root/var/lib/$name"
    mount --bind "$home/disk/$name" "$root/var/lib/$name"
done
for setting in "$home"/settings/*; do
    name=${setting##*/}
    mount --bind "$setting" "$root/proc/sys/$(echo "$name" | tr : /)"
done
hostname "$5"
tr -d - < /proc/sys/kernel/random/uuid > "$root/etc/machine-id"
cd "$root"
pivot_root . before
umount -l /before
exec bash -c 'echo up; read -r _' < /dev/stdin
"""
_PATH = "/lab/programs:/usr/sbin:/usr/bin:/sbin:/bin"


def system() -> Path:
    """The root that all hosts have."""
    return root(_PACKAGES, _SETUP)


class Host:
    """One system in the network namespace `namespace`; its files are in `home`."""

    def __init__(self, name: str, namespace: str, home: Path, programs: Path, images: Path) -> None:
        self.name = name
        self.namespace = namespace
        self.home = home
        self._shared = (str(programs), str(images))
        self._init: subprocess.Popen[str] | None = None
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        for folder in ("upper", "work", "root", "files", "settings", "log"):
            (home / folder).mkdir(parents=True)
        for name_of_disk in ("containerd", "etcd", "kubelet"):
            (home / "disk" / name_of_disk).mkdir(parents=True)
        for setting, value in _SETTINGS.items():
            (home / "settings" / setting.replace("/", ":")).write_text(f"{value}\n")

    @property
    def files(self) -> Path:
        """This directory is /lab/home on the host."""
        return self.home / "files"

    def disk(self, name: str) -> Path:
        """This directory is /var/lib/NAME on the host: containerd, etcd or kubelet."""
        return self.home / "disk" / name

    def boot(self) -> None:
        """Its first process runs when this returns."""
        command = [
            *(*enter(self.namespace), "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork"),
            *("--kill-child", "sh", "-c", _BOOT, "boot"),
            *(str(self.home), str(system()), *self._shared, self.name),
        ]
        with (self.home / "log" / "boot.log").open("a") as log:
            self._init = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._init.stdout is not None
        said = self._init.stdout.readline()
        assert said == "up\n", f"{self.name}: {(self.home / 'log' / 'boot.log').read_text()}"

    def inside(self, *command: str) -> list[str]:
        """The command line that runs a command on the host."""
        assert self._init is not None, f"{self.name} is not running"
        return [
            *("nsenter", f"--target={_child(self._init)}", "--root", "--wd=/"),
            *("--mount", "--uts", "--ipc", "--net", "--pid", "--"),
            *("env", "-i", f"PATH={_PATH}", "HOME=/root", *command),
        ]

    def run(self, *command: str, stdin: str = "") -> str:
        """The output of a command that must not fail."""
        done = subprocess.run(
            self.inside(*command), input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{self.name}: {' '.join(command)}: {done.stderr[-4000:]}"
        return done.stdout

    def start(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> None:
        """A program in the background; its words go to log/NAME.log."""
        settings = [f"{key}={value}" for key, value in (environment or {}).items()]
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                self.inside("env", *settings, *command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def send(self, name: str, number: int) -> None:
        """To a program that `start` started and that is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid_of(name), number)

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """A program that `start` started is gone when this returns."""
        self.send(name, number)
        try:
            self._running[name].wait(20)
        except subprocess.TimeoutExpired:
            self.send(name, signal.SIGKILL)
            self._running[name].wait()
        del self._running[name]

    def is_running(self, name: str) -> bool:
        return name in self._running and self._running[name].poll() is None

    def pid_of(self, name: str) -> int:
        """The pid, as this machine counts, of a program that `start` started."""
        return _child(self._running[name])

    def log(self, name: str) -> Path:
        return self.home / "log" / f"{name}.log"

    def power_off(self) -> None:
        """Everything that runs here dies at once. The disk stays."""
        if self._init is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(_child(self._init), signal.SIGKILL)
        self._init.wait()  # which ends once the kernel has ended all the others
        for pipe in (self._init.stdin, self._init.stdout):
            if pipe is not None:
                pipe.close()
        for process in self._running.values():
            process.wait()
        self._running.clear()
        self._init = None

    def remove(self) -> None:
        """The disk too."""
        self.power_off()
        shutil.rmtree(self.home)


def _child(process: subprocess.Popen[Any]) -> int:
    """The program in the other namespace, which is a child of who has gone there."""

    def look() -> int | None:
        if process.poll() is not None:
            raise ProcessLookupError
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    return wait_for(f"{process.args} to run", look)


class Groups:
    """Control groups of the lab's own, for the kubelets to make theirs in."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _roots(self) -> list[Path]:
        """All hierarchies of version 1 that are mounted, or the one of version 2."""
        places = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]
        return [place for place in places if (place / "cgroup.procs").exists() and place.is_mount()]

    def make(self, *names: str) -> None:
        for place in self._roots():
            above = place / self.name
            for folder in (above, *(above / name for name in names)):
                folder.mkdir(exist_ok=True)
                _open(folder)

    def remove(self) -> None:
        """Waits until those that were in them are gone."""
        for place in self._roots():
            wait_for(
                f"{place / self.name} to be empty", lambda p=place: remove_group(p / self.name)
            )


def _open(folder: Path) -> None:
    """Lets groups be made in a new one: in version 1 a set of processors is empty at first, in
    version 2 no controller is handed down.
    """
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = folder / name
        if file.exists() and (folder / "cgroup.clone_children").exists():
            file.write_text((folder.parent / name).read_text())
    controllers = folder.parent / "cgroup.controllers"
    if controllers.exists():
        words = controllers.read_text().split()
        if words:
            (folder.parent / "cgroup.subtree_control").write_text(
                " ".join(f"+{word}" for word in words)
            )
            (folder / "cgroup.subtree_control").write_text(
                " ".join(f"+{word}" for word in (folder / "cgroup.controllers").read_text().split())
            )
