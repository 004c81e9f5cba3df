"""What clients say to an agent and what it answers; the same over every transport.

One CLIENT_REQUEST frame holds an array of requests, one CLIENT_REPLY frame an array of replies,
in any order; a reply repeats the id that the client gave its request. Streams (watches, events)
are replies too: a first one that says the stream stands, then items in CLIENT_PUSH frames under
the same id. Bodies are MessagePack, or JSON (values then base64) when the frame's JSON flag is
set; the reply uses what the request used. `docs/protocol.md` is the description for authors of
clients.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from raft_agent.api.errors import Error, ErrorCode
from raft_agent.api.exports import (
    EXPORT_KEY_TYPES,
    EXPORT_KINDS,
    EXPORT_VALUE_TYPES,
    MAX_EXPORT_ENTRIES,
    ExportAdd,
    ExportDump,
    ExportDumpResult,
    ExportEntry,
    ExportEvent,
    ExportInfo,
    ExportList,
    ExportListResult,
    ExportRemove,
    ExportWatch,
)
from raft_agent.api.kernel import (
    EBPF_STARTING,
    EbpfStatus,
    FaultDirection,
    FaultHeal,
    FaultInfo,
    FaultSet,
    FaultsResult,
    Kernel,
    KernelPeer,
    KernelResult,
    KernelTraffic,
)
from raft_agent.api.keys import Consistency, Delete, Get, List, Put, WatchKeys
from raft_agent.api.membership import (
    Join,
    JoinChallenge,
    JoinSelf,
    LeaderTransfer,
    Leave,
    MemberList,
    MemberPromote,
    MemberUpdate,
)
from raft_agent.api.messages import Messages, Send, WatchMessages
from raft_agent.api.rescue import (
    Recover,
    RecoverResult,
    SnapshotPiece,
    SnapshotSave,
    SurveyedMember,
)
from raft_agent.api.results import (
    ChallengeResult,
    EventItem,
    EventsResult,
    HealthMember,
    HealthResult,
    KeyEvent,
    KeyValue,
    Latency,
    LeaseInfo,
    LeaseListResult,
    LeaseResult,
    ListResult,
    MemberInfo,
    MemberListResult,
    MembershipResult,
    MessageItem,
    MessagesResult,
    OperationResult,
    ProgressInfo,
    SessionResult,
    SettingInfo,
    SettingsResult,
    StatusResult,
    StreamStarted,
    TransferResult,
    TxnResult,
    VitalsResult,
    WriteResult,
    voter_warnings,
)
from raft_agent.api.sessions import (
    CloseSession,
    KeepSession,
    Once,
    OneShot,
    OpenSession,
    SessionRef,
)
from raft_agent.api.states import (
    FaultFlip,
    MemberState,
    Rebuild,
    RebuildResult,
    StateCheck,
    StateCheckResult,
)
from raft_agent.api.terms import BaseRequest as _Request
from raft_agent.api.terms import (
    Limit,
    Name,
    RequestId,
    Signed,
)
from raft_agent.api.transactions import (
    LeaseGrant,
    LeaseKeepalive,
    LeaseList,
    LeaseRevoke,
    LeaseShow,
    Txn,
)
from raft_agent.machine.transactions import (
    Compare,
    DeleteKey,
    DeletePrefix,
    GetKey,
    ListKeys,
    Operation,
    PutKey,
    Relation,
    Target,
    TransactionError,
)

__all__ = [
    "EBPF_STARTING",
    "ENCODER",
    "EXPORT_KEY_TYPES",
    "EXPORT_KINDS",
    "EXPORT_VALUE_TYPES",
    "ITEM_TYPES",
    "JSON_ENCODER",
    "MAX_EXPORT_ENTRIES",
    "MAX_IN_FLIGHT",
    "MAX_KEY_BYTES",
    "MAX_REQUESTS_PER_FRAME",
    "MAX_STREAMS",
    "MAX_TEXT_BYTES",
    "MAX_VALUE_BYTES",
    "REPLIES_DECODER",
    "REQUESTS_DECODER",
    "REQUESTS_JSON_DECODER",
    "REQUEST_DECODER",
    "RESULT_TYPES",
    "WRITES",
    "Cancel",
    "ChallengeResult",
    "CloseSession",
    "Compare",
    "Consistency",
    "Delete",
    "DeleteKey",
    "DeletePrefix",
    "EbpfStatus",
    "Error",
    "ErrorCode",
    "EventItem",
    "Events",
    "EventsResult",
    "ExportAdd",
    "ExportDump",
    "ExportDumpResult",
    "ExportEntry",
    "ExportEvent",
    "ExportInfo",
    "ExportList",
    "ExportListResult",
    "ExportRemove",
    "ExportWatch",
    "FaultDirection",
    "FaultFlip",
    "FaultHeal",
    "FaultInfo",
    "FaultSet",
    "FaultsResult",
    "Get",
    "GetKey",
    "Health",
    "HealthMember",
    "HealthResult",
    "Join",
    "JoinChallenge",
    "JoinSelf",
    "KeepSession",
    "Kernel",
    "KernelPeer",
    "KernelResult",
    "KernelTraffic",
    "KeyEvent",
    "KeyValue",
    "Latency",
    "LeaderTransfer",
    "LeaseGrant",
    "LeaseInfo",
    "LeaseKeepalive",
    "LeaseList",
    "LeaseListResult",
    "LeaseResult",
    "LeaseRevoke",
    "LeaseShow",
    "Leave",
    "List",
    "ListKeys",
    "ListResult",
    "MemberInfo",
    "MemberList",
    "MemberListResult",
    "MemberPromote",
    "MemberState",
    "MemberUpdate",
    "MembershipRequest",
    "MembershipResult",
    "MessageItem",
    "Messages",
    "MessagesResult",
    "Once",
    "OneShot",
    "OpenSession",
    "Operation",
    "OperationResult",
    "ProgressInfo",
    "Put",
    "PutKey",
    "Rebuild",
    "RebuildResult",
    "Recover",
    "RecoverResult",
    "Relation",
    "Reply",
    "Request",
    "Send",
    "SessionRef",
    "SessionResult",
    "SettingInfo",
    "SettingSet",
    "SettingsList",
    "SettingsResult",
    "SnapshotPiece",
    "SnapshotSave",
    "StateCheck",
    "StateCheckResult",
    "Status",
    "StatusResult",
    "StreamStarted",
    "SurveyedMember",
    "Target",
    "TransactionError",
    "TransferResult",
    "Txn",
    "TxnResult",
    "Vitals",
    "VitalsResult",
    "WatchKeys",
    "WatchMessages",
    "WriteResult",
    "voter_warnings",
]

MAX_KEY_BYTES = 4096
MAX_VALUE_BYTES = 8 << 20
MAX_TEXT_BYTES = 1 << 20
MAX_REQUESTS_PER_FRAME = 16_384
MAX_REPLIES_PER_FRAME = 65_536
MAX_IN_FLIGHT = 65_536
MAX_STREAMS = 1024


# On the wire a request is an array: [op, id, field, field, …]; trailing defaults may be left out.


class Status(_Request, frozen=True, tag="status"):
    pass


class SettingsList(_Request, frozen=True, tag="settings_list"):
    """The settings that all nodes share, as this node has applied them."""


class SettingSet(_Request, frozen=True, tag="setting_set"):
    name: Name
    value: Signed
    forward: bool = False


class Health(_Request, frozen=True, tag="health"):
    """Asked of a follower, the leader answers when there is one."""

    forward: bool = True


class Vitals(_Request, frozen=True, tag="vitals"):
    """This node's numbers: how far the log is, how long things take, what waits."""


class Events(_Request, frozen=True, tag="events"):
    """The newest `limit` events, oldest first. With `follow` it is a stream: those and all new ones
    are pushed."""

    limit: Limit = 100
    follow: bool = False


class Cancel(_Request, frozen=True, tag="cancel"):
    """End the stream with the id `stream`; nothing of it comes after the reply. The result is null,
    also when the stream had ended already."""

    stream: RequestId


Request = (
    Status
    | Send
    | Messages
    | WatchMessages
    | Put
    | Delete
    | Get
    | List
    | WatchKeys
    | Txn
    | LeaseGrant
    | LeaseKeepalive
    | LeaseRevoke
    | LeaseList
    | LeaseShow
    | OpenSession
    | KeepSession
    | CloseSession
    | SettingsList
    | SettingSet
    | MemberList
    | Join
    | Leave
    | MemberPromote
    | MemberUpdate
    | JoinChallenge
    | JoinSelf
    | LeaderTransfer
    | Recover
    | SnapshotSave
    | Health
    | Vitals
    | Events
    | Kernel
    | FaultSet
    | FaultHeal
    | FaultFlip
    | StateCheck
    | Rebuild
    | ExportAdd
    | ExportRemove
    | ExportList
    | ExportDump
    | ExportWatch
    | Cancel
)

MembershipRequest: TypeAlias = Join | Leave | MemberPromote | MemberUpdate | JoinSelf


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """[id, error or null, result or null]; the result's shape belongs to the request."""

    id: int
    error: Error | None
    result: msgspec.Raw = msgspec.Raw(b"\xc0")


# What the result of each request decodes to, and for a stream what its pushed items do.
RESULT_TYPES: dict[type[Request], type | None] = {
    Status: StatusResult,
    Send: WriteResult,
    Messages: MessagesResult,
    WatchMessages: StreamStarted,
    Put: WriteResult,
    Delete: WriteResult,
    Get: KeyValue,
    List: ListResult,
    WatchKeys: StreamStarted,
    Txn: TxnResult,
    LeaseGrant: LeaseResult,
    LeaseKeepalive: LeaseResult,
    LeaseRevoke: WriteResult,
    LeaseList: LeaseListResult,
    LeaseShow: LeaseInfo,
    OpenSession: SessionResult,
    KeepSession: None,
    CloseSession: None,
    SettingsList: SettingsResult,
    SettingSet: WriteResult,
    MemberList: MemberListResult,
    Join: MembershipResult,
    Leave: MembershipResult,
    MemberPromote: MembershipResult,
    MemberUpdate: MembershipResult,
    JoinChallenge: ChallengeResult,
    JoinSelf: MembershipResult,
    LeaderTransfer: TransferResult,
    Recover: RecoverResult,
    SnapshotSave: StreamStarted,
    Health: HealthResult,
    Vitals: VitalsResult,
    Events: EventsResult,
    Kernel: KernelResult,
    FaultSet: FaultsResult,
    FaultHeal: FaultsResult,
    FaultFlip: None,
    StateCheck: StateCheckResult,
    Rebuild: RebuildResult,
    ExportAdd: WriteResult,
    ExportRemove: WriteResult,
    ExportList: ExportListResult,
    ExportDump: ExportDumpResult,
    ExportWatch: StreamStarted,
    Cancel: None,
}
ITEM_TYPES: dict[type[Request], type] = {
    WatchMessages: MessageItem,
    WatchKeys: KeyEvent,
    Events: EventItem,
    SnapshotSave: SnapshotPiece,
    ExportWatch: ExportEvent,
}

# What changes something: asking again after a lost answer could do it twice. Sessions are not among
# them: one that was opened twice expires, one that was closed twice is closed. Nor is a lease that
# is kept alive twice.
WRITES = (
    Send,
    Put,
    Delete,
    Txn,
    LeaseGrant,
    LeaseRevoke,
    SettingSet,
    Join,
    Leave,
    MemberPromote,
    MemberUpdate,
    JoinSelf,
    LeaderTransfer,
    Recover,
    Rebuild,
    ExportAdd,
    ExportRemove,
)

ENCODER = msgspec.msgpack.Encoder()
JSON_ENCODER = msgspec.json.Encoder()
REQUEST_DECODER = msgspec.msgpack.Decoder(Request)
REQUESTS_DECODER = msgspec.msgpack.Decoder(list[Request])
REQUESTS_JSON_DECODER = msgspec.json.Decoder(list[Request])
REPLIES_DECODER = msgspec.msgpack.Decoder(
    Annotated[list[Reply], msgspec.Meta(max_length=MAX_REPLIES_PER_FRAME)]
)
