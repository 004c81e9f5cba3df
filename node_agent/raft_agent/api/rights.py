"""Who may ask what: the role that each request takes at least, and who has which."""

from __future__ import annotations

import os
import socket

import msgspec

from raft_agent.api import protocol
from raft_agent.api.protocol import Error, ErrorCode
from raft_agent.platform import peer_credentials, peer_groups
from raft_agent.tls.identity import Identity, Kind, Role

_ROLES = tuple(Role)  # each may do what those before it may

LEAST_ROLE: dict[type, Role] = {
    **dict.fromkeys(
        (
            protocol.Status,
            protocol.Messages,
            protocol.WatchMessages,
            protocol.Get,
            protocol.List,
            protocol.WatchKeys,
            protocol.LeaseList,
            protocol.LeaseShow,
            protocol.SettingsList,
            protocol.MemberList,
            # A nonce gives nobody a right: what is done with it does.
            protocol.JoinChallenge,
            protocol.Health,
            protocol.Vitals,
            protocol.Events,
            protocol.Kernel,
            protocol.ExportList,
            protocol.ExportDump,
            protocol.ExportWatch,
            protocol.Cancel,
        ),
        Role.READER,
    ),
    **dict.fromkeys(
        (
            protocol.Send,
            protocol.Put,
            protocol.Delete,
            protocol.Txn,
            protocol.LeaseGrant,
            protocol.LeaseKeepalive,
            protocol.LeaseRevoke,
            protocol.OpenSession,
            protocol.KeepSession,
            protocol.CloseSession,
        ),
        Role.WRITER,
    ),
    **dict.fromkeys(
        (
            protocol.SettingSet,
            protocol.Join,
            protocol.Leave,
            protocol.MemberPromote,
            protocol.MemberUpdate,
            protocol.JoinSelf,
            protocol.LeaderTransfer,
            # It gives out every value of the cluster.
            protocol.SnapshotSave,
            protocol.Recover,
            protocol.FaultSet,
            protocol.FaultHeal,
            protocol.ExportAdd,
            protocol.ExportRemove,
            protocol.FaultFlip,
            protocol.StateCheck,
            protocol.Rebuild,
        ),
        Role.ADMIN,
    ),
}
"""A request that is not in here takes the role admin."""


class Principal(msgspec.Struct, frozen=True):
    """Who asks. `who` is for logs and the audit; without a `role` there is no right, and `reason`
    says why. `certified`: of a node that asks for itself, the name in its certificate.
    """

    who: str
    role: Role | None
    reason: str = ""
    certified: str = ""


def denial(principal: Principal, request: protocol.Request) -> Error | None:
    """Why this request is not served; None when it may be."""
    needed = LEAST_ROLE.get(type(request), Role.ADMIN)
    role = principal.role
    if role is not None and _ROLES.index(role) >= _ROLES.index(needed):
        return None
    op = type(request).__struct_config__.tag
    if role is None:
        return Error(
            f"Permission denied: {principal.reason}",
            ErrorCode.PERMISSION_DENIED,
            "docs/security.md says who may do what",
        )
    return Error(
        f"Permission denied: {op} takes the role {needed}, and {principal.who} has the role {role}",
        ErrorCode.PERMISSION_DENIED,
        f"Use a certificate with the role {needed}: raftctl cert client NAME --role {needed}",
    )


def of_socket(connection: socket.socket | None, group_id: int | None) -> Principal:
    """Whoever has connected to the Unix socket. `group_id`: whose members may do what the owner
    may. The mode of the file says the same; this holds also when somebody has changed that.
    """
    if connection is None:
        return Principal("a client", None, "the system does not tell who asks")
    try:
        pid, uid, gid = peer_credentials(connection)
    except OSError as error:
        return Principal("a client", None, f"the system does not tell who asks ({error})")
    who = f"client uid {uid}" if pid is None else f"client pid {pid} uid {uid}"
    if uid in (0, os.geteuid()):
        return Principal(who, Role.ADMIN)
    if group_id is not None and (gid == group_id or group_id in peer_groups(connection)):
        return Principal(who, Role.ADMIN)
    reason = f"this socket is for root and the agent's user, and {who} is neither"
    if group_id is not None:
        reason += f", nor in the group {group_id} (server.ipc_group)"
    return Principal(who, None, reason)


# What a node may ask before it is a member: the token of the cluster lets it in, or nothing does.
_OF_NEW_NODES = (protocol.JoinChallenge, protocol.JoinSelf)


def of_node(
    name: str, request: protocol.Request, *, is_member: bool, certified: str = ""
) -> Principal:
    """A node that passes a request on. A member has made sure of who asks. Any other node has shown
    at most that it has a certificate, and some that have were removed."""
    if is_member:
        return Principal(f"a client of {name}", Role.ADMIN)
    who = f"node {name}"
    if isinstance(request, _OF_NEW_NODES):
        return Principal(who, Role.ADMIN, certified=certified)
    return Principal(who, None, f"{name} is no member of this cluster")


def of_identity(identity: Identity, address: str) -> Principal:
    """Whoever has shown this certificate over TLS, from `address`."""
    who = f"{identity} at {address}"
    if identity.kind is Kind.NODE:
        # It has all rights of a member, by the protocol of members; a client is somebody else.
        return Principal(who, None, "a node's certificate is no client's: raftctl cert client")
    if identity.role is None:
        names = ", ".join(Role)
        reason = f"the certificate of {identity.name} gives no role (organizational unit: {names})"
        return Principal(who, None, reason)
    return Principal(who, identity.role)
