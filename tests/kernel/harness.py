"""Two hosts that are network namespaces, joined by a link with the program on both ends."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import itertools
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from raft_agent.kernel import OBJECT_PATH, libbpf
from raft_agent.kernel.counters import Counters, Flow, decode_flow, read_flow
from raft_agent.kernel.layout import FlowKey
from raft_agent.kernel.libbpf import LoadedObject, Map

PORT = 5555
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
INGRESS, EGRESS = 1, 2  # enum bpf_tc_attach_point of <bpf/libbpf.h>
_numbers = itertools.count()


def is_privileged() -> bool:
    """Whether this process may do what these tests do; root in a container often may not."""
    return sys.platform == "linux" and os.geteuid() == 0 and not libbpf.missing_capabilities()


def missing() -> str | None:
    """Which program the tests lack, None when all are there."""
    for program, package in (
        ("ip", "iproute2"),
        ("ethtool", "ethtool"),
        ("clang", "clang"),
        ("llvm-readelf", "llvm"),
    ):
        if shutil.which(program) is None:
            return f"{program} is missing: apt-get install {package}"
    try:
        libbpf.library()
    except libbpf.KernelUnavailable as error:
        return str(error)
    return None


def run(*command: str | Path) -> str:
    """The output of a program that must not fail."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


class _TcHook(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
    )


class _TcOptions(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("prog_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    )


@dataclass
class Host:
    """One namespace with one interface."""

    namespace: str
    interface: str
    address: str
    address6: str
    program: LoadedObject | None = None
    sockets: list[socket.socket] = field(default_factory=list)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace; sockets that it opens stay there."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/thread-self/ns/net").open() as home:
            with Path(f"/run/netns/{self.namespace}").open() as there:
                assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0, os.strerror(
                    ctypes.get_errno()
                )
            try:
                yield
            finally:
                assert libc.setns(home.fileno(), _CLONE_NEWNET) == 0

    def run(self, *command: str) -> str:
        """The output of a program in the namespace."""
        return run("ip", "netns", "exec", self.namespace, *command)

    def attach(self, program: LoadedObject) -> None:
        """Put the program on the interface, in both directions."""
        for point, name in ((INGRESS, "raft_ingress"), (EGRESS, "raft_egress")):
            self.attach_fd(program.program_fd(name), point)
        self.program = program

    def attach_fd(self, fd: int, point: int, *, priority: int = 0) -> None:
        """Put a program on the interface; without a priority in front of those that are there."""
        bpf = libbpf.library()
        with self.inside(), libbpf.captured():
            index = socket.if_nametoindex(self.interface)
            hook = _TcHook(ctypes.sizeof(_TcHook), index, point, 0)
            bpf.bpf_tc_hook_create(ctypes.byref(hook))  # it may be there already
            options = _TcOptions(ctypes.sizeof(_TcOptions), fd, priority=priority)
            result = bpf.bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options))
            assert result == 0, os.strerror(-result)

    def flow(self, connection: socket.socket) -> Flow:
        """What the program on this host counted of a connection of this host."""
        assert self.program is not None
        found = read_flow(self.program.map("flows"), flow_key(connection))
        assert found is not None, f"{flow_key(connection)} was not seen"
        return found


def flow_key(connection: socket.socket) -> FlowKey:
    """A connected socket's key."""
    local, remote = connection.getsockname(), connection.getpeername()
    return FlowKey(
        ipaddress.ip_address(local[0]),
        local[1],
        ipaddress.ip_address(remote[0]),
        remote[1],
    )


@dataclass
class Link:
    """Two hosts and what must be given back."""

    left: Host
    right: Host

    def connect(
        self, *, ip6: bool = False, port: int = PORT
    ) -> tuple[socket.socket, socket.socket]:
        """(the left host's end, the right host's) of a connection to a port of the right one."""
        family = socket.AF_INET6 if ip6 else socket.AF_INET
        with self.right.inside(), socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Less than the queue of the receiving end (net.core.netdev_max_backlog) holds, so that
            # nothing is lost on the way.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 << 10)
            listener.bind(("::" if ip6 else "0.0.0.0", port))
            listener.listen()
            with self.left.inside():
                left = socket.socket(family, socket.SOCK_STREAM)
                self.left.sockets.append(left)
                left.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 << 10)
                left.settimeout(20)
                left.connect((self.right.address6 if ip6 else self.right.address, port))
            right, _ = listener.accept()
        self.right.sockets.append(right)
        right.settimeout(20)
        for end in (left, right):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return left, right

    def set_offloads(self, *, on: bool) -> None:
        """Segmentation and its reverse: with them packets of 64 KiB pass, without them MTUs."""
        for host in (self.left, self.right):
            settings = [
                word for name in ("tso", "gso", "gro") for word in (name, "on" if on else "off")
            ]
            host.run("ethtool", "-K", host.interface, *settings)


def read_flows(flows: Map) -> Iterator[Flow]:
    """All flows."""
    for key, value in flows.items():
        yield decode_flow(FlowKey.decode(key), value)


def frame_bytes(counters: Counters) -> int:
    """Bytes of frames of all types, headers included."""
    return sum(count.bytes for count in counters.types.values())


def load(**rodata: int) -> LoadedObject:
    """The shipped program, for the port of these tests."""
    return libbpf.load(OBJECT_PATH, rodata={"raft_port": PORT, **rodata}, pin_dir=None)


def _join_by_veth(left: Host, right: Host) -> None:
    left.run(
        *("ip", "link", "add", left.interface, "type", "veth"),
        *("peer", "name", right.interface, "netns", right.namespace),
    )


@contextlib.contextmanager
def _two_hosts(join: Callable[[Host, Host], None], rodata: dict[str, int]) -> Iterator[Link]:
    number = f"{os.getpid()}-{next(_numbers)}"
    hosts = [
        Host(f"raft-{side}-{number}", f"raft-{side}", f"10.77.0.{host}", f"fd77::{host}")
        for host, side in ((1, "l"), (2, "r"))
    ]
    programs = [load(**rodata) for _ in hosts]
    try:
        for host in hosts:
            run("ip", "netns", "add", host.namespace)
        join(*hosts)
        for host, program in zip(hosts, programs, strict=True):
            host.run("ip", "addr", "add", f"{host.address}/24", "dev", host.interface)
            host.run("ip", "addr", "add", f"{host.address6}/64", "dev", host.interface, "nodad")
            host.run("ip", "link", "set", "lo", "up")
            host.run("ip", "link", "set", host.interface, "up")
            host.attach(program)
        yield Link(*hosts)
    finally:
        for host in hosts:
            for end in host.sockets:
                end.close()
            subprocess.run(["ip", "netns", "delete", host.namespace], check=False)
        for program in programs:
            program.close()


def linked(**rodata: int) -> contextlib.AbstractContextManager[Link]:
    """Two hosts on a veth pair, with the program on both ends of it."""
    return _two_hosts(_join_by_veth, rodata)


@contextlib.contextmanager
def linked_without_ethernet() -> Iterator[Link]:
    """The same over tun devices, whose packets begin with the IP header; a thread is the wire."""
    files: list[int] = []

    def join(*hosts: Host) -> None:
        for host in hosts:
            with host.inside():
                files.append(_open_tun(host.interface))

    stop, stopped = os.pipe()
    wire = threading.Thread(target=_carry, args=(files, stop))
    try:
        with _two_hosts(join, {}) as link:
            wire.start()
            try:
                yield link
            finally:
                os.write(stopped, b"x")
                wire.join()
    finally:
        for file in (*files, stop, stopped):
            os.close(file)


def _open_tun(name: str) -> int:
    file = os.open("/dev/net/tun", os.O_RDWR)
    # struct ifreq of <linux/if.h>: name and flags, here IFF_TUN | IFF_NO_PI of <linux/if_tun.h>
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), 0x0001 | 0x1000))
    return file


def _carry(files: list[int], stop: int) -> None:
    left, right = files
    while True:
        readable, _, _ = select.select([left, right, stop], [], [])
        if stop in readable:
            return
        for file in readable:
            os.write(left if file == right else right, os.read(file, 1 << 16))
