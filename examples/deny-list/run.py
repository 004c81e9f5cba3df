#!/usr/bin/env python3
"""Three nodes and a guest in network namespaces: one key that is put stops the guest's packets on
all three. Run it as root; it takes everything down again. `--keep`: only when you press Enter.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

from raft_agent.kernel import libbpf
from raft_agent.kernel.reader import ExportedMap
from raft_agent.kernel.typed_map import TypedMap
from raftctl.dev_cluster import DevCluster

HERE = Path(__file__).resolve().parent
RAFTCTL = str(Path(sys.executable).parent / "raftctl")
NAMES = ("node-01", "node-02", "node-03")
GUEST_ADDRESS, GUEST_NETWORK = "203.0.113.7", "203.0.113.0/24"
PATIENCE_S = 20.0


def run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def address_of(name: str) -> str:
    return f"10.201.0.{int(name[-2:])}"


# --- the guest ------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(address: str, wait_s: float = 0.5) -> bool:
    """Whether an echo request is answered. Needs root."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(wait_s)
        number = os.getpid() & 0xFFFF
        head = struct.pack(">BBHHH", 8, 0, 0, number, 1)
        request = struct.pack(">BBHHH", 8, 0, checksum(head), number, 1)
        sock.sendto(request, (address, 0))
        with contextlib.suppress(TimeoutError):
            while True:
                reply = sock.recv(1500)[20:]  # behind the IP header
                if reply[0] == 0 and reply[4:6] == request[4:6]:
                    return True
        return False


class Guest:
    """A host beside the nodes, with an address that may be denied."""

    def __init__(self, tag: str) -> None:
        self.namespace = f"raftdev-{tag}-guest"
        hub = f"raftdev-{tag}-hub"
        run("ip", "netns", "add", self.namespace)
        run(
            *("ip", "-n", hub, "link", "add", "guest", "type", "veth"),
            *("peer", "name", "eth0", "netns", self.namespace),
        )
        run("ip", "-n", hub, "link", "set", "guest", "master", "br0", "up")
        run("ip", "-n", self.namespace, "addr", "add", f"{GUEST_ADDRESS}/24", "dev", "eth0")
        run("ip", "-n", self.namespace, "link", "set", "eth0", "up")
        run("ip", "-n", self.namespace, "route", "add", "10.201.0.0/24", "dev", "eth0")
        for name in NAMES:
            node = f"raftdev-{tag}-{name}"
            run("ip", "-n", node, "route", "add", GUEST_NETWORK, "dev", "eth0")

    def reaches(self) -> dict[str, bool]:
        """Which nodes answer it."""
        command = ["nsenter", f"--net=/run/netns/{self.namespace}", sys.executable, __file__]
        pings = {name: subprocess.Popen([*command, "--ping", address_of(name)]) for name in NAMES}  # noqa: S603
        return {name: process.wait() == 0 for name, process in pings.items()}

    def wait_until(self, wanted: dict[str, bool]) -> float:
        """Seconds until exactly these answer."""
        began = time.monotonic()
        while (found := self.reaches()) != wanted:
            if time.monotonic() > began + PATIENCE_S:
                sys.exit(f"The guest reaches {found}, not {wanted}")
        return time.monotonic() - began


# --- a node's kernel ------------------------------------------------------------------------------


class Filter:
    """deny.bpf.c at one node, on the maps that the node's agent keeps."""

    def __init__(self, program: Path, namespace: str, maps: Path) -> None:
        self.maps = maps
        bpf = libbpf.library()
        bpf.bpf_map__reuse_fd.argtypes = [ctypes.c_void_p, ctypes.c_int]
        bpf.bpf_object__next_map.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        handle = bpf.bpf_object__open_file(os.fsencode(program), None)
        found = bpf.bpf_object__next_map(handle, None)
        while found:
            name = bpf.bpf_map__name(found).decode()
            if "." not in name:  # .rodata is the program's own
                pinned = TypedMap.open(maps / name)
                bpf.bpf_map__reuse_fd(found, pinned.fd)
                pinned.close()
            found = bpf.bpf_object__next_map(handle, found)
        if bpf.bpf_object__load(handle):
            sys.exit(f"The kernel does not take {program}")
        pin = maps.parent / "deny_program"
        pin.unlink(missing_ok=True)
        fd = bpf.bpf_program__fd(bpf.bpf_object__next_program(handle, None))
        if bpf.bpf_obj_pin(fd, os.fsencode(pin)):
            sys.exit(f"The program can't be pinned at {pin}")
        bpf.bpf_object__close(handle)
        run("ip", "-n", namespace, "link", "set", "dev", "eth0", "xdpgeneric", "pinned", str(pin))

    def is_fresh(self) -> bool:
        with ExportedMap(self.maps, "deny_v4", key="ipv4_prefix", value="u32") as deny:
            return deny.is_fresh()

    def wait_until_stale(self) -> float:
        """Seconds until the copy counts as fresh no longer."""
        began = time.monotonic()
        while self.is_fresh():
            if time.monotonic() > began + PATIENCE_S:
                sys.exit("The copy stays fresh")
            time.sleep(0.01)
        return time.monotonic() - began


def wait_for_pin(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        if time.monotonic() > deadline:
            sys.exit(f"There is no {path}: see raftctl export list")
        time.sleep(0.05)


# --- what is shown --------------------------------------------------------------------------------


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, object]]:
    """Three nodes in namespaces of their own, with the kernel part."""
    place = ("--dir", str(folder))
    up = run(RAFTCTL, "-o", "json", "dev", "up", "--isolated", "--ebpf", *place)
    try:
        yield json.loads(up)
    finally:
        run(RAFTCTL, "dev", "down", *place)


def say(text: str) -> None:
    print(f"* {text}", flush=True)


def raftctl(name: str, *arguments: str) -> str:
    say(f"raftctl --node {name} {' '.join(arguments)}")
    return run(RAFTCTL, "--node", name, "--forward", *arguments)


def pin_dir(folder: Path, name: str) -> Path:
    config = tomllib.loads((folder / name / "raft.toml").read_text())
    return Path(config["ebpf"]["pin_dir"]) / "default"


@contextlib.contextmanager
def cut_off(tag: str, victim: str) -> Iterator[None]:
    """What this node sends to the others goes nowhere."""
    routes = ("ip", "-n", f"raftdev-{tag}-{victim}", "route")
    others = [address_of(name) for name in NAMES if name != victim]
    for address in others:
        run(*routes, "add", "blackhole", f"{address}/32")
    yield
    for address in others:
        run(*routes, "del", "blackhole", f"{address}/32")


def show(folder: Path, *, keep: bool) -> None:
    tag = DevCluster(folder).tag
    program = folder / "deny.bpf.o"
    run("make", "-s", "-C", str(HERE), f"OBJECT={program}")
    say("three nodes and a guest, each in a network namespace")
    with cluster(folder) as up:
        guest = Guest(tag)
        raftctl(
            *("node-01", "export", "add", "deny_v4", "--prefix", "fw/deny/"),
            *("--kind", "lpm_trie", "--key", "ipv4_prefix", "--value", "u32"),
        )
        filters = {}
        for name in NAMES:
            maps = pin_dir(folder, name)
            wait_for_pin(maps / "deny_v4_v1")
            filters[name] = Filter(program, f"raftdev-{tag}-{name}", maps)
        all_of_them = dict.fromkeys(NAMES, True)
        none_of_them = dict.fromkeys(NAMES, False)
        guest.wait_until(all_of_them)
        say(f"{GUEST_ADDRESS} reaches all three")
        raftctl("node-01", "propose", "put", f"fw/deny/{GUEST_NETWORK}", "1")
        guest.wait_until(none_of_them)
        say(f"{GUEST_ADDRESS} reaches none of them: their kernels drop its packets")
        print(raftctl("node-03", "export", "list"))

        victim = next(name for name in NAMES if name != up["leader"])
        with cut_off(tag, victim):
            seconds = filters[victim].wait_until_stale()
            say(f"{victim} is cut off; after {seconds:.2f} s its copy is not fresh any more")
            guest.wait_until({**none_of_them, victim: True})
            say(f"{victim} does what deny.bpf.c declares for that: it lets packets pass")
        guest.wait_until(none_of_them)
        say(f"{victim} is back, with a fresh copy: it drops them")
        raftctl("node-01", "propose", "delete", f"fw/deny/{GUEST_NETWORK}")
        guest.wait_until(all_of_them)
        say(f"{GUEST_ADDRESS} reaches all three again")
        if keep:
            input(f"It is all in {folder}. Enter takes it down: ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="wait for Enter before the end")
    parser.add_argument("--ping", metavar="ADDRESS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ping:
        sys.exit(0 if ping(options.ping) else 1)
    if os.geteuid() != 0:
        sys.exit(f"It makes network namespaces: sudo {sys.executable} {__file__}")
    with tempfile.TemporaryDirectory(prefix="deny-list-") as made:
        show(Path(made), keep=options.keep)


if __name__ == "__main__":
    main()
