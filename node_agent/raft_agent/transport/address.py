"""Addresses of members: "host:port" with a name or IPv4 address, "[v6]:port" with IPv6."""

from __future__ import annotations

_MAX_PORT = 65535


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[v6]:port"; the host without brackets.

    Raises ValueError that says what would be right.
    """
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or "[" in host or "]" in host:
        raise ValueError(f"address {address!r}: write an IPv6 address as [address]:port")
    if not colon or not host:
        raise ValueError(f"address {address!r} is not of the form host:port")
    if not (port.isascii() and port.isdigit()) or int(port) > _MAX_PORT:
        raise ValueError(f"address {address!r}: {port!r} is no port number")
    return host, int(port)


def format_address(socket_name: object) -> str:
    """What `getsockname`/`getpeername` give, as "host:port" or "[v6]:port"."""
    if not isinstance(socket_name, tuple) or len(socket_name) < 2:
        return "unknown address"
    host, port = socket_name[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
