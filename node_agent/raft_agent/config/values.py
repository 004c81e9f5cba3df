"""Checks of single values: each takes a value of the right type and gives what the program uses.

They raise ValueError with a sentence that follows the key's name: "must be …".
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from pathlib import Path

from raft_agent import logs

MAX_NAME_LENGTH = 63
# sun_path of unix(7) is 108 bytes on Linux and 104 on macOS, the closing NUL included.
MAX_SOCKET_PATH_BYTES = 103
MAX_TIMEOUT_MS = 600_000
MAX_DRIFT_PPM = 500_000
MIN_SECRET_LENGTH = 16
_MAX_COUNT = 1 << 40
# IFNAMSIZ of netdevice(7) is 16, the closing NUL included.
MAX_INTERFACE_LENGTH = 15

_WILDCARDS = frozenset({"0.0.0.0", "::", "*", ""})
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def split_address(address: str) -> tuple[str, int]:
    """ "host:port" or "[IPv6]:port" as host (without brackets) and port.

    Raises ValueError when it is neither.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port:
        raise ValueError(f'must be "host:port", but "{address}" has no port: try "{address}:5555"')
    if not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f'must end in a port from 1 to 65535, but in "{address}" it is "{port}"')
    if host.startswith("[") and host.endswith("]"):
        return _ipv6(host[1:-1]), int(port)
    if ":" in host:
        raise ValueError(
            f'must have an IPv6 address in brackets, like "[::1]:5555"; it is "{address}"'
        )
    if host in {"", "*"}:
        raise ValueError(
            f'must name a host; it is "{address}": for all interfaces say "0.0.0.0:{port}"'
        )
    if re.fullmatch(r"[0-9.]+", host):
        return _ipv4(host), int(port)
    if not _HOST_NAME.fullmatch(host) or len(host) > 253:
        raise ValueError(f'must start with a host name or an IP address; "{host}" is neither')
    return host, int(port)


def _ipv4(host: str) -> str:
    try:
        socket.inet_pton(socket.AF_INET, host)
    except OSError:
        raise ValueError(f'must have a usable IPv4 address; "{host}" is none') from None
    return host


def _ipv6(host: str) -> str:
    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        raise ValueError(f'must have an IPv6 address in the brackets; "{host}" is none') from None
    return host


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_wildcard(address: str) -> bool:
    """Whether a checked address means every interface."""
    return split_address(address)[0] in _WILDCARDS


def _is_local(host: str) -> bool:
    """Whether `host` names an address of this machine."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    for family, kind, protocol, _, where in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(where)
                return True
        except OSError:
            continue
    return False


def is_served(host: str, listen_addr: str) -> bool:
    """Whether who listens at `listen_addr` can be dialled at `host`. May ask a name server."""
    own = split_address(listen_addr)[0]
    if own in _WILDCARDS:
        return _is_local(host)
    return host == own or bool(_numbers(host) & _numbers(own))


def _numbers(host: str) -> set[str]:
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return set()
    return {str(where[0]) for *_, where in found}


def listen_address(value: str) -> str:
    return join_address(*split_address(value))


def dial_address(value: str) -> str:
    """An address that others can dial."""
    host, port = split_address(value)
    if host in _WILDCARDS:
        raise ValueError(
            f'must be an address that can be dialled; "{host}" stands for every interface of a '
            "machine and means nothing to others"
        )
    return join_address(host, port)


def dial_addresses(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(dial_address, values))


def member_name(value: str) -> str:
    """A name that can be part of file names, socket names and DNS-like labels."""
    if not value:
        raise ValueError('must not be empty; a name is something like "node-01"')
    if len(value) > MAX_NAME_LENGTH:
        raise ValueError(f"must have at most {MAX_NAME_LENGTH} characters, but it has {len(value)}")
    if not _NAME.fullmatch(value):
        raise ValueError(
            f'must start with a letter or digit and hold only A-Z a-z 0-9 . _ -, but is "{value}"'
        )
    return value


def path(value: str) -> str:
    """A path, made absolute: the agent's working directory must not matter later."""
    if not value.strip() or "\0" in value:
        raise ValueError("must be a path, but is empty" if not value.strip() else "has a NUL in it")
    return str(Path(value).absolute())


def socket_path(value: str) -> str:
    absolute = path(value)
    length = len(absolute.encode())
    if length > MAX_SOCKET_PATH_BYTES:
        raise ValueError(
            f"must have at most {MAX_SOCKET_PATH_BYTES} bytes, the system's limit for sockets, "
            f'but "{absolute}" has {length}'
        )
    return absolute


def group(value: str) -> str:
    import grp  # noqa: PLC0415  # looked up only by those who use it

    try:
        grp.getgrnam(value)
    except KeyError:
        raise ValueError(
            f'must be a group of this machine; there is no "{value}": '
            f"groupadd --system {value} makes it"
        ) from None
    return value


def interface(value: str) -> str:
    if not 1 <= len(value) <= MAX_INTERFACE_LENGTH or re.search(r"[\s/:]", value):
        raise ValueError(
            f'must be the name of a network interface, like "eth0", or "auto"; "{value}" can\'t be'
        )
    return value


def networks(values: tuple[str, ...]) -> tuple[str, ...]:
    """IP addresses and networks, as "10.0.0.0/8" or "192.0.2.7/32"."""
    found = []
    for value in values:
        try:
            found.append(str(ipaddress.ip_network(value)))
        except ValueError as error:
            raise ValueError(
                f'must hold addresses like "192.0.2.7" and networks like "10.0.0.0/8", but {error}'
            ) from None
    return tuple(found)


def log_levels(value: str) -> str:
    logs.parse_levels(value)
    return value


def one_of(*words: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in words:
            listed = " or ".join(f'"{word}"' for word in words)
            raise ValueError(f'must be {listed}, but is "{value}"')
        return value

    return check


def count(value: int) -> int:
    if not 1 <= value <= _MAX_COUNT:
        raise ValueError(f"must be from 1 to {_MAX_COUNT}, but is {value}")
    return value


def drift_ppm(value: int) -> int:
    if not 0 <= value <= MAX_DRIFT_PPM:
        raise ValueError(f"must be from 0 to {MAX_DRIFT_PPM} parts per million, but is {value}")
    return value


def secret(value: str) -> str:
    if len(value) < MIN_SECRET_LENGTH:
        raise ValueError(
            f"must have at least {MIN_SECRET_LENGTH} characters, so that nobody guesses it; "
            "openssl rand -hex 16 makes one"
        )
    return value


def milliseconds(value: int) -> int:
    if not 1 <= value <= MAX_TIMEOUT_MS:
        raise ValueError(f"must be from 1 to {MAX_TIMEOUT_MS} milliseconds, but is {value}")
    return value
