"""Under which names the pages may be asked for where they are for this machine alone.

A browser on this machine asks a loopback address for any site whose name leads there (DNS
rebinding), and shows that site the answer. What no such site has as its name is an address, or
localhost (RFC 6761 §6.3).
"""

from __future__ import annotations

import ipaddress

from aiohttp import hdrs, web

from raft_agent.http.limits import Handler


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_own_name(host: str) -> bool:
    """Whether a Host header (RFC 9110 §7.2) can be the word of somebody who means this machine."""
    name = host.strip()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") <= 1:
        name = name.partition(":")[0]
    name = name.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@web.middleware
async def only_own_names(request: web.Request, handler: Handler) -> web.StreamResponse:
    """For a server on a loopback address. Who sends no Host header is no browser."""
    if all(map(is_own_name, request.headers.getall(hdrs.HOST, ()))):
        return await handler(request)
    raise web.HTTPMisdirectedRequest(
        text="these pages are for this machine alone (server.http_addr): ask for them at "
        "http://localhost or at the address itself\n"
    )
