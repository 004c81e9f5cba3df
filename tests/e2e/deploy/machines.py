"""Whole Debian systems with systemd and sshd, booted with systemd-nspawn in a network namespace of
the test's own, and the controller that reaches them by SSH alone.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.afterwards import Afterwards
from tests.e2e.agents import wait_for
from tests.e2e.deploy import images
from tests.kernel.netns import enter, ip

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
# the same one, and each would kill and count the others' processes as its services'. systemd-nspawn
# is the first process of a namespace, so whatever it has started ends with it; its own notes, which
# it leaves behind when it is killed, go with the mounts.
_BOOT = """
set -e
for group in $1; do mkdir -p "$group" && echo 0 > "$group/cgroup.procs"; done
shift
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
shift 2
exec systemd-nspawn "$@"
"""
# All that a site has on this machine, beside files: processes in its network namespace $1, and
# control groups called so and something more. Mounts are of the machines alone, and end with them.
_AFTERWARDS = """
while pids=$(ip netns pids "$1") && [ -n "$pids" ]; do
    kill -KILL $pids 2> /dev/null
    sleep 0.1
done
ip netns delete "$1"
for group in /sys/fs/cgroup/"$1"-* /sys/fs/cgroup/*/"$1"-*; do
    while [ -e "$group" ]; do find "$group" -depth -type d -exec rmdir {} + || sleep 0.1; done
done
if [ "$word" != keep ]; then rm -rf "$2"; fi
"""
_numbers = itertools.count(1)


class Machine:
    """One system: its files are a layer over the image, and gone with the site. `namespace`: that
    of the network of its site.
    """

    def __init__(self, name: str, number: int, home: Path, namespace: str, key: Path) -> None:
        self.name = name
        self._number = number
        self.address = f"{NETWORK}.{number}"
        self._home = home / name
        self._namespace = namespace
        self._key = key
        self._process: subprocess.Popen[bytes] | None = None
        self._boots = 0

    def make(self) -> None:
        """An empty disk, with nothing but what lets the controller in."""
        shutil.rmtree(self._home, ignore_errors=True)
        upper = self._home / "upper"
        for folder in (upper / "etc/systemd/network", self._home / "work", self._home / "root"):
            folder.mkdir(parents=True)
        # So the journal is kept: journalctl -D reads it when a test has failed.
        (upper / "var/log/journal").mkdir(parents=True)
        (upper / "etc/hostname").write_text(f"{self.name}\n")
        (upper / "etc/hosts").write_text(f"127.0.0.1 localhost {self.name}\n")
        # A network card keeps its address, so nobody looks for the machine at a former one after a
        # boot; systemd-nspawn derives it from the name of the container.
        (upper / "etc/systemd/network/10-host0.network").write_text(
            f"[Match]\nName=host0\n[Link]\nMACAddress=02:00:00:00:00:{self._number:02x}\n"
            f"[Network]\nAddress={self.address}/24\nLinkLocalAddressing=no\n"
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

    def boot(self) -> None:
        """Returns at once; `wait` waits for sshd."""
        self._boots += 1
        with (self._home / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                [
                    *(*enter(self._namespace), "unshare", "--mount", "--pid", "--fork"),
                    *("--kill-child", "bash", "-c", _BOOT, "boot"),
                    *(" ".join(map(str, self._groups())), str(images.debian()), str(self._home)),
                    *("--boot", "--quiet", "--register=no", "--keep-unit", "--console=pipe"),
                    *(f"--machine={self._label}", f"--hostname={self.name}"),
                    *(f"--directory={self._home / 'root'}", "--network-bridge=br0"),
                    *("--link-journal=no", "--resolv-conf=off", "--timezone=off"),
                    "--capability=CAP_BPF,CAP_NET_ADMIN,CAP_PERFMON,CAP_SYS_ADMIN",
                    "--system-call-filter=bpf",
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
    def _label(self) -> str:
        """Of another name at each boot: what the one before has left goes in its own time."""
        return f"{self._namespace}-{self.name}-{self._boots}"

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
    """systemd-nspawn is the child of unshare, which waits for it."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _quoted(command: str) -> str:
    return "'" + command.replace("'", "'\\''") + "'"


class Site:
    """Machines on one bridge, and the controller's files: inventory, key, authority.

    `spent`: it is not as it was, and the next test shall have another one.
    """

    def __init__(self) -> None:
        self.home = home = Path(tempfile.mkdtemp(prefix="raft-deploy-"))
        self.namespace = f"rafttest-{os.getpid()}-deploy{next(_numbers)}"
        self._afterwards = Afterwards(_AFTERWARDS, self.namespace, str(home))
        self.spent = False
        ip("netns", "add", self.namespace)
        ip("-n", self.namespace, "link", "set", "lo", "up")
        ip("-n", self.namespace, "link", "add", "br0", "type", "bridge")
        ip("-n", self.namespace, "addr", "add", f"{NETWORK}.1/24", "dev", "br0")
        ip("-n", self.namespace, "link", "set", "br0", "up")
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

    def add(self, name: str) -> Machine:
        """A bare machine that boots. Its address is that of no other."""
        number = 11 + len(self.machines)
        machine = Machine(name, number, self.home, self.namespace, self._key)
        self.machines[name] = machine
        machine.make()
        machine.boot()
        return machine

    def remove(self, name: str) -> None:
        """Its power is cut, and it is forgotten."""
        self.machines.pop(name).kill()

    def wait(self) -> None:
        for machine in self.machines.values():
            machine.wait()

    def play(
        self, playbook: str, *options: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """ansible-playbook, as people call it; the inventory has all machines."""
        inventory = self.home / "inventory.yml"
        listed = {
            name: {"ansible_host": machine.address, **self.own_variables.get(name, {})}
            for name, machine in self.machines.items()
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
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible" / "ansible.cfg"),
                "ANSIBLE_LOCAL_TEMP": str(self.home / "ansible"),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout[-6000:] + done.stderr[-2000:]
        return done

    def close(self, *, keep: bool = False) -> None:
        """All is gone when this returns; `keep`: but for the machines' files."""
        if keep:
            print(f"the machines' files are kept in {self.home}")
        for machine in self.machines.values():
            machine.kill()
        self._afterwards.run("keep" if keep else "remove")


@contextmanager
def site(*names: str) -> Iterator[Site]:
    """Bare machines of these names, booted; all is gone afterwards. When the test fails, their
    files stay, and the place is printed.
    """
    made = bare(*names)
    try:
        yield made
    except BaseException as error:
        made.close(keep=not isinstance(error, KeyboardInterrupt))
        raise
    made.close()


def bare(*names: str) -> Site:
    """The same, for who closes it when that is due."""
    images.debian()
    made = Site()
    try:
        for name in names:
            made.add(name)
        made.wait()
    except BaseException as error:
        made.close(keep=not isinstance(error, KeyboardInterrupt))
        raise
    return made
