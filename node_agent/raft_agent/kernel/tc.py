"""Our two filters on a network interface, see tc-bpf(8): put there, found again, taken away.

All of it blocks, so it is called in a thread: pyroute2's own coroutines can't run in uvloop, which
opens no netlink sockets.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from raft_agent.kernel import tcx

if TYPE_CHECKING:
    from pyroute2 import IPRoute

# Filters run in the order of their priority. All agents share one, so that the handle, which is the
# agent's port, tells their filters apart: with both given, "replace" never stacks a second copy.
PRIORITY = 82
INGRESS = "raft_ingress"
EGRESS = "raft_egress"

# <linux/pkt_sched.h>: TC_H_CLSACT, and its two sides as parents of filters.
_CLSACT = 0xFFFFFFF1
_PARENTS = {INGRESS: 0xFFFFFFF2, EGRESS: 0xFFFFFFF3}
_GONE = frozenset({errno.ENODEV, errno.ENOENT, errno.EINVAL})


class AttachError(Exception):
    """Why an interface can't be watched, in a sentence for people."""


class Programs(msgspec.Struct, frozen=True):
    """File descriptors of the loaded programs."""

    ingress_fd: int
    egress_fd: int


class _Filter(msgspec.Struct, frozen=True):
    priority: int
    handle: int
    kind: str
    name: str


def attach(ipr: IPRoute, index: int, interface: str, port: int, programs: Programs) -> None:
    """Put both programs on the interface, in the place of what a former run of the agent of `port`
    left there. Raises AttachError.
    """
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    try:
        _ensure_clsact(ipr, index, interface)
        for name, fd in ((INGRESS, programs.ingress_fd), (EGRESS, programs.egress_fd)):
            _refuse_foreign(ipr, index, interface, port, name)
            ipr.tc(
                "replace-filter",
                "bpf",
                index=index,
                parent=_PARENTS[name],
                fd=fd,
                name=name,
                direct_action=True,
                prio=PRIORITY,
                handle=port,
            )
    except NetlinkError as error:
        raise AttachError(f"{interface} takes no filter: {_in_words(error)}") from error


def is_attached(ipr: IPRoute, index: int, port: int) -> bool:
    """Whether both filters of the agent of `port` are on the interface."""
    return all(_own(ipr, index, port, name) is not None for name in _PARENTS)


def detach(ipr: IPRoute, index: int, port: int) -> None:
    """Take away the filters of the agent of `port`, and nobody else's; the clsact qdisc stays, as
    others may have come to use it. Does nothing where there are none. Raises AttachError.
    """
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    for name, parent in _PARENTS.items():
        if _own(ipr, index, port, name) is None:
            continue
        try:
            ipr.tc("del-filter", "bpf", index=index, parent=parent, prio=PRIORITY, handle=port)
        except NetlinkError as error:
            if error.code not in _GONE:
                raise AttachError(f"can't take {name} away: {_in_words(error)}") from error


def in_front(ipr: IPRoute, index: int) -> list[str]:
    """What sees this interface's packets before we do, and so can hide them from us."""
    found = [f"TCX program {name}" for name in tcx.programs(index)]
    for parent in _PARENTS.values():
        found += [
            f"{one.kind} filter {one.name or hex(one.handle)} with priority {one.priority}"
            for one in _filters(ipr, index, parent)
            if one.priority < PRIORITY and one.handle
        ]
    return found


def _ensure_clsact(ipr: IPRoute, index: int, interface: str) -> None:
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    try:
        ipr.tc("add", "clsact", index=index)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
    kind = next((q.get("kind") for q in ipr.tc("dump", index=index) if _is_clsact(q, index)), None)
    if kind != "clsact":
        # It has the same handle, and no egress: both filters would end up on ingress.
        raise AttachError(
            f"{interface} has a plain {kind} qdisc, which has no egress side: whoever made it has "
            f"to replace it by clsact (tc qdisc del dev {interface} ingress)"
        )


def _is_clsact(qdisc: Any, index: int) -> bool:
    return bool(qdisc["index"] == index and qdisc["parent"] == _CLSACT)


def _refuse_foreign(ipr: IPRoute, index: int, interface: str, port: int, name: str) -> None:
    for one in _filters(ipr, index, _PARENTS[name]):
        if one.priority != PRIORITY or not one.handle:
            continue
        if one.kind != "bpf" or (one.handle == port and one.name != name):
            raise AttachError(
                f"{interface} has another program's {one.kind} filter {one.name} with our priority "
                f"{PRIORITY}: move it to another priority"
            )


def _own(ipr: IPRoute, index: int, port: int, name: str) -> _Filter | None:
    wanted = _Filter(PRIORITY, port, "bpf", name)
    return next((one for one in _filters(ipr, index, _PARENTS[name]) if one == wanted), None)


def _filters(ipr: IPRoute, index: int, parent: int) -> Iterator[_Filter]:
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    try:
        found = list(ipr.get_filters(index=index, parent=parent))
    except NetlinkError as error:
        if error.code in _GONE:
            return
        raise
    for message in found:
        if message["index"] != index:
            continue
        options = message.get("options")
        name = options.get_attr("TCA_BPF_NAME") if hasattr(options, "get_attr") else None
        yield _Filter(
            message["info"] >> 16, message["handle"], message.get("kind") or "?", name or ""
        )


def _in_words(error: Any) -> str:
    if error.code == errno.EPERM:
        return "not permitted (the agent needs CAP_NET_ADMIN)"
    return str(error.args[1] if len(error.args) > 1 else error)
