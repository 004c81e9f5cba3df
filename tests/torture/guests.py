"""Three virtual machines with one agent each, their disks, and the network between them."""

from __future__ import annotations

import compileall
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from raft_agent.tls.files import TlsFiles
from tests.kernel import harness, machines, netns, userland
from tests.sim.planted.fault import Edit
from tests.torture.drive import Drive
from tests.torture.guest_agent import DISK
from tests.torture.papers import Papers
from tests.torture.planted import patched

PORT = 5555
CLIENTS = "10.78.9.1"
# Debian 12, whose Python runs on this host.
MACHINE = machines.MACHINES[1]
_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "ext4", "crc32c_generic")
_DISK_BYTES = 192 << 20
_MEMORY_MB = 512
# As disks that turn need for it.
_FLUSH_S = 0.02
_UNFLUSHED_SOON_S = 5.0
_LOOK_S = 0.0005
_SOURCE = "source"
# An emulated processor is some ten times slower than the one that it runs on.
_TIMING = (
    "heartbeat_interval_ms = 300\nelection_timeout_min_ms = 2000\nelection_timeout_max_ms = 4000"
)


class Guest:
    """One machine. `log`: what its console said since it was switched on for the first time."""

    def __init__(self, name: str, address: str, home: Path, drive: Drive) -> None:
        self.name = name
        self.address = address
        self.log = home / "agent.log"
        self.drive = drive
        self.process: subprocess.Popen[bytes] | None = None

    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None


class Guests:
    """All machines; `hub` is the namespace with their network, `namespace` that of the clients."""

    def __init__(self, directory: Path, hub: str, namespace: str, papers: Papers) -> None:
        self.directory = directory
        self.hub = hub
        self.namespace = namespace
        self.papers = papers
        self.all: list[Guest] = []
        self.modules: list[str] = []

    def add(self, name: str, address: str, founders: dict[str, str]) -> None:
        home = self.directory / name
        home.mkdir()
        image = _image(home, self.papers.of_node(name, address), _config(name, address, founders))
        self.all.append(Guest(name, address, home, Drive(home / "drive", image, _FLUSH_S)))
        netns.ip("-n", self.hub, "tuntap", "add", name, "mode", "tap")
        netns.ip("-n", self.hub, "link", "set", name, "master", "br0", "up")

    def switch_on(self, guest: Guest) -> None:
        number = self.all.index(guest)
        search_path = ["/source", *userland.search_path("/checkout", userland.agent())]
        words = [
            f"rdinit={userland.python()}",
            f"PYTHONPATH={':'.join(search_path)}",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            *("--", "-S", "/checkout/tests/torture/guest_agent.py", f"{guest.address}/16"),
            *self.modules,
        ]
        disk = f"driver=nbd,node-name=disk,server.type=unix,server.path={guest.drive.path}"
        command = machines.command(
            MACHINE,
            self.directory / "initramfs",
            words,
            *("-m", str(_MEMORY_MB), "-smp", "1"),
            *("-blockdev", f"{disk},cache.no-flush=off"),
            *("-device", "virtio-blk-pci,drive=disk,write-cache=on"),
            *("-netdev", f"tap,id=net,ifname={guest.name},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=net,romfile=,mac=52:54:00:78:01:{number + 1:02x}"),
        )
        with guest.log.open("ab") as log:
            guest.process = subprocess.Popen(
                [*netns.enter(self.hub), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def switch_all_on(self) -> None:
        for guest in self.all:
            self.switch_on(guest)

    def wait_for_unflushed(self) -> None:
        """Until some disk has something to lose, or has had nothing for seconds."""
        deadline = time.monotonic() + _UNFLUSHED_SOON_S
        while not any(guest.drive.has_unflushed for guest in self.all):
            if time.monotonic() > deadline:
                return
            time.sleep(_LOOK_S)

    def fail_power(self, chance: random.Random) -> list[int]:
        """At once, at all of them; how many sectors each disk lost."""
        for guest in self.all:
            if guest.process is not None:
                guest.process.kill()
        for guest in self.all:
            guest.drive.fail_power()
        for guest in self.all:
            if guest.process is not None:
                guest.process.wait()
                guest.process = None
        return [guest.drive.power_returns(chance) for guest in self.all]

    def complaint(self) -> str | None:
        """Of a machine that ended by itself."""
        for guest in self.all:
            if guest.has_ended():
                lines = guest.log.read_text(errors="replace").splitlines()
                return f"{guest.name} ended by itself: {' / '.join(lines[-4:])}"
        return None

    def close(self) -> None:
        self.fail_power(random.Random(0))
        for guest in self.all:
            guest.drive.close()


def missing() -> str | None:
    """What keeps the machines from running here, None when nothing does."""
    if not harness.is_privileged():
        return "needs root: makes network namespaces"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    return machines.missing(MACHINE)


@contextmanager
def guests(directory: Path, edits: tuple[Edit, ...] = ()) -> Iterator[Guests]:
    """Three machines that are switched off; gone afterwards, but for their files. `edits`: faults
    that are planted in their agents."""
    with ExitStack() as stack:
        hub, namespace = stack.enter_context(netns.namespaces("hub", "clients"))
        netns.ip("-n", hub, "link", "add", "br0", "type", "bridge")
        netns.ip("-n", hub, "link", "set", "br0", "up")
        netns.plug(hub, namespace, "clients", f"{CLIENTS}/16")
        made = Guests(directory, hub, namespace, Papers(directory / "papers"))
        made.modules = _make_initramfs(directory, edits)
        stack.callback(made.close)
        founders = {f"node-{n:02}": f"10.78.1.{n}" for n in (1, 2, 3)}
        for name, address in founders.items():
            made.add(name, address, founders)
        yield made


def _make_initramfs(directory: Path, edits: tuple[Edit, ...]) -> list[str]:
    """Write it; the names of the kernel's modules in it."""
    machines.prepare(MACHINE)
    source = patched(edits, directory / _SOURCE)
    compileall.compile_dir(source, quiet=1)
    found = userland.files(userland.agent(), ("mount", "ip"))
    files = {path.removeprefix("/"): data for path, data in found.items()}
    own = sorted(source.rglob("*.py"))
    files |= {f"source/{path.relative_to(source)}": path.read_bytes() for path in own}
    files |= {f"source/{p.relative_to(source)}": code for p, code in userland.compiled(own)}
    script = Path("checkout/tests/torture/guest_agent.py")
    files[str(script)] = Path(__file__).with_name(script.name).read_bytes()
    modules = machines.modules(MACHINE, *_MODULES)
    files |= {f"modules/{name}.ko": data for name, data in modules.items()}
    # The place where the disk is mounted.
    files[f"{DISK.removeprefix('/')}/.none"] = b""
    (directory / "initramfs").write_bytes(machines.archive(files))
    return list(modules)


def _config(name: str, address: str, founders: dict[str, str]) -> str:
    peers = (
        f'[[peers]]\nid = "{peer}"\naddress = "{place}:{PORT}"\n'
        for peer, place in founders.items()
        if peer != name
    )
    return (
        f'[server]\nnode_id = "{name}"\nlisten_addr = "{address}:{PORT}"\n'
        f'data_dir = "{DISK}/data"\nipc_socket = "/tmp/ipc.sock"\n'
        f'[tls]\nca = "{DISK}/ca.pem"\ncert = "{DISK}/cert.pem"\nkey = "{DISK}/key.pem"\n'
        f"[timing]\nstate_check_interval_ms = 5000\n{_TIMING}\n"
        "[storage]\nsnapshot_entries = 2000\n" + "".join(peers)
    )


def _image(home: Path, papers: TlsFiles, config: str) -> bytes:
    """A disk with a file system, the configuration and the certificates."""
    folder = home / "files"
    folder.mkdir()
    (folder / "raft.toml").write_text(config)
    for name, file in (("ca.pem", papers.ca), ("cert.pem", papers.cert), ("key.pem", papers.key)):
        place = folder / name
        place.touch(0o600)
        place.write_bytes(Path(file).read_bytes())
    image = home / "image"
    with image.open("wb") as file_:
        file_.truncate(_DISK_BYTES)
    harness.run("/sbin/mkfs.ext4", "-q", "-d", str(folder), str(image))
    data = image.read_bytes()
    image.unlink()
    return data
