"""Whole Debian systems with systemd and sshd, booted with systemd-nspawn in a network namespace of
the test's own, and the controller that reaches them by SSH alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.agents import wait_for
from tests.e2e.control_groups import remove_group
from tests.e2e.deploy import images
from tests.kernel.netns import enter, ip, namespaces

ROOT = Path(__file__).resolve().parents[3]
NETWORK = "10.98.0"
# Timers for machines that share this one's processors with each other, the playbooks and the load.
TIMING = {
    "heartbeat_interval_ms": 200,
    "election_timeout_min_ms": 2000,
    "election_timeout_max_ms": 4000,
}
_NO_LEADER = 6  # raftctl's exit status
# A control group of its own in every hierarchy: on a host without systemd all machines would have
# the same one, and each would kill and count the others' processes as its services'.
_BOOT = """
set -e
for group in $1; do mkdir -p "$group" && echo $$ > "$group/cgroup.procs"; done
shift
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
shift 2
exec systemd-nspawn "$@"
"""


class Machine:
    """One system: its files are a layer over the image, and gone with the test.

    `data_mib`: the size of a disk of its own for /var/lib/raft, if it is to have one.
    """

    def __init__(
        self, name: str, number: int, home: Path, namespace: str, key: Path, *, data_mib: int | None
    ) -> None:
        self.name = name
        self._data_mib = data_mib
        self.address = f"{NETWORK}.{number}"
        self._home = home / name
        self._namespace = namespace
        self._key = key
        self._process: subprocess.Popen[bytes] | None = None
        self._boots = 0

    def make(self) -> None:
        """An empty disk, with nothing but what lets the controller in."""
        self.detach()
        shutil.rmtree(self._home, ignore_errors=True)
        upper = self._home / "upper"
        for folder in (upper / "etc/systemd/network", self._home / "work", self._home / "root"):
            folder.mkdir(parents=True)
        # So the journal is kept: journalctl -D reads it when a test has failed.
        (upper / "var/log/journal").mkdir(parents=True)
        (upper / "etc/hostname").write_text(f"{self.name}\n")
        (upper / "etc/hosts").write_text(f"127.0.0.1 localhost {self.name}\n")
        (upper / "etc/systemd/network/10-host0.network").write_text(
            f"[Match]\nName=host0\n[Network]\nAddress={self.address}/24\nLinkLocalAddressing=no\n"
        )
        (upper / "etc/systemd/system").mkdir()
        for folder in ("home", "home/admin", "home/admin/.ssh"):
            (upper / folder).mkdir(exist_ok=True)
        for folder in ("home/admin", "home/admin/.ssh"):
            os.chown(upper / folder, 1000, 1000)
        keys = upper / "home/admin/.ssh/authorized_keys"
        keys.write_text(self._key.with_suffix(".pub").read_text())
        os.chown(keys, 1000, 1000)
        keys.chmod(0o600)
        if self._data_mib is not None:
            self._disk.mkdir()
            options = f"size={self._data_mib}m,mode=0700"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", self._disk], check=True)

    def detach(self) -> None:
        """Its disk of its own is gone."""
        if self._disk.is_mount():
            subprocess.run(["umount", self._disk], check=True)

    def boot(self) -> None:
        """Returns at once; `wait` waits for sshd."""
        self._boots += 1
        with (self._home / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                [
                    *(*enter(self._namespace), "unshare", "--mount", "bash", "-c", _BOOT, "boot"),
                    *(" ".join(map(str, self._groups())), str(images.debian()), str(self._home)),
                    *("--boot", "--quiet", "--register=no", "--keep-unit", "--console=pipe"),
                    *(f"--machine={self._label}", f"--hostname={self.name}"),
                    *(f"--directory={self._home / 'root'}", "--network-bridge=br0"),
                    *("--link-journal=no", "--resolv-conf=off", "--timezone=off"),
                    "--capability=CAP_BPF,CAP_NET_ADMIN,CAP_PERFMON,CAP_SYS_ADMIN",
                    "--system-call-filter=bpf",
                    *([f"--bind={self._disk}:/var/lib/raft"] if self._data_mib else []),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until a command runs there."""
        wait_for(
            f"{self.name} to boot",
            lambda: True if self.run("true", check=False).returncode == 0 else None,
            timeout_s=120,
        )

    def kill(self) -> None:
        """The power is cut; the disk stays. Everything in it dies with its first process."""
        if self._process is None:
            return
        for child in _children(self._process.pid):
            os.kill(child, signal.SIGKILL)
        self._process.kill()
        self._ended()

    def reboot(self) -> None:
        """As `reboot` there does it: services are stopped, and it comes up again."""
        assert self._process is not None
        self.run("systemctl reboot", check=False)
        self._ended()
        self.boot()

    def _ended(self) -> None:
        assert self._process is not None
        self._process.wait(120)
        self._process = None
        # A systemd-nspawn that is killed leaves this, which is a mount point no more.
        with contextlib.suppress(OSError):
            (Path("/run/systemd/nspawn/propagate") / self._label).rmdir()
        for group in self._groups():
            wait_for(f"{group} to be empty", lambda group=group: remove_group(group))

    def _groups(self) -> list[Path]:
        """Its control groups: in all hierarchies of version 1 but cpuset, and in that of version
        2."""
        roots = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]
        return [
            root / self._label
            for root in roots
            if (root / "cgroup.procs").exists() and root.name != "cpuset" and root.is_mount()
        ]

    @property
    def _disk(self) -> Path:
        return self._home / "data"

    @property
    def _label(self) -> str:
        """Of another name at each boot: what the one before has left goes in its own time."""
        return f"rafttest-{os.getpid()}-{self.name}-{self._boots}"

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of root's, over SSH."""
        done = subprocess.run(
            [
                *(*enter(self._namespace), "ssh", "-i", str(self._key)),
                *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
                *("-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5", f"admin@{self.address}"),
                f"sudo sh -c {_quoted(command)}",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{self.name}: {command}\n{done.stderr}"
        return done

    def raftctl(self, arguments: str) -> str:
        """What it says, once there is a leader: status 6 is for none."""
        command = f"raftctl --node {self.name} --timeout 60 {arguments}"

        def answered() -> subprocess.CompletedProcess[str] | None:
            done = self.run(command, check=False)
            return done if done.returncode != _NO_LEADER else None

        done = wait_for(f"{self.name} to know a leader", answered, timeout_s=120)
        assert done.returncode == 0, f"{self.name}: {command}\n{done.stderr}"
        return done.stdout

    def console(self) -> str:
        return (self._home / "console.log").read_text(errors="replace")


def _children(pid: int) -> list[int]:
    """systemd-nspawn's own child is the system's first process."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _quoted(command: str) -> str:
    return "'" + command.replace("'", "'\\''") + "'"


class Site:
    """The machines and the controller's files: inventory, key, authority."""

    def __init__(self, home: Path, namespace: str) -> None:
        self.home = home
        self.namespace = namespace
        self._key = home / "key"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key)], check=True
        )
        self.machines: dict[str, Machine] = {}
        # Of the inventory: of all hosts, and of single ones.
        self.variables: dict[str, Any] = {"raft_node_settings": {"timing": TIMING}}
        self.own_variables: dict[str, dict[str, Any]] = {}

    @property
    def key(self) -> Path:
        """With which SSH lets one in."""
        return self._key

    def add(self, name: str, data_mib: int | None = None) -> Machine:
        """A bare machine that boots. Its address is that of no other."""
        number = 11 + len(self.machines)
        machine = Machine(name, number, self.home, self.namespace, self._key, data_mib=data_mib)
        self.machines[name] = machine
        machine.make()
        machine.boot()
        return machine

    def wait(self) -> None:
        for machine in self.machines.values():
            machine.wait()

    def play(
        self, playbook: str, *options: str, check: bool = True, hosts: Sequence[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """ansible-playbook, as people call it; `hosts`: those of the inventory, default all."""
        inventory = self.home / "inventory.yml"
        names = self.machines if hosts is None else hosts
        listed = {
            name: {"ansible_host": self.machines[name].address, **self.own_variables.get(name, {})}
            for name in names
        }
        connection = {
            "ansible_user": "admin",
            "ansible_ssh_private_key_file": str(self._key),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no"
            f" -o UserKnownHostsFile={self.home}/known_hosts -o ControlPath={self.home}/%C",
            "raft_bundle_dir": str(ROOT / "build" / "deploy"),
        }
        content = {"raft": {"hosts": listed, "vars": connection | self.variables}}
        inventory.write_text(yaml.safe_dump(content))
        program = Path(sys.executable).with_name("ansible-playbook")
        done = subprocess.run(
            [*enter(self.namespace), program, "-i", inventory, playbook, *options],
            cwd=ROOT / "ansible",
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible" / "ansible.cfg")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout[-6000:] + done.stderr[-2000:]
        return done

    def close(self) -> None:
        for machine in self.machines.values():
            machine.kill()
            machine.detach()
        # The connections that ansible keeps open end by themselves once nobody is at the other end.
        for socket in self.home.glob("[0-9a-f]*"):
            if socket.is_socket():
                subprocess.run(
                    ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "nobody"],
                    capture_output=True,
                    check=False,
                )


@contextmanager
def site(*names: str, data_mib: int | None = None) -> Iterator[Site]:
    """Bare machines of these names, booted; all is gone afterwards. When the test fails, the
    consoles stay, and their place is printed."""
    images.debian()
    home = Path(tempfile.mkdtemp(prefix="raft-deploy-"))
    with namespaces("deploy") as (namespace,):
        ip("-n", namespace, "link", "add", "br0", "type", "bridge")
        ip("-n", namespace, "addr", "add", f"{NETWORK}.1/24", "dev", "br0")
        ip("-n", namespace, "link", "set", "br0", "up")
        made = Site(home, namespace)
        try:
            for name in names:
                made.add(name, data_mib)
            made.wait()
            yield made
        except BaseException:
            print(f"the machines' files are kept in {home}")
            made.close()
            raise
        made.close()
    shutil.rmtree(home)
